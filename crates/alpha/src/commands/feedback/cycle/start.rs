//! `alpha loop start`.

use clap::Args;
use feedback::{
    LoopError,
    land::{cycle, status},
    parity::Tier,
};

use super::{Context, Done, status::text};

/// The hypothesis of the cycle.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// The hypothesis to show, in a sentence
    hypothesis: String,

    /// The part of the trainer that the change is about: a name of `[areas]` in `loop.toml`
    #[arg(long, value_name = "NAME")]
    area: Option<String>,

    /// How equal the training must stay: the same bits (t0), re-associated sums (t1), a declared change of precision (t2)
    #[arg(long, value_name = "TIER", default_value = "t1")]
    parity: Tier,

    /// Commit that the change is measured against; HEAD unless named
    #[arg(long, value_name = "REV")]
    baseline: Option<String>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session_against(flags.baseline.as_deref())?;
    let _lock = session.state.lock()?;
    cycle::start(&session, &flags.hypothesis, flags.area.as_deref(), flags.parity, flags.baseline.as_deref())?;
    context.show(&status::status(&session)?, text)?;
    Ok(Done::WELL)
}

//! `alpha loop drop`.

use std::path::Path;

use clap::Args;
use feedback::{LoopError, land::cycle, store::session::Session, visible};

use super::{Context, Done};

/// The reason.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Why the cycle ends without a commit
    reason: Option<String>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = Session::open_to_drop(Path::new("."))?;
    let _lock = session.state.lock()?;
    let dropped = cycle::drop(&mut session, flags.reason.as_deref())?;
    context.show(&dropped, |dropped| {
        let hypothesis = visible::line(&dropped.hypothesis);
        format!("dropped: {hypothesis}\nrecord {}; the working tree is as it was\n", dropped.record)
    })?;
    Ok(Done::WELL)
}

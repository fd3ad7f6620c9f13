//! `alpha loop history`.

use clap::Args;
use feedback::{LoopError, advise::history};

use super::{Context, Done};

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    context.show(&history::tell(&session)?, ToString::to_string)?;
    Ok(Done::WELL)
}

//! `alpha loop history`.

use clap::Args;
use feedback::{LoopError, chronicle};

use super::{Context, Done};

/// Nothing to choose.
#[derive(Args, Debug)]
pub(super) struct Flags {}

pub(super) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    context.show(&chronicle::tell(&session)?, chronicle::Chronicle::text)?;
    Ok(Done::WELL)
}

//! `alpha loop record-benchmark`, which `scripts/run-compiled-benchmark.sh` calls.

use std::io::Read;

use clap::Args;
use feedback::{LoopError, records::evidence};

use super::{Context, Done};

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| LoopError::failed(format!("cannot read the row from stdin: {error}")))?;
    let mut session = context.session()?;
    let recorded = evidence::record_benchmark(&mut session, &text)?;
    context.show(&recorded, |recorded| format!("record {}\n", recorded.record))?;
    Ok(Done::WELL)
}

//! `alpha loop` on systems where it does not run.

use std::ffi::OsString;

use clap::Args;

use crate::exit::{Exit, Failure};

/// Anything: its meaning is known on Linux.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The loop's command and flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Says where `alpha loop` runs.
pub(crate) fn run(_flags: &Flags) -> Result<(), Failure> {
    Err(Failure::new(Exit::Unavailable, "`alpha loop` runs on Linux: its walls and control groups are Linux's").hint(
        "the engine (`alpha train`, `eval`, `sample` …) works here; run the loop on a Linux machine or in a container",
    ))
}

//! `alpha completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use crate::{exit::Failure, output};

/// The flags of `alpha completions`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script for a definition of the whole command line.
pub(crate) fn run(flags: &Flags, definition: &mut clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, definition, "alpha", &mut script);
    Ok(output::print(&String::from_utf8_lossy(&script))?)
}

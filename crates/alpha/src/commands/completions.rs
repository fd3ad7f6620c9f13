//! `alpha completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use crate::{cli, exit::Failure, output};

/// What was asked of `alpha completions`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut cli::definition(), "alpha", &mut script);
    Ok(output::print(&String::from_utf8_lossy(&script))?)
}

//! `alpha loop hook`.

use std::path::PathBuf;

use clap::Subcommand;
use feedback::{LoopError, Progress, git::Repository, land::hook, records::registry};

use super::{Context, Done};

/// Actions on the hook.
#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// Install a `commit-msg` hook that refuses claims without a matching record
    Install,
    /// Take it out again
    Uninstall,
    /// What the hook runs: check a commit's message against the ledger
    Check {
        /// The file with the message
        message: PathBuf,
    },
}

pub(crate) fn run(action: &Action, context: &Context) -> Result<Done, LoopError> {
    let here = std::path::Path::new(".");
    match action {
        Action::Check { message } => {
            hook::check_file(here, message)?;
            return Ok(Done::WELL);
        }
        Action::Install => {
            let program = std::env::current_exe()
                .map_err(|error| LoopError::failed(format!("cannot tell where this program is: {error}")))?;
            context.show(&hook::install(here, &program)?, ToString::to_string)?;
            for line in registry::how_to_share(&Repository::open(here)?)? {
                context.console.note(&line);
            }
        }
        Action::Uninstall => context.show(&hook::uninstall(here)?, ToString::to_string)?,
    }
    Ok(Done::WELL)
}

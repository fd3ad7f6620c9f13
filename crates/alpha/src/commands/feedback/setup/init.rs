//! `alpha loop init`.

use clap::Args;
use feedback::{LoopError, Progress, advise::init, git::Repository};

use super::{Context, Done};

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let repository = Repository::open(std::path::Path::new("."))?;
    let made = init::init(repository.root())?;
    for guess in &made.guesses {
        context.console.note(&format!("to be read over: {guess}"));
    }
    context.show(&made, |made| {
        format!(
            "`loop.toml` is written ({} repository)\n\
             next: read it over and commit it, it is part of the evidence; then `alpha loop selftest`, `alpha loop next`\n",
            made.kind
        )
    })?;
    Ok(Done::WELL)
}

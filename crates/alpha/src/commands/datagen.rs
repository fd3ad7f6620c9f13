//! `alpha datagen`: synthetic data, a function of the seed alone.

use std::path::PathBuf;

use alpha_train::files;
use clap::{Args, Subcommand};

use crate::{
    exit::Failure,
    flags::value::{count, path},
    output,
};

/// The kinds of data.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// About 250 kB of tunes in ABC notation
    Abc(AbcFlags),
}

/// The flags of `alpha datagen abc`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct AbcFlags {
    /// Seed of the random stream
    #[arg(long, value_name = "N", value_parser = count, default_value = "1")]
    pub(crate) seed: u64,
    /// Write to this file [default: standard output]
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub(crate) out: Option<PathBuf>,
}

/// Makes the data and writes it.
pub(crate) fn run(action: &Action) -> Result<(), Failure> {
    let Action::Abc(flags) = action;
    let text = alpha_data::datagen::abc(flags.seed);
    match &flags.out {
        Some(file) => Ok(files::write_atomically(file, |out| out.write_all(text.as_bytes()))?),
        None => Ok(output::print(&text)?),
    }
}

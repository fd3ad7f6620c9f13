//! The commands of alpha and how arguments become one of them.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{check, completions, datagen, devices, eval, feedback, sample, tokenizer},
    exit::Failure,
    flags::{self, layer::Layer, train::TrainFlags},
    output,
};

/// Trains GPTs, samples from them, and measures itself
#[derive(Parser, Debug)]
#[command(name = "alpha", version, subcommand_required = true, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A command with its flags.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Train a model
    Train(Box<TrainFlags>),
    /// Continue a prompt with a trained model
    Sample(sample::Flags),
    /// Loss, perplexity and bits per byte of a trained model on data
    Eval(eval::Flags),
    /// Build a tokenizer
    #[command(subcommand, arg_required_else_help = true)]
    Tokenizer(tokenizer::Action),
    /// Write synthetic training data
    #[command(subcommand, arg_required_else_help = true)]
    Datagen(datagen::Action),
    /// Check gradients against finite differences and the reference, on this machine
    Check(check::Flags),
    /// Show what this machine computes with, and how fast
    Devices(devices::Flags),
    /// Prove a speed-up: compare a changed trainer with the last accepted one, and commit with the evidence
    #[command(arg_required_else_help = true)]
    Loop(Box<feedback::Flags>),
    /// Print a shell's completion script
    Completions(completions::Flags),
}

/// A command that is ready to run. `alpha train` keeps typed values apart from defaults,
/// because other layers come between the two.
pub(crate) enum Request {
    /// `alpha train` with its typed values.
    Train(Layer),
    /// Any other command.
    Other(Command),
    /// Help or version: already answered.
    Answered,
}

/// The definition of the whole command line.
pub(crate) fn definition() -> clap::Command {
    flags::prepare(Cli::command())
}

/// Parses the arguments, program name included.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Request, Failure> {
    let matches = match definition().try_get_matches_from(flags::join_negative_numbers(arguments)) {
        Ok(matches) => matches,
        Err(error) => return answer(&error, &command_path(arguments)),
    };
    if let Some(("train", matches)) = matches.subcommand() {
        return Ok(Request::Train(Layer::typed(matches)));
    }
    let cli =
        Cli::from_arg_matches(&matches).map_err(|error| flags::error::failure(&error, &command_path(arguments)))?;
    Ok(Request::Other(cli.command))
}

/// Requested help and version go to stdout; help because no command was given goes to stderr.
fn answer(error: &clap::Error, command: &str) -> Result<Request, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print(&error.to_string())?;
            Ok(Request::Answered)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            output::note(error.to_string().trim_end());
            Err(Failure::usage("").hint("name one of the commands above"))
        }
        _ => Err(flags::error::failure(error, command)),
    }
}

/// The command that the arguments name, `tokenizer build`; empty where they name none.
fn command_path(arguments: &[OsString]) -> String {
    let mut path = Vec::new();
    let mut command = definition();
    for argument in arguments.iter().skip(1) {
        match argument.to_str().and_then(|name| command.find_subcommand(name)).cloned() {
            Some(found) => {
                path.push(found.get_name().to_owned());
                command = found;
            }
            None => break,
        }
    }
    path.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }
}

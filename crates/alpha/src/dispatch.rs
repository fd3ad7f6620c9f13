//! From a request to the command that answers it.

use std::time::Instant;

use crate::{
    cli::{self, Command, Request},
    commands::{check, completions, datagen, devices, eval, feedback, sample, tokenizer, train},
    exit::Failure,
};

/// Runs a command to its end; the process began at `started`.
pub(crate) fn run(request: Request, started: Instant) -> Result<(), Failure> {
    match request {
        Request::Answered => Ok(()),
        Request::Train(typed) => train::run(&typed, started),
        Request::Other(command) => match command {
            // `cli::parse` turns it into `Request::Train`.
            Command::Train(_) => Ok(()),
            Command::Sample(flags) => sample::run(&flags),
            Command::Eval(flags) => eval::run(&flags),
            Command::Tokenizer(action) => tokenizer::run(&action),
            Command::Datagen(action) => datagen::run(&action),
            Command::Check(flags) => check::run(&flags),
            Command::Loop(flags) => feedback::run(&flags),
            Command::Devices(flags) => devices::run(&flags),
            Command::Completions(flags) => completions::run(&flags, &mut cli::definition()),
        },
    }
}

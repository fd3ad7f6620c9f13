//! One file for each command: its flags, its checks, and the call into the engine.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod datagen;
pub(crate) mod devices;
pub(crate) mod eval;
#[cfg(target_os = "linux")]
pub(crate) mod feedback;
#[cfg(not(target_os = "linux"))]
#[path = "no_feedback.rs"]
pub(crate) mod feedback;
mod model;
pub(crate) mod sample;
pub(crate) mod tokenizer;
pub(crate) mod train;

use std::time::Instant;

use crate::{
    cli::{Command, Request},
    exit::Failure,
};

/// Runs a command to its end; the process began at `started`.
pub(crate) fn run(request: Request, started: Instant) -> Result<(), Failure> {
    match request {
        Request::Answered => Ok(()),
        Request::Train(typed) => train::run(&typed, started),
        Request::Other(command) => match command {
            // `cli::parse` makes `Request::Train` of it.
            Command::Train(_) => Ok(()),
            Command::Sample(flags) => sample::run(&flags),
            Command::Eval(flags) => eval::run(&flags),
            Command::Tokenizer(action) => tokenizer::run(&action),
            Command::Datagen(action) => datagen::run(&action),
            Command::Check(flags) => check::run(&flags),
            Command::Loop(flags) => feedback::run(&flags),
            Command::Devices(flags) => devices::run(&flags),
            Command::Completions(flags) => completions::run(&flags),
        },
    }
}

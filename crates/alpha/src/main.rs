//! The command line of alpha: parse, dispatch, exit code.
//!
//! Nothing computes here. A command is one file under `commands`, `alpha train`'s flags one
//! struct under `flags`; `resolve` turns them into a configuration. Step lines and requested
//! output go to stdout, all else to stderr.

mod alloc;
mod signal;
mod output;
mod exit;
mod flags;
mod domains;
mod progress;
mod config_file;
mod resolve;
mod commands;
mod cli;
mod dispatch;

use std::{process::ExitCode, time::Instant};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> ExitCode {
    let started = Instant::now();
    let arguments: Vec<_> = std::env::args_os().collect();
    match cli::parse(&arguments).and_then(|request| dispatch::run(request, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

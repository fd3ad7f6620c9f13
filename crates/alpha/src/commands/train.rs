//! `alpha train`.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use alpha_nn::ModelConfig;
use alpha_train::{
    Host, MakeBackend, Outcome, Sink, checkpoint,
    config::backend::{BackendChoice, make_backend},
    run_dir,
};

use crate::{
    alloc,
    exit::Failure,
    flags::layer::Layer,
    output,
    progress::Progress,
    resolve::{self, Folders, Resolved, Stored},
    signal::StopRequest,
};

/// Variable with the socket of the loop that says when to run (`docs/turns.md`); empty is the same as unset.
const TURNS_VARIABLE: &str = "ALPHA_TURNS";

/// Resolves what was typed and trains.
pub(crate) fn run(typed: &Layer, started: Instant) -> Result<(), Failure> {
    run_on(typed, started, &mut |config| make_backend(&BackendChoice::of(config)))
}

fn run_on(typed: &Layer, started: Instant, make: MakeBackend<'_>) -> Result<(), Failure> {
    let Resolved { config, notes } = resolve::resolve(typed, Folders { stored_config, init_shape })?;
    for note in notes {
        output::note(&note);
    }
    let stop = StopRequest::install()?;
    let progress = Progress::new(config.steps);
    let mut console = Console { progress: &progress, print_error: None };
    let turns = std::env::var_os(TURNS_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if turns.is_none() {
        progress.watch(); // in turns a silent run is a waiting one
    }
    let mut host = Host {
        sink: &mut console,
        progress: &progress,
        begin_saving: &|| stop.hold(),
        is_stop_requested: &|| stop.received().is_some(),
        allocations: alloc::allocations,
        started,
        turns,
    };
    let outcome = alpha_train::train(&config, &mut host, make);
    progress.finish();
    let outcome = outcome?;
    let unwritten = console.print_error.map(|error| format!("its lines could not be written: {error}"));
    match (outcome, stop.received()) {
        (Outcome::Stopped { step, checkpoint }, Some(signal)) => Err(Failure::interrupted(
            signal,
            format!(
                "stopped after step {step}; its state is in `{}`{}",
                checkpoint.display(),
                unwritten.map_or(String::new(), |what| format!("; {what}"))
            ),
        )
        .hint("the same command with `--resume=auto` and its `--runDir` goes on from there")),
        _ => match unwritten {
            Some(what) => Err(Failure::failed(format!("the run is done, but {what}"))),
            None => Ok(()),
        },
    }
}

/// The console of a run. An error of stdout is reported at the end: training goes on.
struct Console<'a> {
    progress: &'a Progress,
    print_error: Option<std::io::Error>,
}

impl Sink for Console<'_> {
    fn line(&mut self, line: &str) {
        let printed = self.progress.print(&format!("{line}\n"));
        self.print_error = self.print_error.take().or(printed.err());
    }

    fn note(&mut self, line: &str) {
        self.progress.note(&output::shown(line));
    }

    fn progress(&mut self, step: u64, total_steps: u64, loss: f32, tok_s: f64) {
        self.progress.step(step, total_steps, loss, tok_s);
    }
}

/// The stored configuration of a run folder that has a checkpoint.
fn stored_config(run_dir: &Path) -> Result<Option<Stored>, Failure> {
    if checkpoint::newest(run_dir)?.is_none() {
        return Ok(None);
    }
    match run_dir::read_run_config(run_dir)? {
        Some(serde_json::Value::Object(stored)) => Ok(Some(stored)),
        _ => Err(Failure::failed(format!("`{}` has checkpoints, but no `config.json` of a run", run_dir.display()))
            .hint("begin a new run from a checkpoint's weights with `--init`")),
    }
}

fn init_shape(init: &Path) -> Result<ModelConfig, Failure> {
    Ok(checkpoint::read_config(init)?)
}

#[cfg(test)]
mod tests;

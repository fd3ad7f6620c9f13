//! A training run from its configuration to its last checkpoint.
//!
//! Order matters: data, model and memory are checked before the run folder is touched, so that
//! a mistake never costs an earlier run.

mod data;
mod origin;
mod steps;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use alpha_data::{DataHash, Tokenizer};
use alpha_nn::{ParamLayout, params::fill_initial};
use alpha_tensor::{Backend, Region};

use self::{
    data::{Loaders, RunData},
    origin::Origin,
    steps::{TraceState, Training},
};
use crate::{
    TrainError,
    checkpoint::{self, TrainingState},
    config::{self, Resume, TrainConfig},
    files,
    host::Host,
    metrics::{self, MetricsWriter},
    planning::{Planner, RunPrograms},
    run_dir::{self, Created, RunDir},
    trace,
    turns::Turns,
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// There was nothing left to do.
    AlreadyFinished,
    /// Stopped on request after this step, which was saved here.
    Stopped {
        /// Last step done.
        step: u64,
        /// Its checkpoint.
        checkpoint: PathBuf,
    },
}

/// Makes the backend of a run, once its data are known to be there and to fit.
pub type MakeBackend<'a> = &'a mut dyn FnMut(&TrainConfig) -> Result<Box<dyn Backend>, TrainError>;

/// Runs `config` to its end.
pub fn train(config: &TrainConfig, host: &mut Host<'_>, make: MakeBackend<'_>) -> Result<Outcome, TrainError> {
    let origin = Origin::find(config)?;
    if let Some(saved) = origin.saved.as_ref().filter(|_| origin.is_finished) {
        let (path, step) = (saved.path.display(), saved.step);
        host.sink.note(&format!("`{path}` is at step {step} of {}: nothing to do", config.steps));
        return Ok(Outcome::AlreadyFinished);
    }
    let stored_model = origin.weights().map(checkpoint::read_config).transpose()?;
    let data = RunData::open(config, &origin, stored_model.as_ref().map(|model| model.vocab), host)?;
    let model = origin.model(data.dataset.vocab, stored_model.as_ref())?;
    let layout = ParamLayout::new(&model);
    let programs = RunPrograms::new(config, &model, &layout);
    let planner = Planner { config, model: &model, layout: &layout };
    host.progress.update("preparing", 0, 0);
    let mut backend = make(config)?;
    note_all(&mut *backend, host);
    check_plan(&planner, &programs, &*backend, data.dataset.train.len(), host)?;
    let loaders = Loaders::new(config, &data.dataset, host)?;

    // A resumed run holds its folder while it reads from it; a new one sets an earlier run aside
    // only when nothing can fail any more.
    let held = if origin.is_in_place { Some(RunDir::resume(&origin.run_path)?) } else { None };
    backend.prepare(&programs.sizes(), &programs.all()).map_err(|source| planner.no_memory(source, &*backend))?;
    note_all(&mut *backend, host);
    let state = load(&origin, &data, &layout, &mut *backend)?;
    let run_dir = match held {
        Some(run_dir) => run_dir,
        None => create_run_dir(&origin.run_path, &data.in_use, host)?,
    };
    resume(&origin, &run_dir, &state, host)?;
    run_dir.write_config(config)?;
    let metrics = MetricsWriter::open(run_dir.path(), state.step)?;
    files::truncate_json_lines_after(&run_dir.path().join(metrics::SAMPLES_FILE_NAME), state.step)?;
    let device = backend.device_memory().map(|memory| memory.device);
    if config.trace && state.step > 0 {
        for moved in trace::keep_earlier(run_dir.path(), state.step)? {
            host.sink.note(&format!("the earlier part of the trace was kept as `{moved}`"));
        }
    }
    let tracer = config.trace.then(|| TraceState::new(&programs, host.started, config.threads, device.is_some()));
    (host.begin_saving)();
    let turns = host.turns.as_deref().map(Turns::connect).transpose()?;
    let mut training = Training {
        config,
        enqueued: VecDeque::with_capacity(1 + backend.results_ahead()),
        elapsed_before_ms: state.elapsed_ms,
        model,
        layout,
        programs,
        backend,
        data: data.dataset,
        loaders,
        run_dir,
        metrics,
        state,
        tracer,
        turns,
        device,
        has_warned_of_prompts: false,
    };
    let outcome = training.steps(host);
    training.end_turns(&outcome);
    outcome
}

fn note_all(backend: &mut dyn Backend, host: &mut Host<'_>) {
    backend.take_notes().iter().for_each(|note| host.sink.note(note));
}

/// Says what the run will amount to, and refuses one that does not fit.
fn check_plan(
    planner: &Planner<'_>,
    programs: &RunPrograms,
    backend: &dyn Backend,
    train_tokens: u64,
    host: &mut Host<'_>,
) -> Result<(), TrainError> {
    let plan = planner.check(programs, backend, train_tokens)?;
    host.sink.note(&plan.summary);
    for warning in &plan.warnings {
        host.sink.note(&format!("warning: {warning}"));
    }
    if planner.config.strict_planning && !plan.warnings.is_empty() {
        return Err(TrainError::StrictPlanning);
    }
    Ok(())
}

/// Fills the backend with the weights that the run begins with, and the moments of a resumed run; returns its state.
fn load(
    origin: &Origin<'_>,
    data: &RunData,
    layout: &ParamLayout,
    backend: &mut dyn Backend,
) -> Result<TrainingState, TrainError> {
    let config = origin.config;
    match origin.weights() {
        Some(folder) => checkpoint::load_params(folder, layout, backend)?,
        None => initialise(layout, config.seed, backend)?,
    }
    let mut state = match origin.checkpoint() {
        Some(folder) => checkpoint::load_training_state(folder, layout, backend)?,
        None => TrainingState { seed: config.seed, data_hash: Some(DataHash::default()), ..TrainingState::default() },
    };
    state.data = Some(data.record.clone());
    state.settings = config.kept_settings();
    state.tokenizer = data.dataset.tokenizer.as_ref().map(Tokenizer::hash);
    if data.is_other_validation {
        (state.best_val_loss, state.best_step) = (None, None);
    }
    if config.dtype == config::Dtype::F16 {
        state.loss_scale.get_or_insert_default();
    }
    Ok(state)
}

fn create_run_dir(path: &Path, in_use: &[PathBuf], host: &mut Host<'_>) -> Result<RunDir, TrainError> {
    let Created { run_dir, moved_to, removed } = RunDir::create(path, in_use)?;
    if let Some(old) = moved_to {
        host.sink.note(&format!("the earlier run in `{}` was moved to `{}`", path.display(), old.display()));
    }
    for old in removed {
        host.sink.note(&format!("`{}`, moved aside before that, was deleted: the newest is kept", old.display()));
    }
    host.sink.note(&format!("run folder: {}", path.display()));
    Ok(run_dir)
}

/// Says from where the run goes on, and removes the checkpoints of steps that are run again.
fn resume(origin: &Origin<'_>, run_dir: &RunDir, state: &TrainingState, host: &mut Host<'_>) -> Result<(), TrainError> {
    let Some(saved) = &origin.saved else {
        if origin.config.resume == Some(Resume::Auto)
            && let Some(old) = run_dir::older_checkpoint(&origin.run_path)?
        {
            let old = old.display();
            host.sink.note(&format!("note: an earlier run's checkpoint is there: `--resume={old}` goes on from it"));
        }
        return Ok(());
    };
    for later in checkpoint::remove_after(run_dir.path(), state.step)? {
        host.sink.note(&format!("checkpoint-{later} was removed: the run goes another way from step {}", state.step));
    }
    host.sink.note(&format!("resuming from `{}`", saved.path.display()));
    if state.data_hash.is_none() {
        host.sink.note("note: the checkpoint is of an earlier version without `data_hash`: rows will have none");
    }
    Ok(())
}

/// Elements drawn or copied at a time.
const INIT_CHUNK: usize = 1 << 16;

/// Writes the initial values of a new model.
pub fn initialise(layout: &ParamLayout, seed: u64, backend: &mut dyn Backend) -> Result<(), TrainError> {
    let mut values = vec![0.0; INIT_CHUNK];
    for (index, param) in layout.params.iter().enumerate() {
        let len = param.tensor.len();
        for start in (0..len).step_by(INIT_CHUNK) {
            let values = &mut values[..INIT_CHUNK.min(len - start)];
            fill_initial(param, index, seed, start, values);
            backend.write(Region::Params, param.tensor.offset + start, values)?;
        }
    }
    Ok(())
}

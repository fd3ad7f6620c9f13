//! A training run from its configuration to its last checkpoint.
//!
//! Order matters: data, model and memory are checked before the run folder is touched, so that
//! a mistake never costs an earlier run.

mod data_record;
mod steps;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use alpha_data::{
    BatchShape, Cache, DataHash, DataOptions, Dataset, EvalLoader, Kind, Tokenizer, TrainLoader, ValSource, Work,
    is_there,
};
use alpha_nn::{ModelConfig, ParamLayout, params::fill_initial};
use alpha_tensor::{Backend, Region};

use self::steps::{TraceState, Training};
use crate::{
    TrainError,
    checkpoint::{self, TrainingState},
    config::{self, Resume, TrainConfig},
    evaluate::Validator,
    files,
    host::Host,
    metrics::{self, MetricsWriter},
    planning::{self, RunPrograms},
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
    let (run_path, resume_from) = find_resume(config)?;
    let goes_on_in_place = resume_from.as_ref().is_some_and(|saved| is_inside(&saved.path, &run_path));
    if !goes_on_in_place {
        run_dir::check_is_free(&run_path)?;
    }
    let mut began_with = None;
    if let Some(saved) = &resume_from {
        let TrainingState { step: done, data, seed, evaluation_due, .. } =
            checkpoint::read_training_state(&saved.path)?;
        if seed != config.seed {
            return Err(edited(&saved.path, "seed", &config.seed, &seed));
        }
        began_with = data;
        let named =
            saved.path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("checkpoint-"));
        if named.is_some_and(|step| step != done.to_string()) {
            return Err(TrainError::broken(&saved.path, format!("its training state is that of step {done}")));
        }
        if done >= config.steps && !evaluation_due {
            host.sink.note(&format!("`{}` is at step {done} of {}: nothing to do", saved.path.display(), config.steps));
            return Ok(Outcome::AlreadyFinished);
        }
    }
    let init = config.init.as_deref().filter(|_| resume_from.is_none());
    let source = resume_from.as_ref().map(|saved| saved.path.as_path()).or(init);
    let source_model = source.map(checkpoint::read_config).transpose()?;
    let model_vocab = source_model.as_ref().map(|model| model.vocab);
    let tokenizer = tokenizer_kind(config, resume_from.as_ref().map(|saved| saved.path.as_path()), init)?;
    let cache = Cache::from_environment();
    let work = Work { cache: &cache, threads: config.threads, progress: host.progress };
    let options = DataOptions {
        lacks_tokenizer: source.filter(|folder| !folder.join("tokenizer.json").exists()).map(Path::to_path_buf),
        ..data_options(config, model_vocab, tokenizer, began_with.as_ref().map(|record| record.folder.as_path()))
    };
    let data = Dataset::open(&options, &work)?;
    for warning in &data.warnings {
        host.sink.note(&format!("warning: {warning}"));
    }
    let in_use = [in_use(config), data.files.clone()].concat();
    run_dir::check_is_read_elsewhere(&run_path, &in_use)?;
    if let (Some(tokenizer), Some(folder)) = (&data.tokenizer, init) {
        check_tokenizer(tokenizer, folder)?;
    }
    let folder = began_with.as_ref().filter(|_| options.data != config.data).map(|began| began.folder.as_path());
    let record = data_record::of(&data, folder)?;
    let is_other_validation = match &began_with {
        Some(began_with) => data_record::check(began_with, &record, config.allow_data_change, host)?,
        None => false,
    };
    let mut model = config.model(data.vocab);
    if let Some(source_model) = &source_model {
        model.layer_norm_eps = source_model.layer_norm_eps;
    }
    if let (Some(saved), Some(then)) = (&resume_from, &source_model) {
        check_shape(&saved.path, &model, then)?;
    }
    model.validate()?;
    let layout = ParamLayout::new(&model);
    let programs = RunPrograms::new(config, &model, &layout);
    host.progress.update("preparing", 0, 0);
    let mut backend = make(config)?;
    backend.take_notes().iter().for_each(|note| host.sink.note(note));
    let plan = planning::check(config, &model, &layout, &programs, &*backend, data.train.len())?;
    host.sink.note(&plan.summary);
    for warning in &plan.warnings {
        host.sink.note(&format!("warning: {warning}"));
    }
    if config.strict_planning && !plan.warnings.is_empty() {
        return Err(TrainError::StrictPlanning);
    }
    let loaders = loaders(config, &data, host)?;

    // A resumed run holds its folder while it reads from it; a new one sets an earlier run aside
    // only when nothing can fail any more.
    let held = if goes_on_in_place { Some(RunDir::resume(&run_path)?) } else { None };
    backend
        .prepare(&programs.sizes(), &programs.all())
        .map_err(|source| planning::no_memory(source, config, &model, &layout, &*backend))?;
    backend.take_notes().iter().for_each(|note| host.sink.note(note));
    match source {
        Some(folder) => checkpoint::load_params(folder, &layout, &mut *backend)?,
        None => initialise(&layout, config.seed, &mut *backend)?,
    }
    let mut state = match &resume_from {
        Some(saved) => checkpoint::load_training_state(&saved.path, &layout, &mut *backend)?,
        None => TrainingState { seed: config.seed, data_hash: Some(DataHash::default()), ..TrainingState::default() },
    };
    state.data = Some(record);
    if is_other_validation {
        (state.best_val_loss, state.best_step) = (None, None);
    }
    if config.dtype == config::Dtype::F16 {
        state.loss_scale.get_or_insert_default();
    }
    let run_dir = match held {
        Some(run_dir) => run_dir,
        None => create_run_dir(&run_path, &in_use, host)?,
    };
    if config.resume == Some(Resume::Auto)
        && resume_from.is_none()
        && let Some(old) = run_dir::older_checkpoint(&run_path)?
    {
        host.sink
            .note(&format!("note: an earlier run's checkpoint is there: `--resume={}` goes on from it", old.display()));
    }
    if let Some(saved) = &resume_from {
        for later in checkpoint::remove_after(run_dir.path(), state.step)? {
            host.sink
                .note(&format!("checkpoint-{later} was removed: the run goes another way from step {}", state.step));
        }
        host.sink.note(&format!("resuming from `{}`", saved.path.display()));
        if state.data_hash.is_none() {
            host.sink.note("note: the checkpoint is of an earlier version without `data_hash`: rows will have none");
        }
    }
    run_dir.write_config(config)?;
    let metrics = MetricsWriter::open(run_dir.path(), state.step)?;
    let samples_path = run_dir.path().join(metrics::SAMPLES_FILE_NAME);
    files::truncate_json_lines_after(&samples_path, state.step)?;
    let device = backend.device_memory().map(|memory| memory.device);
    if config.trace && state.step > 0 {
        for moved in trace::keep_earlier(run_dir.path(), state.step)? {
            host.sink.note(&format!("the trace of the part before was kept as `{moved}`"));
        }
    }
    let tracer = config.trace.then(|| TraceState::new(&programs, host.started, config.threads, device.is_some()));
    (host.begin_saving)();
    let turns = host.turns.as_deref().map(Turns::connect).transpose()?;
    let mut training = Training {
        config,
        model,
        layout,
        programs,
        backend,
        data,
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

/// Whether a checkpoint lies in this run folder. A run that takes up another run's checkpoint begins
/// a folder of its own.
fn is_inside(checkpoint: &Path, run_dir: &Path) -> bool {
    match (checkpoint.canonicalize(), run_dir.canonicalize()) {
        (Ok(checkpoint), Ok(run_dir)) => checkpoint.parent() == Some(run_dir.as_path()),
        _ => false,
    }
}

fn find_resume(config: &TrainConfig) -> Result<(PathBuf, Option<checkpoint::Saved>), TrainError> {
    let new_path = || config.run_dir.clone().unwrap_or_else(|| PathBuf::from("runs").join(run_dir::new_run_id()));
    match &config.resume {
        None => Ok((new_path(), None)),
        Some(Resume::Auto) => {
            let path = new_path();
            let newest = checkpoint::newest(&path)?;
            Ok((path, newest))
        }
        Some(Resume::From(folder)) => {
            let step = checkpoint::read_training_state(folder)?.step;
            let path = config.run_dir.clone().unwrap_or_else(|| files::parent(folder).to_path_buf());
            Ok((path, Some(checkpoint::Saved { step, path: folder.clone() })))
        }
    }
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

/// What a run reads beside its data.
fn in_use(config: &TrainConfig) -> Vec<PathBuf> {
    // The name of a kind of tokenizer is taken for a file's here, which is not there.
    let tokenizer = config.tokenizer.as_ref().map(PathBuf::from);
    let resumed = match &config.resume {
        Some(Resume::From(folder)) => Some(folder.clone()),
        _ => None,
    };
    [config.init.clone(), tokenizer, config.tokenizer_artifacts.clone(), resumed].into_iter().flatten().collect()
}

/// A run goes on with the model that its checkpoint holds.
fn check_shape(checkpoint: &Path, now: &ModelConfig, then: &ModelConfig) -> Result<(), TrainError> {
    let same = |key: &'static str, now: &dyn fmt::Debug, then: &dyn fmt::Debug| {
        let (now, then) = (format!("{now:?}"), format!("{then:?}"));
        if now == then { Ok(()) } else { Err(edited(checkpoint, key, &now, &then)) }
    };
    same("layers", &now.layers, &then.layers)?;
    same("dim", &now.dim, &then.dim)?;
    same("heads", &now.heads, &then.heads)?;
    same("block", &now.block, &then.block)?;
    same("ffnDim", &now.ffn_dim, &then.ffn_dim)?;
    same("activation", &now.feed_forward, &then.feed_forward)?;
    same("tie", &now.is_tied, &then.is_tied)?;
    same("bias", &now.has_bias, &then.has_bias)
}

fn edited(checkpoint: &Path, key: &'static str, now: &dyn fmt::Display, then: &dyn fmt::Display) -> TrainError {
    TrainError::ConfigEdited { checkpoint: checkpoint.into(), key, now: now.to_string(), then: then.to_string() }
}

/// Which tokenizer: a resumed run's own; else the one asked for; else that of the folder whose
/// weights the model begins with.
fn tokenizer_kind(
    config: &TrainConfig,
    resumed: Option<&Path>,
    init: Option<&Path>,
) -> Result<Option<Kind>, TrainError> {
    let of_folder = |folder: &Path| Some(folder.join("tokenizer.json")).filter(|path| path.exists()).map(Kind::File);
    if let Some(own) = resumed.and_then(of_folder) {
        return Ok(Some(own));
    }
    match &config.tokenizer {
        Some(name) => Ok(Some(name.parse()?)),
        None if config.tokenizer_artifacts.is_some() => Ok(None),
        None => Ok(init.and_then(of_folder)),
    }
}

/// Weights know the ids of the tokenizer that lies beside them.
fn check_tokenizer(tokenizer: &Tokenizer, folder: &Path) -> Result<(), TrainError> {
    let path = folder.join("tokenizer.json");
    if !path.exists() {
        return Ok(()); // named by the user
    }
    let own = Tokenizer::load(&path)?;
    match tokenizer.token_that_differs(&own) {
        Some(token) => Err(TrainError::OtherTokenizer { path, token }),
        None => Ok(()),
    }
}

/// The data flags, as the data crate takes them. A relative path that leads nowhere counts from where the run `began`.
fn data_options(
    config: &TrainConfig,
    model_vocab: Option<usize>,
    tokenizer: Option<Kind>,
    began: Option<&Path>,
) -> DataOptions {
    let located = |data: &String| {
        let there = began.map(|folder| folder.join(data)).and_then(|path| path.to_str().map(str::to_owned));
        there.filter(|there| !is_there(data) && is_there(there)).unwrap_or_else(|| data.clone())
    };
    DataOptions {
        data: located(&config.data),
        val_data: config.val_data.as_ref().map(located),
        token_dtype: config.token_dtype.map(token_dtype),
        tokenizer,
        tokenizer_artifacts: config.tokenizer_artifacts.clone(),
        vocab_size: config.vocab_size,
        model_vocab,
        lacks_tokenizer: None,
        block: config.block,
        packed: config.packed,
    }
}

/// The data crate's name for a token's width.
pub fn token_dtype(dtype: config::TokenDtype) -> alpha_data::TokenDtype {
    match dtype {
        config::TokenDtype::U16 => alpha_data::TokenDtype::U16,
        config::TokenDtype::U32 => alpha_data::TokenDtype::U32,
    }
}

struct Loaders {
    train: TrainLoader,
    validator: Option<Validator>,
}

fn loaders(config: &TrainConfig, data: &Dataset, host: &mut Host<'_>) -> Result<Loaders, TrainError> {
    let shape = BatchShape { batch: config.batch, block: config.block };
    let read_at_a_time = if config.packed { shape.tokens() } else { shape.block } as u64 + 1;
    if let Some(warning) = data.train.too_short(read_at_a_time) {
        host.sink.note(&format!("warning: {warning}"));
    }
    let train = if config.packed {
        TrainLoader::packed(&data.train, shape, config.accum_steps as u32)?
    } else {
        TrainLoader::random(&data.train, shape, config.seed)?
    };
    let batches = config.eval_iters as u32;
    let validator = match data.val_source {
        _ if config.eval_interval == 0 || config.eval_iters == 0 => None,
        ValSource::Training => {
            host.sink.note(&format!(
                "no `--valData` with `--packed`: evaluations read the first {} tokens of the training data{}",
                data.val.len().min((config.eval_iters * shape.tokens()) as u64),
                if data.val.len() < (config.eval_iters * shape.tokens()) as u64 {
                    ", which is all of it, repeatedly"
                } else {
                    ""
                }
            ));
            Some(EvalLoader::packed(&data.val, shape, batches)?)
        }
        ValSource::Given | ValSource::Split => Some(EvalLoader::random(&data.val, shape, batches, config.seed)?),
    };
    Ok(Loaders { train, validator: validator.map(Validator::new) })
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

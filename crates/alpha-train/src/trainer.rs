//! A training run from its configuration to its last checkpoint.
//!
//! Order matters: data, model and memory are checked before the run folder is touched, so that
//! a mistake never costs an earlier run.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use alpha_data::{BatchShape, Cache, DataOptions, Dataset, EvalLoader, Kind, TrainLoader, ValSource};
use alpha_nn::{Decay, ModelConfig, ParamLayout, Schedule, params::fill_initial};
use alpha_tensor::{Backend, Region, RunArgs, Timeline, cpu::CpuBackend, cpu_ref::RefBackend};

use crate::{
    TrainError,
    checkpoint::{self, Contents, TrainingState},
    config::{self, OnNonfinite, Resume, TrainConfig},
    evaluate::Validator,
    files::{self, JsonLines},
    host::Host,
    metrics::{self, Device, MetricsWriter, SampleRecord, Skipped, StepRecord},
    nonfinite,
    planning::{self, RunPrograms},
    run_dir::{self, RunDir},
    sampler::{SampleOptions, Sampler},
    trace::{DEFAULT_EVENTS, ProgramId, Tracer},
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

/// The backend that a resolved configuration names.
pub fn make_backend(config: &TrainConfig) -> Result<Box<dyn Backend>, TrainError> {
    match config.backend {
        config::Backend::CpuRef => Ok(Box::new(RefBackend::<f32>::default())),
        config::Backend::Auto | config::Backend::Cpu => Ok(Box::new(CpuBackend::new(config.threads)?)),
        config::Backend::Helios => Err(TrainError::NoHelios),
    }
}

/// Runs `config` to its end.
pub fn train(config: &TrainConfig, host: &mut Host<'_>) -> Result<Outcome, TrainError> {
    let (run_path, resume_from) = find_resume(config)?;
    if let Some(saved) = &resume_from {
        let done = checkpoint::read_training_state(&saved.path)?.step;
        if done >= config.steps {
            host.sink.note(&format!("`{}` is at step {done} of {}: nothing to do", saved.path.display(), config.steps));
            return Ok(Outcome::AlreadyFinished);
        }
    }
    let init = config.init.as_deref().filter(|_| resume_from.is_none());
    let init_model = init.map(checkpoint::read_config).transpose()?;
    let model_vocab = match (&resume_from, &init_model) {
        (Some(saved), _) => Some(checkpoint::read_config(&saved.path)?.vocab),
        (None, init_model) => init_model.as_ref().map(|model| model.vocab),
    };
    let tokenizer = tokenizer_kind(config, resume_from.as_ref().map(|saved| saved.path.as_path()), init)?;
    let data = Dataset::open(&data_options(config, model_vocab, tokenizer), &Cache::from_environment())?;
    for warning in &data.warnings {
        host.sink.note(&format!("warning: {warning}"));
    }
    let mut model = config.model(data.vocab);
    if let Some(init_model) = &init_model {
        model.layer_norm_eps = init_model.layer_norm_eps;
    }
    model.validate()?;
    let layout = ParamLayout::new(&model);
    let programs = RunPrograms::new(config, &model, &layout);
    let mut backend = make_backend(config)?;
    let plan = planning::check(config, &model, &layout, &programs, &*backend, data.train.len())?;
    host.sink.note(&plan.summary);
    for warning in &plan.warnings {
        host.sink.note(&format!("warning: {warning}"));
    }
    if config.strict_planning && !plan.warnings.is_empty() {
        return Err(TrainError::StrictPlanning);
    }
    let loaders = loaders(config, &data, host)?;

    let run_dir = open_run_dir(&run_path, resume_from.is_some(), host)?;
    backend.prepare(&programs.sizes(), &programs.all())?;
    let mut state = TrainingState { seed: config.seed, ..TrainingState::default() };
    match (&resume_from, init) {
        (Some(saved), _) => {
            checkpoint::load_params(&saved.path, &layout, &mut *backend)?;
            state = checkpoint::load_training_state(&saved.path, &layout, &mut *backend)?;
            for later in checkpoint::remove_after(run_dir.path(), state.step)? {
                host.sink.note(&format!("checkpoint-{later} was removed: the run takes another way from step {}", state.step));
            }
            host.sink.note(&format!("resuming from `{}`", saved.path.display()));
        }
        (None, Some(folder)) => checkpoint::load_params(folder, &layout, &mut *backend)?,
        (None, None) => initialise(&layout, config.seed, &mut *backend),
    }
    run_dir.write_config(config)?;
    let metrics = MetricsWriter::open(run_dir.path(), state.step)?;
    let samples_path = run_dir.path().join(metrics::SAMPLES_FILE_NAME);
    files::truncate_json_lines_after(&samples_path, state.step)?;
    let tracer = config.trace.then(|| TraceState::new(&programs, host.started, config.threads));
    let mut run = Run { config, model, layout, programs, backend, data, loaders, run_dir, metrics, state, tracer };
    run.steps(host)
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

fn open_run_dir(path: &Path, is_resumed: bool, host: &mut Host<'_>) -> Result<RunDir, TrainError> {
    if is_resumed {
        return RunDir::resume(path);
    }
    let (run_dir, moved_to) = RunDir::create(path)?;
    if let Some(old) = moved_to {
        host.sink.note(&format!("the earlier run in `{}` was moved to `{}`", path.display(), old.display()));
    }
    host.sink.note(&format!("run folder: {}", path.display()));
    Ok(run_dir)
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

/// The data flags, as the data crate takes them.
fn data_options(config: &TrainConfig, model_vocab: Option<usize>, tokenizer: Option<Kind>) -> DataOptions {
    DataOptions {
        data: config.data.clone(),
        val_data: config.val_data.clone(),
        token_dtype: config.token_dtype.map(token_dtype),
        tokenizer,
        tokenizer_artifacts: config.tokenizer_artifacts.clone(),
        vocab_size: config.vocab_size,
        model_vocab,
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
                "no `--valData` with `--packed`: evaluations read the first {} tokens of the training data",
                config.eval_iters * shape.tokens()
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
pub fn initialise(layout: &ParamLayout, seed: u64, backend: &mut dyn Backend) {
    let mut values = vec![0.0; INIT_CHUNK];
    for (index, param) in layout.params.iter().enumerate() {
        let len = param.tensor.len();
        for start in (0..len).step_by(INIT_CHUNK) {
            let values = &mut values[..INIT_CHUNK.min(len - start)];
            fill_initial(param, index, seed, start, values);
            backend.write(Region::Params, param.tensor.offset + start, values);
        }
    }
}

/// A tracer with every program of the step registered.
struct TraceState {
    tracer: Tracer,
    /// By micro-step: the tracer's number of its program.
    programs: Vec<ProgramId>,
    timeline: Timeline,
}

impl TraceState {
    fn new(programs: &RunPrograms, origin: Instant, threads: usize) -> TraceState {
        let mut tracer = Tracer::new(origin, DEFAULT_EVENTS);
        let registered: Vec<_> =
            programs.train.programs().into_iter().map(|program| (program, tracer.register(program))).collect();
        let by_micro_step = (0..programs.train.accum_steps()).map(|micro_step| {
            let program = programs.train.program(micro_step);
            let found = registered.iter().find(|(known, _)| std::ptr::eq(*known, program));
            found.expect("every program of the step is registered").1
        });
        TraceState { programs: by_micro_step.collect(), timeline: tracer.timeline(threads), tracer }
    }
}

struct Run<'a> {
    config: &'a TrainConfig,
    model: ModelConfig,
    layout: ParamLayout,
    programs: RunPrograms,
    backend: Box<dyn Backend>,
    data: Dataset,
    loaders: Loaders,
    run_dir: RunDir,
    metrics: MetricsWriter,
    state: TrainingState,
    tracer: Option<TraceState>,
}

impl Run<'_> {
    fn steps(&mut self, host: &mut Host<'_>) -> Result<Outcome, TrainError> {
        let config = self.config;
        let schedule = Schedule {
            lr: config.lr,
            lr_min: config.lr_min,
            warmup_steps: config.warmup_steps(),
            total_steps: config.steps,
            decay: match config.schedule {
                config::Schedule::Cosine => Decay::Cosine,
                config::Schedule::Constant => Decay::Constant,
            },
        };
        let elapsed_before_ms = self.state.elapsed_ms;
        let rows = config.batch * config.block;
        let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
        while self.state.step < config.steps {
            let step = self.state.step + 1;
            let lr = schedule.lr_at(step) as f32;
            let mut record = self.step(step, lr, host, &mut tokens, &mut targets)?;
            record.elapsed_ms = ms_since(host.started);
            let is_nonfinite = !record.loss.is_finite() || !record.grad_norm.is_finite();
            if is_nonfinite && config.on_nonfinite == OnNonfinite::Stop {
                return Err(self.stop_nonfinite(step, &record, host)?);
            }
            self.state.step = step;
            self.state.tokens += config.tokens_per_step() as u64;
            self.state.elapsed_ms = elapsed_before_ms + record.elapsed_ms;
            match record.skipped {
                None => self.state.updates += 1,
                Some(Skipped::Spike) => self.state.spikes_skipped += 1,
                Some(Skipped::Nonfinite) => self.state.nonfinite_skipped += 1,
            }
            let is_last = step == config.steps;
            let is_evaluation = config.eval_interval > 0 && step.is_multiple_of(config.eval_interval);
            if is_evaluation {
                record.val_loss = self.validate()?;
            }
            self.metrics.append(&record)?;
            if step == 1 || is_last || is_evaluation || (config.log_every > 0 && step.is_multiple_of(config.log_every))
            {
                host.sink.line(&metrics::format_step_line(&record, config.steps, Device::Cpu));
                if let Some(line) = metrics::format_trace_line(&record) {
                    host.sink.line(&line);
                }
            }
            host.sink.progress(step, config.steps, record.loss, record.tokens_per_sec);
            let is_stopped = (host.is_stop_requested)();
            let mut checkpoint = None;
            if is_evaluation || is_last || is_stopped {
                checkpoint = Some(self.save()?);
            }
            let is_sampled = config.sample_interval > 0 && step.is_multiple_of(config.sample_interval);
            if !is_stopped && (is_sampled || (is_last && config.post_samples)) {
                self.sample(step, host)?;
            }
            if let Some(checkpoint) = checkpoint.filter(|_| is_stopped && !is_last) {
                return Ok(Outcome::Stopped { step, checkpoint });
            }
        }
        let (spikes, nonfinite) = (self.state.spikes_skipped, self.state.nonfinite_skipped);
        if spikes + nonfinite > 0 {
            host.sink.note(&format!("updates left out: {spikes} spikes, {nonfinite} not finite"));
        }
        Ok(Outcome::Finished)
    }

    /// One optimiser step; `tokens` and `targets` are space for a micro-batch.
    fn step(
        &mut self,
        step: u64,
        lr: f32,
        host: &Host<'_>,
        tokens: &mut [u32],
        targets: &mut [u32],
    ) -> Result<StepRecord, TrainError> {
        let config = self.config;
        let allocations = (host.allocations)();
        let start = Instant::now();
        if let Some(trace) = &mut self.tracer {
            trace.tracer.begin_step(step, start);
        }
        for micro_step in 0..config.accum_steps {
            let data_start = Instant::now();
            self.loaders.train.batch(step, micro_step as u32, tokens, targets)?;
            self.backend.write_tokens(self.programs.train.inputs.tokens.offset, tokens);
            self.backend.write_tokens(self.programs.train.inputs.targets.offset, targets);
            let args = self.run_args(step, micro_step as u32, lr);
            let program = self.programs.train.program(micro_step);
            match &mut self.tracer {
                None => self.backend.run(program, &args, None)?,
                Some(trace) => {
                    trace.tracer.record_data(data_start, Instant::now());
                    self.backend.run(program, &args, Some(&mut trace.timeline))?;
                    trace.tracer.record(trace.programs[micro_step], &trace.timeline);
                }
            }
        }
        let results = self.backend.results();
        let end = Instant::now();
        let timing = self.tracer.as_mut().map(|trace| trace.tracer.end_step(end));
        let ms_per_iter = (end - start).as_secs_f64() * 1e3;
        let is_nonfinite = !results.loss.is_finite() || !results.grad_norm.is_finite();
        let reason = if is_nonfinite { Skipped::Nonfinite } else { Skipped::Spike };
        Ok(StepRecord {
            step,
            loss: results.loss,
            val_loss: None,
            lr,
            grad_norm: results.grad_norm,
            clip_coef: results.clip_coef,
            elapsed_ms: 0.0,
            tokens_per_sec: config.tokens_per_step() as f64 / ms_per_iter * 1e3,
            ms_per_iter,
            gpu_ops_count: self.programs.train.counters.kernels,
            timing,
            counters: self.programs.train.counters,
            allocations: (host.allocations)() - allocations,
            skipped: (!results.is_applied).then_some(reason),
        })
    }

    fn run_args(&self, step: u64, micro_step: u32, lr: f32) -> RunArgs {
        RunArgs { seed: self.config.seed, step, micro_step, update: self.state.updates + 1, lr, position: 0 }
    }

    fn validate(&mut self) -> Result<Option<f32>, TrainError> {
        let (Some(validator), Some(program)) = (&mut self.loaders.validator, &self.programs.eval) else {
            return Ok(None);
        };
        let loss = validator.evaluate(&mut *self.backend, program)?;
        if loss.is_finite() && self.state.best_val_loss.is_none_or(|best| loss < best) {
            self.state.best_val_loss = Some(loss);
            self.state.best_step = Some(self.state.step);
        }
        Ok(Some(loss))
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        let tokenizer = self.data.tokenizer.as_ref();
        let contents = Contents {
            config: &self.model,
            layout: &self.layout,
            tokenizer_json: tokenizer.map(alpha_data::Tokenizer::json),
            end_of_text: tokenizer.and_then(alpha_data::Tokenizer::end_of_text),
            state: &self.state,
        };
        let path = checkpoint::save(self.run_dir.path(), &contents, &self.metrics, &mut *self.backend)?;
        checkpoint::prune(self.run_dir.path(), self.config.keep_checkpoints, self.state.best_step)?;
        if let Some(trace) = &self.tracer {
            trace.tracer.write(self.run_dir.path())?;
        }
        Ok(path)
    }

    /// Continues every prompt and writes the texts down. Reads parameters, changes nothing.
    fn sample(&mut self, step: u64, host: &mut Host<'_>) -> Result<(), TrainError> {
        let mut lines = JsonLines::open(&self.run_dir.path().join(metrics::SAMPLES_FILE_NAME))?;
        let options = SampleOptions { seed: self.config.seed, ..SampleOptions::default() };
        let tokenizer = self.data.tokenizer.as_ref();
        let mut sampler = Sampler::new(&self.model, &self.layout);
        for prompt in &self.config.sample_prompts {
            let ids = match prompt_ids(prompt, tokenizer, self.model.vocab) {
                Ok(ids) => ids,
                Err(error) => {
                    host.sink.note(&format!("warning: no sample for {prompt:?}: {error}"));
                    continue;
                }
            };
            let end_of_text = tokenizer.and_then(alpha_data::Tokenizer::end_of_text);
            let sample = sampler.sample(&mut *self.backend, &ids, &options, end_of_text)?;
            let text = decode(&sample.tokens, tokenizer)?;
            host.sink.note(&format!("sample at step {step}: {prompt}{text}"));
            let SampleOptions { temp, topk, topp, seed, .. } = options;
            lines.append(&SampleRecord { step, prompt: prompt.clone(), text, seed, temp, topk, topp })?;
        }
        lines.sync()
    }

    /// Saves the batch and the state before the step; returns the error that says so.
    fn stop_nonfinite(
        &mut self,
        step: u64,
        record: &StepRecord,
        host: &mut Host<'_>,
    ) -> Result<TrainError, TrainError> {
        self.metrics.append(record)?;
        host.sink.line(&metrics::format_step_line(record, self.config.steps, Device::Cpu));
        let args = self.run_args(step, 0, record.lr);
        let culprit =
            nonfinite::find(&self.programs.train, &self.loaders.train, &mut *self.backend, args, &self.layout)?;
        let batch = nonfinite::save_batch(self.run_dir.path(), step, &self.loaders.train, self.config, &culprit)?;
        // The update was left out, so the state is still that of the step before.
        let checkpoint = match checkpoint::newest(self.run_dir.path())? {
            Some(saved) if saved.step == self.state.step => Some(saved.path),
            _ if self.state.step > 0 => Some(self.save()?),
            _ => None,
        };
        let StepRecord { loss, grad_norm, .. } = *record;
        Ok(TrainError::Nonfinite { step, loss, grad_norm, culprit, batch, checkpoint })
    }
}

/// A prompt's tokens: encoded, or ids as they stand where there is no tokenizer.
pub fn prompt_ids(
    prompt: &str,
    tokenizer: Option<&alpha_data::Tokenizer>,
    vocab: usize,
) -> Result<Vec<u32>, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.encode(prompt)?),
        None => prompt
            .split_whitespace()
            .map(|word| word.parse().map_err(|_| TrainError::PromptNotIds { word: word.to_owned(), vocab }))
            .collect(),
    }
}

/// Text of generated tokens; ids separated by spaces where there is no tokenizer.
pub fn decode(tokens: &[u32], tokenizer: Option<&alpha_data::Tokenizer>) -> Result<String, TrainError> {
    match tokenizer {
        Some(tokenizer) => Ok(tokenizer.decode(tokens)?),
        None => Ok(tokens.iter().map(|id| format!(" {id}")).collect()),
    }
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

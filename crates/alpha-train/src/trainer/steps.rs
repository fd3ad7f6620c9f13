//! The step loop: step, record, evaluate, save, sample.

use std::{collections::VecDeque, path::PathBuf, time::Instant};

use alpha_data::{DataHash, Dataset, Tokenizer};
use alpha_nn::{Decay, ModelConfig, ParamLayout, Schedule};
use alpha_tensor::{Backend, BackendError, Launches, RunArgs, Timeline};

use super::{Outcome, data::Loaders};
use crate::{
    TrainError,
    checkpoint::{self, Contents, TrainingState},
    config::{self, OnNonfinite, TrainConfig},
    files::JsonLines,
    host::Host,
    inspect::{
        nonfinite,
        sampler::{SampleOptions, Sampler, decode, prompt_ids},
    },
    metrics::{self, MetricsWriter, SampleRecord, Skipped, StepRecord},
    planning::RunPrograms,
    run_dir::RunDir,
    trace::{DEFAULT_EVENTS, ProgramId, Tracer},
    turns::{Order, Turns},
};

/// A tracer with every program of the step registered.
pub(super) struct TraceState {
    tracer: Tracer,
    /// By micro-step: the tracer's number of its program.
    programs: Vec<ProgramId>,
    timeline: Timeline,
}

impl TraceState {
    /// For a device, which is one track, or for this many threads.
    pub(super) fn new(programs: &RunPrograms, origin: Instant, threads: usize, has_device: bool) -> TraceState {
        let mut tracer = Tracer::new(origin, DEFAULT_EVENTS);
        let threads = if has_device { 1 } else { threads };
        if has_device {
            tracer = tracer.of_device();
        }
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

/// A run whose folder, backend and data are ready.
pub(super) struct Training<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) model: ModelConfig,
    pub(super) layout: ParamLayout,
    pub(super) programs: RunPrograms,
    pub(super) backend: Box<dyn Backend>,
    pub(super) data: Dataset,
    pub(super) loaders: Loaders,
    pub(super) run_dir: RunDir,
    pub(super) metrics: MetricsWriter,
    pub(super) state: TrainingState,
    /// Steps that the backend has and whose results are not there yet, oldest first.
    pub(super) enqueued: VecDeque<Enqueued>,
    /// Wall time of the processes that the run has had before this one.
    pub(super) elapsed_before_ms: f64,
    pub(super) tracer: Option<TraceState>,
    pub(super) turns: Option<Turns>,
    /// The device's name in records; none on the processor.
    pub(super) device: Option<String>,
    /// Whether the user was warned of prompts that are longer than the model reads.
    pub(super) has_warned_of_prompts: bool,
}

/// Space for a micro-batch.
struct Batch {
    tokens: Vec<u32>,
    targets: Vec<u32>,
}

/// A step that the backend has and whose results are not there yet.
#[derive(Clone, Copy)]
pub(super) struct Enqueued {
    step: u64,
    lr: f32,
    start: Instant,
    /// Of all data consumed, this step's included.
    data_hash: Option<DataHash>,
    launches: Option<Launches>,
    allocations: u64,
    loss_scale: Option<f32>,
}

impl Training<'_> {
    /// Steps to the end, or until asked to stop.
    pub(super) fn steps(&mut self, host: &mut Host<'_>) -> Result<Outcome, TrainError> {
        let config = self.config;
        let schedule = schedule(config);
        let rows = config.batch * config.block;
        let mut batch = Batch { tokens: vec![0; rows], targets: vec![0; rows] };
        let mut failure = None;
        if self.state.evaluation_due
            && let Some(stopped) = self.make_up_for_evaluation(host)?
        {
            return Ok(stopped);
        }
        let mut last_end = host.started;
        loop {
            while failure.is_none() && self.may_enqueue(host.is_stop_requested) {
                let done = self.state.step + self.enqueued.len() as u64;
                if self.wait_for_turn(done, host.is_stop_requested)? == Order::Stop {
                    return self.stop();
                }
                let lr = schedule.lr_at(done + 1) as f32;
                match self.enqueue(done + 1, lr, host, &mut batch) {
                    Ok(Some(step)) => self.enqueued.push_back(step),
                    Ok(None) => break, // asked to stop within the step
                    Err(error) => failure = Some(error),
                }
            }
            let Some(oldest) = self.enqueued.pop_front() else {
                return match failure {
                    // The optimiser has not run: what the steps before gained is saved.
                    Some(error) => Err(self.fail(error)?),
                    None if self.state.step < config.steps => self.stop(),
                    None => self.finish(host),
                };
            };
            let mut record = match self.collect_step(oldest, last_end, host) {
                Ok(record) => record,
                Err(error) => return Err(self.fail(error)?),
            };
            last_end = Instant::now();
            record.elapsed_ms = ms_since(host.started);
            self.count_step(&mut record, host)?;
            self.record_step(record, host)?;
            // Nothing is due after a step behind which others are enqueued.
            if self.enqueued.is_empty()
                && let Some(stopped) = self.after_step(host)?
            {
                return Ok(stopped);
            }
        }
    }

    /// Adds a step whose results are there to the state of the run. The run ends here if they are not finite and it is not
    /// to go on then.
    fn count_step(&mut self, record: &mut StepRecord, host: &mut Host<'_>) -> Result<(), TrainError> {
        let is_nonfinite = !record.loss.is_finite() || !record.grad_norm.is_finite();
        if self.adapt_loss_scale(record, host) {
            // Steps behind this one were chained to it and have changed nothing: they are enqueued again.
            self.drop_enqueued()?;
        } else if is_nonfinite && self.config.on_nonfinite == OnNonfinite::Stop {
            self.drop_enqueued()?;
            return Err(self.stop_nonfinite(record, host)?);
        }
        let state = &mut self.state;
        state.step = record.step;
        state.data_hash = record.data_hash;
        state.tokens += self.config.tokens_per_step() as u64;
        state.elapsed_ms = self.elapsed_before_ms + record.elapsed_ms;
        match record.skipped {
            None => state.updates += 1,
            Some(Skipped::Spike) => state.spikes_skipped += 1,
            Some(Skipped::Nonfinite) => state.nonfinite_skipped += 1,
            Some(Skipped::Overflow) => state.overflows_skipped += 1,
        }
        Ok(())
    }

    /// Evaluates after a step where that is due, and writes the step's row and lines.
    fn record_step(&mut self, mut record: StepRecord, host: &mut Host<'_>) -> Result<(), TrainError> {
        let (config, step) = (self.config, record.step);
        let (is_last, is_evaluation) = (step == config.steps, is_due(step, config.eval_interval));
        if is_evaluation {
            match self.validate(host) {
                Ok(val_loss) => record.val_loss = val_loss,
                Err(error) => {
                    // The step itself is done and counts.
                    self.metrics.append(&record)?;
                    return Err(self.fail(error)?);
                }
            }
        }
        self.state.evaluation_due = is_evaluation
            && record.val_loss.is_none()
            && self.loaders.validator.is_some()
            && (host.is_stop_requested)();
        self.metrics.append(&record)?;
        if let Some(turns) = self.turns.as_mut().filter(|_| is_last) {
            turns.end_turn(step)?; // what follows belongs to the end of the run and to no step
        }
        if step == 1 || is_last || is_evaluation || is_due(step, config.log_every) {
            host.sink.line(&metrics::format_step_line(&record, config.steps));
            if let Some(line) = metrics::format_trace_line(&record) {
                host.sink.line(&line);
            }
        }
        host.sink.progress(step, config.steps, record.loss, record.tokens_per_sec);
        Ok(())
    }

    /// Saves and samples after a step where that is due. Returns the outcome, if the run is asked to stop.
    fn after_step(&mut self, host: &mut Host<'_>) -> Result<Option<Outcome>, TrainError> {
        let (config, step) = (self.config, self.state.step);
        let is_last = step == config.steps;
        let is_stopped = (host.is_stop_requested)();
        let mut checkpoint = None;
        if is_due(step, config.eval_interval) || is_last || is_stopped {
            host.progress.update("saving", 0, 0);
            checkpoint = Some(self.save()?);
        }
        if !is_stopped && self.is_sampled(step) {
            self.sample(step, host)?;
        }
        if (host.is_stop_requested)() && (!is_last || self.state.evaluation_due) {
            let checkpoint = checkpoint.map_or_else(|| self.save(), Ok)?;
            return Ok(Some(Outcome::Stopped { step, checkpoint }));
        }
        Ok(None)
    }

    /// The end of a run that was asked to stop between two steps.
    fn stop(&mut self) -> Result<Outcome, TrainError> {
        Ok(Outcome::Stopped { step: self.state.step, checkpoint: self.save()? })
    }

    /// The end of a run whose steps are all done: says which updates were left out, and checks the weights.
    fn finish(&mut self, host: &mut Host<'_>) -> Result<Outcome, TrainError> {
        if self.state.updates == 0 {
            host.sink.note("warning: no update was applied at all: the weights are those that the run began with");
        }
        if let Some(param) = nonfinite::first_bad_param(&self.layout, &mut *self.backend)? {
            let param = param.name.clone();
            let checkpoint = checkpoint::newest(self.run_dir.path())?.map(|saved| saved.path).unwrap_or_default();
            return Err(TrainError::NonfiniteEnd { param, checkpoint });
        }
        let TrainingState {
            spikes_skipped: spikes, nonfinite_skipped: nonfinite, overflows_skipped: overflows, ..
        } = self.state;
        if spikes + nonfinite + overflows > 0 {
            let overflows = if overflows > 0 { format!(", {overflows} overflowed f16") } else { String::new() };
            host.sink.note(&format!("updates left out: {spikes} spikes, {nonfinite} not finite{overflows}"));
        }
        Ok(Outcome::Finished)
    }

    /// Whether samples are due after a step.
    fn is_sampled(&self, step: u64) -> bool {
        let config = self.config;
        is_due(step, config.sample_interval) || (step == config.steps && config.post_samples)
    }

    /// Evaluates the step at which the run was stopped: its row, its checkpoint and its sample are then those of a run that
    /// was not stopped. Returns the outcome, if the run is asked to stop again.
    fn make_up_for_evaluation(&mut self, host: &mut Host<'_>) -> Result<Option<Outcome>, TrainError> {
        let step = self.state.step;
        let val_loss = self.validate(host)?;
        if val_loss.is_none() && (host.is_stop_requested)() {
            return self.stop().map(Some);
        }
        self.state.evaluation_due = false;
        if let Some(record) = self.metrics.amend_last(self.run_dir.path(), step, |record| record.val_loss = val_loss)? {
            host.sink.line(&metrics::format_step_line(&record, self.config.steps));
        }
        self.save()?;
        if self.is_sampled(step) {
            self.sample(step, host)?;
        }
        Ok(None)
    }

    /// Forgets the steps that were enqueued behind one that was not applied.
    fn drop_enqueued(&mut self) -> Result<(), TrainError> {
        if let Some(turns) = &mut self.turns {
            turns.give_back(self.enqueued.len() as u64);
        }
        for _ in self.enqueued.drain(..) {
            self.backend.collect_results()?;
        }
        Ok(())
    }

    /// Adapts the loss scale to the step's gradients. Returns whether they overflowed at a scale that can be smaller: that
    /// is not a failure, for the update was left out, and the run goes on.
    fn adapt_loss_scale(&mut self, record: &mut StepRecord, host: &mut Host<'_>) -> bool {
        let Some(scale) = self.state.loss_scale else { return false };
        if !record.loss.is_finite() {
            return false; // not because of the scale
        }
        if record.grad_norm.is_finite() {
            self.state.loss_scale = Some(scale.after_good_steps(1));
            return false;
        }
        let Some(smaller) = scale.after_overflow() else { return false };
        self.state.loss_scale = Some(smaller);
        record.skipped = Some(Skipped::Overflow);
        host.sink.note(&format!(
            "step {}: a gradient overflowed f16 at loss scale {}; the update is left out, the scale is now {}",
            record.step, scale.scale, smaller.scale
        ));
        true
    }

    /// Whether a step may be enqueued now. The first one may, while there are steps left. Another one may follow it only
    /// where nothing happens between the two: no evaluation, checkpoint or sample, no end of a turn, and nothing but the end
    /// of the run that depends on whether the first update was applied; and not if the run is to stop, or is traced.
    fn may_enqueue(&self, is_stop_requested: &dyn Fn() -> bool) -> bool {
        let config = self.config;
        let last = self.state.step + self.enqueued.len() as u64;
        if self.enqueued.is_empty() || last >= config.steps {
            return last < config.steps;
        }
        self.enqueued.len() <= self.backend.results_ahead()
            && !is_due(last, config.eval_interval)
            && !is_due(last, config.sample_interval)
            && self.turns.as_ref().is_none_or(Turns::has_steps_left)
            && self.tracer.is_none()
            && config.on_nonfinite == OnNonfinite::Stop
            && config.spike_threshold == 0.0
            && !is_stop_requested()
    }

    /// Saves the state before the step that failed, unless the device failed and nothing can be read from it. Returns the
    /// error to end with.
    fn fail(&mut self, error: TrainError) -> Result<TrainError, TrainError> {
        if let TrainError::Backend(source @ BackendError::DeviceFailed { .. }) = error {
            let checkpoint = checkpoint::newest(self.run_dir.path())?.map(|saved| saved.path);
            return Ok(TrainError::DeviceLost { source, checkpoint });
        }
        self.save_state_before_step()?;
        Ok(error)
    }

    /// Obeys the loop between steps, until it orders a step or the run is to stop. Without a loop the order is a step.
    fn wait_for_turn(&mut self, step: u64, is_stop_requested: &dyn Fn() -> bool) -> Result<Order, TrainError> {
        let Some(turns) = &mut self.turns else { return Ok(Order::Step) };
        loop {
            let order = turns.next_order(step, is_stop_requested)?;
            if order != Order::Save {
                return Ok(order);
            }
            checkpoint::save_weights(self.run_dir.path(), step, &self.layout, &mut *self.backend)?;
            turns.saved(step)?;
        }
    }

    /// Gives the loop the answer that a run which ends within a turn still owes.
    pub(super) fn end_turns(&mut self, outcome: &Result<Outcome, TrainError>) {
        if let Some(turns) = &mut self.turns {
            match outcome {
                Err(error) => turns.fail(&error.to_string()),
                Ok(Outcome::Stopped { step, .. }) => turns.fail(&format!("asked to stop after step {step}")),
                Ok(Outcome::Finished | Outcome::AlreadyFinished) => {}
            }
        }
    }

    /// Hands a step to the backend, behind those that are under way. None where the run is asked to stop before its last
    /// micro-step: nothing has been updated, and the step is done again when the run is resumed.
    fn enqueue(
        &mut self,
        step: u64,
        lr: f32,
        host: &Host<'_>,
        Batch { tokens, targets }: &mut Batch,
    ) -> Result<Option<Enqueued>, TrainError> {
        let config = self.config;
        let steps_before = self.enqueued.len();
        let allocations = (host.allocations)();
        let launches = self.backend.launches();
        let mut data_hash = self.enqueued.back().map_or(self.state.data_hash, |before| before.data_hash);
        let loss_scale = self.state.loss_scale.map(|scale| scale.after_good_steps(steps_before).scale);
        host.progress.update("step", 0, config.accum_steps as u64);
        let start = Instant::now();
        if let Some(trace) = &mut self.tracer {
            trace.tracer.begin_step(step, start);
        }
        for micro_step in 0..config.accum_steps {
            if micro_step > 0 {
                host.progress.update("step", micro_step as u64, config.accum_steps as u64);
                if (host.is_stop_requested)() {
                    return Ok(None);
                }
            }
            let data_start = Instant::now();
            self.loaders.train.batch(step, micro_step as u32, tokens, targets)?;
            if let Some(data_hash) = &mut data_hash {
                data_hash.update(tokens, targets);
            }
            self.backend.write_tokens(self.programs.train.inputs.tokens.offset, tokens)?;
            self.backend.write_tokens(self.programs.train.inputs.targets.offset, targets)?;
            let args = RunArgs {
                update: self.state.updates + 1 + steps_before as u64,
                is_chained: steps_before > 0,
                loss_scale: loss_scale.unwrap_or(1.0),
                ..self.run_args(step, micro_step as u32, lr)
            };
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
        self.backend.request_results()?;
        let launches = self.backend.launches().zip(launches).map(|(now, before)| now - before);
        let allocations = (host.allocations)() - allocations;
        Ok(Some(Enqueued { step, lr, start, data_hash, launches, allocations, loss_scale }))
    }

    /// Waits for a step's results. A step that was enqueued behind another began when that one ended.
    fn collect_step(
        &mut self,
        enqueued: Enqueued,
        last_end: Instant,
        host: &Host<'_>,
    ) -> Result<StepRecord, TrainError> {
        let Enqueued { step, lr, start, data_hash, launches, allocations, loss_scale } = enqueued;
        let allocations_before = (host.allocations)();
        let results = self.backend.collect_results()?;
        let end = Instant::now();
        let timing = self.tracer.as_mut().map(|trace| trace.tracer.end_step(end));
        let ms_per_iter = (end - start.max(last_end)).as_secs_f64() * 1e3;
        let is_nonfinite = !results.loss.is_finite() || !results.grad_norm.is_finite();
        let reason = if is_nonfinite { Skipped::Nonfinite } else { Skipped::Spike };
        let counters = self.programs.train.counters;
        Ok(StepRecord {
            step,
            loss: results.loss,
            val_loss: None,
            lr,
            grad_norm: results.grad_norm,
            clip_coef: results.clip_coef,
            elapsed_ms: 0.0,
            tokens_per_sec: self.config.tokens_per_step() as f64 / ms_per_iter * 1e3,
            ms_per_iter,
            gpu_ops_count: launches.map_or(counters.kernels, |launches| launches.dispatches),
            timing,
            counters,
            launches,
            device: self.device.clone(),
            allocations: allocations + (host.allocations)() - allocations_before,
            data_hash,
            loss_scale,
            skipped: (!results.is_applied).then_some(reason),
        })
    }

    fn run_args(&self, step: u64, micro_step: u32, lr: f32) -> RunArgs {
        let loss_scale = self.state.loss_scale.map_or(1.0, |scale| scale.scale);
        let update = self.state.updates + 1;
        RunArgs { seed: self.config.seed, step, micro_step, update, lr, loss_scale, ..RunArgs::default() }
    }

    /// The validation loss; none where the run does not evaluate or is asked to stop meanwhile.
    fn validate(&mut self, host: &Host<'_>) -> Result<Option<f32>, TrainError> {
        let (Some(validator), Some(program)) = (&mut self.loaders.validator, &self.programs.eval) else {
            return Ok(None);
        };
        let Some(loss) = validator.evaluate(&mut *self.backend, program, host)? else { return Ok(None) };
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
            tokenizer_json: tokenizer.map(Tokenizer::json),
            end_of_text: tokenizer.and_then(Tokenizer::end_of_text),
            state: &self.state,
        };
        self.run_dir.follow()?;
        let path = checkpoint::save(self.run_dir.path(), &contents, &self.metrics, &mut *self.backend)?;
        checkpoint::prune(self.run_dir.path(), self.config.keep_checkpoints, self.state.best_step)?;
        if let Some(trace) = &self.tracer {
            trace.tracer.write(self.run_dir.path())?;
        }
        Ok(path)
    }

    /// After a step whose update was left out: returns the checkpoint of the step before, which is written now if
    /// there is none; none before the first step.
    fn save_state_before_step(&mut self) -> Result<Option<PathBuf>, TrainError> {
        match checkpoint::newest(self.run_dir.path())? {
            Some(saved) if saved.step == self.state.step => Ok(Some(saved.path)),
            _ if self.state.step > 0 => self.save().map(Some),
            _ => Ok(None),
        }
    }

    /// Continues every prompt and writes the texts to a file. Changes no parameter.
    fn sample(&mut self, step: u64, host: &mut Host<'_>) -> Result<(), TrainError> {
        self.run_dir.follow()?;
        let mut lines = JsonLines::open(&self.run_dir.path().join(metrics::SAMPLES_FILE_NAME))?;
        let options = SampleOptions { seed: self.config.seed, ..SampleOptions::default() };
        let tokenizer = self.data.tokenizer.as_ref();
        let mut sampler = Sampler::new(&self.model, &self.layout, tokenizer);
        for prompt in &self.config.sample_prompts {
            let ids = match prompt_ids(prompt, tokenizer, self.model.vocab) {
                Ok(ids) if ids.is_empty() => {
                    host.sink.note("warning: no sample for an empty prompt");
                    continue;
                }
                Ok(ids) => ids,
                Err(error) => {
                    host.sink.note(&format!("warning: no sample for {prompt:?}: {error}"));
                    continue;
                }
            };
            if ids.len() > self.model.block && !self.has_warned_of_prompts {
                host.sink.note(&format!(
                    "warning: {prompt:?} has {} tokens, and the model reads {} at a time: it sees only the last of them",
                    ids.len(),
                    self.model.block
                ));
            }
            let is_end = |token| tokenizer.is_some_and(|tokenizer| tokenizer.is_end(token));
            let goes_on = |done: usize| {
                host.progress.update("sampling", done as u64, options.steps as u64);
                !(host.is_stop_requested)()
            };
            let sample = sampler.sample(&mut *self.backend, &ids, &options, &is_end, &goes_on)?;
            if (host.is_stop_requested)() {
                host.sink.note(&format!("note: the samples of step {step} were cut off"));
                break;
            }
            let text = decode(&ids, &sample.tokens, tokenizer)?;
            host.sink.note(&format!("sample at step {step}: {prompt}{text}"));
            let SampleOptions { temp, topk, topp, seed, .. } = options;
            lines.append(&SampleRecord { step, prompt: prompt.clone(), text, seed, temp, topk, topp })?;
        }
        self.has_warned_of_prompts = true;
        lines.sync()
    }

    /// Saves the batch and the state before the step; returns the error that says so.
    fn stop_nonfinite(&mut self, record: &StepRecord, host: &mut Host<'_>) -> Result<TrainError, TrainError> {
        let step = record.step;
        self.metrics.append(record)?;
        host.sink.line(&metrics::format_step_line(record, self.config.steps));
        let args = self.run_args(step, 0, record.lr);
        let culprit =
            nonfinite::find(&self.programs.train, &self.loaders.train, &mut *self.backend, args, &self.layout)?;
        let batch = nonfinite::save_batch(self.run_dir.path(), step, &self.loaders.train, self.config, &culprit)?;
        let checkpoint = self.save_state_before_step()?;
        let StepRecord { loss, grad_norm, .. } = *record;
        Ok(TrainError::Nonfinite { step, loss, grad_norm, culprit, batch, checkpoint })
    }
}

fn schedule(config: &TrainConfig) -> Schedule {
    Schedule {
        lr: config.lr,
        lr_min: config.lr_min,
        warmup_steps: config.warmup_steps(),
        total_steps: config.steps,
        decay: match config.schedule {
            config::Schedule::Cosine => Decay::Cosine,
            config::Schedule::Constant => Decay::Constant,
        },
    }
}

/// Whether something that happens every `interval` steps, or never if that is 0, happens after `step`.
fn is_due(step: u64, interval: u64) -> bool {
    interval > 0 && step.is_multiple_of(interval)
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

//! The step loop: step, record, evaluate, save, sample.

use std::{path::PathBuf, time::Instant};

use alpha_data::{Dataset, Tokenizer};
use alpha_nn::{Decay, ModelConfig, ParamLayout, Schedule};
use alpha_tensor::{Backend, RunArgs, Timeline};

use super::{Loaders, Outcome};
use crate::{
    TrainError,
    checkpoint::{self, Contents, TrainingState},
    config::{self, OnNonfinite, TrainConfig},
    files::JsonLines,
    host::Host,
    metrics::{self, Device, MetricsWriter, SampleRecord, Skipped, StepRecord},
    nonfinite,
    planning::RunPrograms,
    run_dir::RunDir,
    sampler::{SampleOptions, Sampler, decode, prompt_ids},
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
    pub(super) fn new(programs: &RunPrograms, origin: Instant, threads: usize) -> TraceState {
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
    pub(super) tracer: Option<TraceState>,
    pub(super) turns: Option<Turns>,
}

impl Training<'_> {
    /// Steps to the end, or until asked to stop.
    pub(super) fn steps(&mut self, host: &mut Host<'_>) -> Result<Outcome, TrainError> {
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
            if self.wait_for_turn(host.is_stop_requested)? == Order::Stop {
                return Ok(Outcome::Stopped { step: self.state.step, checkpoint: self.save()? });
            }
            let step = self.state.step + 1;
            let lr = schedule.lr_at(step) as f32;
            let mut record = match self.step(step, lr, host, &mut tokens, &mut targets) {
                Ok(record) => record,
                Err(error) => {
                    // The optimiser has not run: what the steps before gained is kept.
                    self.save_state_before_step()?;
                    return Err(error);
                }
            };
            record.elapsed_ms = ms_since(host.started);
            let is_nonfinite = !record.loss.is_finite() || !record.grad_norm.is_finite();
            if is_nonfinite && config.on_nonfinite == OnNonfinite::Stop {
                return Err(self.stop_nonfinite(step, &record, host)?);
            }
            self.state.step = step;
            self.state.data_hash = record.data_hash;
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
                match self.validate(host.is_stop_requested) {
                    Ok(val_loss) => record.val_loss = val_loss,
                    Err(error) => {
                        // The step itself is done and counts.
                        self.metrics.append(&record)?;
                        self.save()?;
                        return Err(error);
                    }
                }
            }
            self.metrics.append(&record)?;
            if let Some(turns) = self.turns.as_mut().filter(|_| is_last) {
                turns.end_turn(step)?; // what follows is the end of the run and no step's
            }
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

    /// Does what the loop asks for between steps, until it is to run one or to stop. Without a loop runs it.
    fn wait_for_turn(&mut self, is_stop_requested: &dyn Fn() -> bool) -> Result<Order, TrainError> {
        let Some(turns) = &mut self.turns else { return Ok(Order::Step) };
        let step = self.state.step;
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
        let mut data_hash = self.state.data_hash;
        let start = Instant::now();
        if let Some(trace) = &mut self.tracer {
            trace.tracer.begin_step(step, start);
        }
        for micro_step in 0..config.accum_steps {
            let data_start = Instant::now();
            self.loaders.train.batch(step, micro_step as u32, tokens, targets)?;
            if let Some(data_hash) = &mut data_hash {
                data_hash.update(tokens, targets);
            }
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
            data_hash,
            skipped: (!results.is_applied).then_some(reason),
        })
    }

    fn run_args(&self, step: u64, micro_step: u32, lr: f32) -> RunArgs {
        RunArgs { seed: self.config.seed, step, micro_step, update: self.state.updates + 1, lr, position: 0 }
    }

    /// The validation loss; none where the run does not evaluate or is asked to stop meanwhile.
    fn validate(&mut self, is_stop_requested: &dyn Fn() -> bool) -> Result<Option<f32>, TrainError> {
        let (Some(validator), Some(program)) = (&mut self.loaders.validator, &self.programs.eval) else {
            return Ok(None);
        };
        let Some(loss) = validator.evaluate(&mut *self.backend, program, is_stop_requested)? else { return Ok(None) };
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
        let path = checkpoint::save(self.run_dir.path(), &contents, &self.metrics, &mut *self.backend)?;
        checkpoint::prune(self.run_dir.path(), self.config.keep_checkpoints, self.state.best_step)?;
        if let Some(trace) = &self.tracer {
            trace.tracer.write(self.run_dir.path())?;
        }
        Ok(path)
    }

    /// After a step whose update was left out: the checkpoint of the step before, written now if
    /// there is none. None before the first step.
    fn save_state_before_step(&mut self) -> Result<Option<PathBuf>, TrainError> {
        match checkpoint::newest(self.run_dir.path())? {
            Some(saved) if saved.step == self.state.step => Ok(Some(saved.path)),
            _ if self.state.step > 0 => self.save().map(Some),
            _ => Ok(None),
        }
    }

    /// Continues every prompt and writes the texts down. Reads parameters, changes nothing.
    fn sample(&mut self, step: u64, host: &mut Host<'_>) -> Result<(), TrainError> {
        let mut lines = JsonLines::open(&self.run_dir.path().join(metrics::SAMPLES_FILE_NAME))?;
        let options = SampleOptions { seed: self.config.seed, ..SampleOptions::default() };
        let tokenizer = self.data.tokenizer.as_ref();
        let mut sampler = Sampler::new(&self.model, &self.layout);
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
            let end_of_text = tokenizer.and_then(Tokenizer::end_of_text);
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
        let checkpoint = self.save_state_before_step()?;
        let StepRecord { loss, grad_norm, .. } = *record;
        Ok(TrainError::Nonfinite { step, loss, grad_norm, culprit, batch, checkpoint })
    }
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

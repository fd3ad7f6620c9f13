//! The planning check: the size of a run, told before anything is allocated.

mod cgroup;
pub mod memory;

use alpha_nn::{ModelConfig, ParamLayout, StepConfig, TrainStep, programs};
use alpha_tensor::{Backend, BackendError, Program, RegionSizes};

use self::memory::{available_bytes, predicted_bytes};
use crate::{
    TrainError,
    config::{Dtype, TrainConfig},
    error::format_bytes,
};

/// Passes over the data beyond which a small model mostly memorises.
const MANY_PASSES: f64 = 100.0;
/// Share of the free memory beyond which other programs may push this one out.
const MEMORY_SHARE: f64 = 0.9;

/// Every program of a run, and what they need together.
#[derive(Clone, Debug)]
pub struct RunPrograms {
    /// The training step.
    pub train: TrainStep,
    /// Evaluation, with the places of its inputs; none where the run never evaluates.
    pub eval: Option<(Program, programs::Inputs)>,
    /// The largest and the smallest decoding program; none where the run never samples.
    pub decode: Option<[Program; 2]>,
}

impl RunPrograms {
    /// Builds the programs of a run.
    pub fn new(config: &TrainConfig, model: &ModelConfig, layout: &ParamLayout) -> RunPrograms {
        let train = TrainStep::new(model, layout, &step_config(config));
        let is_evaluated = config.eval_interval > 0 && config.eval_iters > 0;
        let eval = is_evaluated.then(|| {
            let activations16 = config.dtype != Dtype::F32;
            programs::eval_program(model, layout, config.batch, config.block, activations16)
        });
        let is_sampled = config.sample_interval > 0 || config.post_samples;
        let decode = is_sampled.then(|| [model.block, 1].map(|rows| programs::decode_program(model, layout, rows).0));
        RunPrograms { train, eval, decode }
    }

    /// All programs.
    pub fn all(&self) -> Vec<&Program> {
        let mut all = self.train.programs();
        all.extend(self.eval.iter().map(|(program, _)| program));
        all.extend(self.decode.iter().flatten());
        all
    }

    /// Regions that hold all of them.
    pub fn sizes(&self) -> RegionSizes {
        self.all().iter().fold(RegionSizes::default(), |sizes, program| sizes.max(program.sizes()))
    }
}

/// The part of the configuration that a step's programs depend on.
pub fn step_config(config: &TrainConfig) -> StepConfig {
    StepConfig {
        batch: config.batch,
        block: config.block,
        accum_steps: config.accum_steps,
        recompute: config.checkpoint,
        grad_clip: config.grad_clip as f32,
        spike_threshold: config.spike_threshold as f32,
        beta1: config.beta1 as f32,
        beta2: config.beta2 as f32,
        eps: config.eps as f32,
        weight_decay: config.weight_decay as f32,
        activations16: config.dtype != Dtype::F32,
    }
}

/// The result of the check.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One line: parameters, tokens, passes, memory.
    pub summary: String,
    /// Settings that the user may not have meant.
    pub warnings: Vec<String>,
}

/// A run that is to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// The run's configuration.
    pub config: &'a TrainConfig,
    /// The shape of its model.
    pub model: &'a ModelConfig,
    /// The model's parameters.
    pub layout: &'a ParamLayout,
}

impl Planner<'_> {
    /// Checks a run against its data and this machine's memory. More memory than is free is an error that names a
    /// micro-batch which fits.
    pub fn check(&self, run: &RunPrograms, backend: &dyn Backend, train_tokens: u64) -> Result<Plan, TrainError> {
        let config = self.config;
        let predicted = predicted_bytes(backend, &run.sizes(), &run.all());
        let free = available_bytes(backend);
        let params = self.layout.param_count();
        let tokens = config.steps as f64 * config.tokens_per_step() as f64;
        let passes = tokens / train_tokens.max(1) as f64;
        let free_text = free.map_or("unknown".to_owned(), format_bytes);
        let summary = format!(
            "plan: {} parameters | {} tokens ({:.2} a parameter, {passes:.2} passes over the data) | \
             peak memory {} predicted, {free_text} free",
            format_count(params as f64),
            format_count(tokens),
            tokens / params as f64,
            format_bytes(predicted),
        );
        let mut warnings = Vec::new();
        if let Some(free_bytes) = free.filter(|&free| free < predicted) {
            if !config.ignore_memory_check {
                let fitting = self.fitting_batch(backend, free_bytes);
                return Err(TrainError::TooLittleMemory { predicted_bytes: predicted, free_bytes, fitting });
            }
            warnings.push("the memory check was ignored: the system may end the run".to_owned());
        } else if free.is_some_and(|free| predicted as f64 > MEMORY_SHARE * free as f64) {
            warnings.push(format!(
                "the run will take {} of {free_text} free memory; a smaller `--batch` with more `--accumSteps` takes less",
                format_bytes(predicted)
            ));
        }
        if config.warmup_steps() > config.steps {
            let (warmup, steps, lr) = (config.warmup_steps(), config.steps, config.lr);
            warnings.push(format!("the warm-up takes {warmup} of {steps} steps: the learning rate never reaches {lr}"));
        }
        if passes > MANY_PASSES {
            warnings.push(format!(
                "the run passes {passes:.0} times over its {} tokens; expect the validation loss to rise, or give more data",
                format_count(train_tokens as f64)
            ));
        }
        Ok(Plan { summary, warnings })
    }

    /// The error where the predicted memory could not be had.
    pub fn no_memory(&self, source: BackendError, backend: &dyn Backend) -> TrainError {
        let BackendError::OutOfMemory { asked_bytes, .. } = source else { return source.into() };
        // The process has the rest of its memory already.
        let run = RunPrograms::new(self.config, self.model, self.layout);
        let half = predicted_bytes(backend, &run.sizes(), &run.all()).saturating_sub(asked_bytes / 2);
        let fitting = self.fitting_batch(backend, half);
        TrainError::NoMemory { source, available_bytes: available_bytes(backend), fitting }
    }

    /// The largest micro-batch that fits and divides the step, with the accumulation that makes it whole.
    fn fitting_batch(&self, backend: &dyn Backend, free_bytes: usize) -> Option<(usize, usize)> {
        let mut smaller = self.config.clone();
        let sequences = smaller.batch * smaller.accum_steps;
        for batch in (1..smaller.batch).rev().filter(|batch| sequences.is_multiple_of(*batch)) {
            (smaller.batch, smaller.accum_steps) = (batch, sequences / batch);
            let run = RunPrograms::new(&smaller, self.model, self.layout);
            if predicted_bytes(backend, &run.sizes(), &run.all()) <= free_bytes {
                return Some((smaller.batch, smaller.accum_steps));
            }
        }
        None
    }
}

/// `650 k`, `1.24 M`.
fn format_count(count: f64) -> String {
    match count {
        c if c >= 1e9 => format!("{:.2} G", c / 1e9),
        c if c >= 1e6 => format!("{:.2} M", c / 1e6),
        c if c >= 1e4 => format!("{:.0} k", c / 1e3),
        c => format!("{c:.0}"),
    }
}

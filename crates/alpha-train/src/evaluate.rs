//! Loss of a model on data that it does not train on.

use alpha_data::{EvalLoader, Progress, TokenStream, Windows};
use alpha_nn::{ModelConfig, ParamLayout, programs};
use alpha_tensor::{Backend, Program, RegionSizes, RunArgs};

use crate::{TrainError, host::Host};

/// The fixed validation batches of a training run.
#[derive(Debug)]
pub struct Validator {
    loader: EvalLoader,
    tokens: Vec<u32>,
    targets: Vec<u32>,
}

impl Validator {
    /// Evaluates on these batches, the same every time.
    pub fn new(loader: EvalLoader) -> Validator {
        let tokens = loader.shape().tokens();
        Validator { loader, tokens: vec![0; tokens], targets: vec![0; tokens] }
    }

    /// Mean loss over all batches; none if the host asks to stop meanwhile.
    pub fn evaluate(
        &mut self,
        backend: &mut dyn Backend,
        (program, inputs): &(Program, programs::Inputs),
        host: &Host<'_>,
    ) -> Result<Option<f32>, TrainError> {
        let mut sum = 0.0;
        for index in 0..self.loader.batches() {
            if (host.is_stop_requested)() {
                return Ok(None);
            }
            host.progress.update("evaluating", u64::from(index), u64::from(self.loader.batches()));
            self.loader.batch(index, &mut self.tokens, &mut self.targets)?;
            backend.write_tokens(inputs.tokens.offset, &self.tokens)?;
            backend.write_tokens(inputs.targets.offset, &self.targets)?;
            backend.run(program, &RunArgs::default(), None)?;
            sum += f64::from(backend.results()?.loss);
        }
        Ok(Some((sum / (f64::from(self.loader.batches()) * self.tokens.len() as f64)) as f32))
    }
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean cross-entropy of a token, in nats.
    pub loss: f64,
    /// Tokens predicted.
    pub tokens: u64,
}

/// Which model is evaluated, and how.
#[derive(Clone, Copy)]
pub struct EvaluateOptions<'a> {
    /// Shape of the model.
    pub config: &'a ModelConfig,
    /// Places of its parameters.
    pub layout: &'a ParamLayout,
    /// Windows in a batch, at most.
    pub batch: usize,
    /// About how many tokens are evaluated, and the seed that chooses them; none: all.
    pub part: Option<(usize, u64)>,
    /// Hears about the progress.
    pub progress: &'a dyn Progress,
}

/// Evaluates a model over a stream in windows of `block` tokens that do not overlap, or over a part of them.
/// `prepare` loads the parameters once the backend has memory.
pub fn evaluate_stream(
    backend: &mut dyn Backend,
    stream: &TokenStream,
    options: EvaluateOptions<'_>,
    prepare: impl FnOnce(&mut dyn Backend) -> Result<(), TrainError>,
) -> Result<(Evaluation, Vec<u64>), TrainError> {
    let EvaluateOptions { config, layout, batch, part, progress } = options;
    let windows = Windows::new(stream, config.block)?;
    let chosen = match part {
        Some((max_tokens, seed)) => windows.subset(max_tokens.div_ceil(config.block) as u64, seed),
        None => (0..windows.len()).collect(),
    };
    let batch = batch.min(chosen.len());
    let (program, inputs) = programs::eval_program(config, layout, batch, config.block, false);
    let sizes = RegionSizes::default().max(program.sizes());
    backend.prepare(&sizes, &[&program])?;
    prepare(backend)?;
    let mut tokens = vec![0; batch * config.block];
    let mut targets = vec![0; batch * config.block];
    let (mut sum, mut count) = (0.0, 0);
    let mut done = 0;
    for group in chosen.chunks(batch) {
        Windows::pad(&mut tokens, &mut targets);
        let rows = tokens.chunks_exact_mut(config.block).zip(targets.chunks_exact_mut(config.block));
        for (&window, (tokens, targets)) in group.iter().zip(rows) {
            count += windows.fill(window, tokens, targets)? as u64;
        }
        backend.write_tokens(inputs.tokens.offset, &tokens)?;
        backend.write_tokens(inputs.targets.offset, &targets)?;
        backend.run(&program, &RunArgs::default(), None)?;
        sum += f64::from(backend.results()?.loss);
        done += group.len();
        progress.update("evaluating", done as u64, chosen.len() as u64);
    }
    Ok((Evaluation { loss: sum / count as f64, tokens: count }, chosen))
}

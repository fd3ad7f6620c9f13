//! The programs of a model: a training step, an evaluation, decoding, and plain logits.

use alpha_tensor::{
    Counters, Phase, Program, ProgramBuilder, Region, RegionSizes, Results, Tensor,
    op::{AdamW, CrossEntropy, GradNorm, HeadBwd, Logits, LossSum},
    tensor::ALIGN_ELEMENTS,
};

use crate::{
    config::ModelConfig,
    layers::{Context, Layers},
    params::ParamLayout,
};

/// Most bytes of logits that exist at a time.
const LOGITS_CHUNK_BYTES: usize = 32 << 20;
/// Chunks of tokens are multiples of this.
const CHUNK_STEP: usize = 32;

/// Everything about a training step that is fixed before the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepConfig {
    /// Sequences of a micro-step.
    pub batch: usize,
    /// Tokens of a sequence.
    pub block: usize,
    /// Micro-steps of a step.
    pub accum_steps: usize,
    /// Compute the layers' activations again in backward instead of keeping them.
    pub recompute: bool,
    /// Clip the gradient to this norm; 0 = off.
    pub grad_clip: f32,
    /// Skip the update when the norm exceeds this; 0 = off.
    pub spike_threshold: f32,
    /// AdamW's β₁.
    pub beta1: f32,
    /// AdamW's β₂.
    pub beta2: f32,
    /// AdamW's ε.
    pub eps: f32,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f32,
    /// Keep activations in 16 bits, but for the residual stream, statistics and logits.
    pub activations16: bool,
}

/// A program's tokens in [`Region::Inputs`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// Input tokens `[1, r]`.
    pub tokens: Tensor,
    /// Target tokens `[1, r]`.
    pub targets: Tensor,
}

impl Inputs {
    fn new(rows: usize) -> Inputs {
        let target_offset = rows.next_multiple_of(ALIGN_ELEMENTS);
        Inputs {
            tokens: Tensor::new(Region::Inputs, 0, 1, rows),
            targets: Tensor::new(Region::Inputs, target_offset, 1, rows),
        }
    }

    fn region_len(&self) -> usize {
        self.targets.offset + self.targets.len()
    }
}

/// A training step: one program for each kind of micro-step, the last with the update.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainStep {
    first: Program,
    middle: Option<Program>,
    last: Option<Program>,
    accum_steps: usize,
    /// The step's tokens.
    pub inputs: Inputs,
    /// Totals of the whole step.
    pub counters: Counters,
}

impl TrainStep {
    /// Builds the step.
    pub fn new(config: &ModelConfig, layout: &ParamLayout, step: &StepConfig) -> TrainStep {
        let micro = |index: usize| train_program(config, layout, step, index > 0, index + 1 == step.accum_steps);
        let first = micro(0);
        let middle = (step.accum_steps > 2).then(|| micro(1));
        let last = (step.accum_steps > 1).then(|| micro(step.accum_steps - 1));
        let inputs = Inputs::new(step.batch * step.block);
        let accum_steps = step.accum_steps;
        let mut built = TrainStep { first, middle, last, accum_steps, inputs, counters: Counters::default() };
        for index in 0..accum_steps {
            built.counters += built.program(index).counters();
        }
        built
    }

    /// The program of a micro-step, counted from 0.
    pub fn program(&self, micro_step: usize) -> &Program {
        match (&self.middle, &self.last) {
            _ if micro_step == 0 => &self.first,
            (_, Some(last)) if micro_step + 1 == self.accum_steps => last,
            (Some(middle), _) => middle,
            _ => &self.first,
        }
    }

    /// Micro-steps of a step.
    pub fn accum_steps(&self) -> usize {
        self.accum_steps
    }

    /// All different programs.
    pub fn programs(&self) -> Vec<&Program> {
        [Some(&self.first), self.middle.as_ref(), self.last.as_ref()].into_iter().flatten().collect()
    }
}

/// The fixed regions for training; activations come from the programs.
fn train_regions(layout: &ParamLayout, inputs: &Inputs) -> RegionSizes {
    let mut sizes = RegionSizes::default();
    for region in [Region::Params, Region::Grads, Region::Moment1, Region::Moment2] {
        sizes.set(region, layout.region_len);
    }
    sizes.set(Region::Inputs, inputs.region_len());
    sizes.set(Region::Results, Results::LEN);
    sizes
}

/// The fixed regions without training.
fn forward_regions(layout: &ParamLayout, inputs: &Inputs) -> RegionSizes {
    let mut sizes = RegionSizes::default();
    sizes.set(Region::Params, layout.region_len);
    sizes.set(Region::Inputs, inputs.region_len());
    sizes.set(Region::Results, Results::LEN);
    sizes
}

/// Rows of each chunk of the head: even, a multiple of [`CHUNK_STEP`], within the limit.
fn head_chunk(rows: usize, vocab: usize) -> usize {
    let chunks = (rows * vocab * 4).div_ceil(LOGITS_CHUNK_BYTES).max(1);
    rows.div_ceil(chunks).next_multiple_of(CHUNK_STEP).min(rows)
}

fn train_program(
    config: &ModelConfig,
    layout: &ParamLayout,
    step: &StepConfig,
    accumulate: bool,
    with_update: bool,
) -> Program {
    let rows = step.batch * step.block;
    let inputs = Inputs::new(rows);
    let params = &layout.tensors;
    let program = ProgramBuilder::new(train_regions(layout, &inputs));
    let (context, activations16) = (Context::Sequences { batch: step.batch }, step.activations16);
    let mut layers = Layers { program, config, rows, context, with_dropout: true, accumulate, activations16 };

    let embedding = [params.wte, params.wpe];
    let mut x = layers.embedding(embedding, inputs.tokens, step.block);
    let mut saved = Vec::new();
    for (index, layer) in params.layers.iter().enumerate() {
        let (out, kept) = layers.layer(index, layer, x);
        saved.push((x, kept));
        x = out;
    }
    let normed = layers.norm(params.ln_f, x);

    let dnormed = head(&mut layers, params.head, normed.y, inputs.targets, 1.0 / (rows * step.accum_steps) as f32);

    layers.program.set_phase(Phase::Backward);
    let dx = layers.program.activation(rows, config.dim);
    layers.norm_bwd(normed, dnormed, dx, false);
    for (index, layer) in params.layers.iter().enumerate().rev() {
        let (input, mut kept) = saved[index];
        if step.recompute {
            // The same operations on the same input give the same bits, dropout included. Nothing reads
            // the first copies, so the planner ends their lives in forward.
            kept = layers.layer(index, layer, input).1;
        }
        layers.layer_bwd(index, layer, &kept, dx);
    }
    layers.embedding_bwd(embedding, inputs.tokens, step.block, dx);

    if with_update {
        update(&mut layers.program, layout, step);
    }
    layers.program.build(&[]).0
}

/// Head and cross-entropy of the final norm's output in chunks of tokens, forward and backward, and the loss; returns the
/// gradient of the norm's output. Losses and gradients are multiplied by `scale`.
fn head(layers: &mut Layers<'_>, weight: Tensor, normed: Tensor, targets: Tensor, scale: f32) -> Tensor {
    let (rows, vocab, accumulate) = (normed.rows, weight.rows, layers.accumulate);
    let loss = layers.program.activation(1, rows);
    let dnormed = layers.activation16(rows, normed.cols);
    let (b, dweight) = (&mut layers.program, weight.in_region(Region::Grads));
    let chunk = head_chunk(rows, vocab);
    for start in (0..rows).step_by(chunk) {
        let end = rows.min(start + chunk);
        let x = normed.row_range(start, end);
        let scratch = b.activation(end - start, vocab);
        let (targets, loss) = (part(targets, start, end), part(loss, start, end));
        b.set_phase(Phase::Forward);
        b.push(CrossEntropy { x, weight, targets, scratch, loss, grad_scale: Some(scale) });
        b.set_phase(Phase::Backward);
        let dx = dnormed.row_range(start, end);
        b.push(HeadBwd { x, weight, scratch, dx, dweight, accumulate: accumulate || start > 0 });
    }
    b.set_phase(Phase::Forward);
    b.push(LossSum { loss, out: Results::loss_tensor(), scale, accumulate });
    dnormed
}

/// Gradient norm and optimiser over all parameters.
fn update(program: &mut ProgramBuilder, layout: &ParamLayout, step: &StepConfig) {
    let flat = |region| Tensor::new(region, 0, 1, layout.region_len);
    program.set_phase(Phase::GradNorm);
    program.push(GradNorm {
        grads: flat(Region::Grads),
        results: Results::tensor(),
        grad_clip: step.grad_clip,
        spike_threshold: step.spike_threshold,
    });
    program.set_phase(Phase::Optimizer);
    program.push(AdamW {
        params: flat(Region::Params),
        grads: flat(Region::Grads),
        moment1: flat(Region::Moment1),
        moment2: flat(Region::Moment2),
        results: Results::tensor(),
        decay_runs: layout.decay_runs(),
        beta1: step.beta1,
        beta2: step.beta2,
        eps: step.eps,
        weight_decay: step.weight_decay,
    });
}

/// Elements `start..end` of a vector.
fn part(vector: Tensor, start: usize, end: usize) -> Tensor {
    Tensor { offset: vector.offset + start, cols: end - start, ..vector }
}

/// Forward and loss of `batch` sequences of `block` tokens, without dropout; `activations16` as in [`StepConfig`]. The
/// results' loss is the *sum* over the tokens whose target is not ignored.
pub fn eval_program(
    config: &ModelConfig,
    layout: &ParamLayout,
    batch: usize,
    block: usize,
    activations16: bool,
) -> (Program, Inputs) {
    let rows = batch * block;
    let inputs = Inputs::new(rows);
    let program = ProgramBuilder::new(forward_regions(layout, &inputs));
    let (context, with_dropout, accumulate) = (Context::Sequences { batch }, false, false);
    let layers = Layers { program, config, rows, context, with_dropout, accumulate, activations16 };
    let (mut b, normed) = forward(layers, layout, &inputs, block);
    let loss = b.activation(1, rows);
    let chunk = head_chunk(rows, config.vocab);
    for start in (0..rows).step_by(chunk) {
        let end = rows.min(start + chunk);
        let scratch = b.activation(end - start, config.vocab);
        b.push(CrossEntropy {
            x: normed.row_range(start, end),
            weight: layout.tensors.head,
            targets: part(inputs.targets, start, end),
            scratch,
            loss: part(loss, start, end),
            grad_scale: None,
        });
    }
    b.push(LossSum { loss, out: Results::loss_tensor(), scale: 1.0, accumulate: false });
    (b.build(&[]).0, inputs)
}

/// Forward of `rows` new tokens of one sequence against a key-value cache of `config.block`
/// positions; returns the place of the last token's logits `[1, vocab]`.
pub fn decode_program(config: &ModelConfig, layout: &ParamLayout, rows: usize) -> (Program, Inputs, Tensor) {
    let inputs = Inputs::new(rows);
    let mut sizes = forward_regions(layout, &inputs);
    sizes.set(Region::KvCache, 2 * config.layers * config.block * config.dim);
    let (context, with_dropout, accumulate) = (Context::Cache { block: config.block }, false, false);
    let program = ProgramBuilder::new(sizes);
    let layers = Layers { program, config, rows, context, with_dropout, accumulate, activations16: false };
    let (mut b, normed) = forward(layers, layout, &inputs, rows);
    let out = b.activation(1, config.vocab);
    b.push(Logits { x: normed.row_range(rows - 1, rows), weight: layout.tensors.head, out });
    let (program, kept) = b.build(&[out]);
    (program, inputs, kept[0])
}

/// Logits of all positions of `batch` sequences `[batch·block, vocab]`, and their place.
pub fn logits_program(
    config: &ModelConfig,
    layout: &ParamLayout,
    batch: usize,
    block: usize,
) -> (Program, Inputs, Tensor) {
    let rows = batch * block;
    let inputs = Inputs::new(rows);
    let program = ProgramBuilder::new(forward_regions(layout, &inputs));
    let (context, with_dropout, accumulate) = (Context::Sequences { batch }, false, false);
    let layers = Layers { program, config, rows, context, with_dropout, accumulate, activations16: false };
    let (mut b, normed) = forward(layers, layout, &inputs, block);
    let out = b.activation(rows, config.vocab);
    b.push(Logits { x: normed, weight: layout.tensors.head, out });
    let (program, kept) = b.build(&[out]);
    (program, inputs, kept[0])
}

/// Everything up to the head: the program so far, and the final norm's output `[rows, c]`.
fn forward(mut layers: Layers<'_>, layout: &ParamLayout, inputs: &Inputs, block: usize) -> (ProgramBuilder, Tensor) {
    let params = &layout.tensors;
    let mut x = layers.embedding([params.wte, params.wpe], inputs.tokens, block);
    for (index, layer) in params.layers.iter().enumerate() {
        x = layers.layer(index, layer, x).0;
    }
    let normed = layers.norm(params.ln_f, x).y;
    (layers.program, normed)
}

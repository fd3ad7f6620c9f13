//! Whether this device and driver compute what the reference does: every operation, one at a time, on a shape whose rows are
//! whole vectors, and on one whose are not those with other code for it. Drivers have bugs, and a wrong gradient looks like
//! a bad learning rate. Compiling takes nearly all of the time, so that each kernel comes in one form.

use alpha_tensor::{
    Backend, BackendError, Op, Program, ProgramBuilder, Region, RegionSizes, Results, RunArgs, Tensor,
    cpu_ref::RefBackend,
    op::{
        Access, Activation, AdamW, Attention, AttentionBwd, AttentionCached, CrossEntropy, DecayRun, Dropout,
        DropoutMask, Embedding, EmbeddingBwd, Fill, GradNorm, HeadBwd, LayerNorm, LayerNormBwd, Linear, LinearBwdInput,
        LinearBwdWeight, Logits, LossSum, Swiglu, SwigluBwd,
    },
    rng::{Key, Purpose},
    tensor::ALIGN_ELEMENTS,
};

use crate::{
    backend::HeliosBackend,
    format16::Format16,
    kernels::{Lowering, Profile},
};

/// Largest difference, relative to the largest number of the result: far above rounding, far below a wrong kernel.
fn tolerance(format: Option<Format16>) -> f64 {
    match format {
        None => 1e-3,
        Some(Format16::F16) => 5e-3,
        Some(Format16::Bf16) => 2e-2,
    }
}

struct Shape {
    batch: usize,
    block: usize,
    c: usize,
    heads: usize,
    hidden: usize,
    vocab: usize,
}

const SHAPES: [Shape; 2] = [
    Shape { batch: 2, block: 24, c: 32, heads: 2, hidden: 64, vocab: 76 },
    Shape { batch: 1, block: 9, c: 15, heads: 3, hidden: 21, vocab: 37 },
];

/// Rows of 16 bits are whole vectors; nothing else here is round.
const SHAPE_16: Shape = Shape { batch: 2, block: 21, c: 36, heads: 3, hidden: 68, vocab: 77 };

/// Gives tensors of the fixed regions their places.
struct Places(RegionSizes);

impl Places {
    fn tensor(&mut self, region: Region, rows: usize, cols: usize) -> Tensor {
        let tensor = Tensor::new(region, self.0.get(region), rows, cols);
        self.0.set(region, (tensor.offset + tensor.len()).next_multiple_of(ALIGN_ELEMENTS));
        tensor
    }
}

/// Every operation of the table; the model's wide activations have 16 bits if asked for.
fn program(&Shape { batch, block, c, heads, hidden, vocab }: &Shape, has_16_bits: bool) -> Program {
    let rows = batch * block;
    let mut places = Places(RegionSizes::default());
    let mut param = |rows, cols| places.tensor(Region::Params, rows, cols);
    // One position more than a sequence has: runs begin at position 1.
    let (wte, wpe, norm, norm_bias) = (param(vocab, c), param(block + 1, c), param(1, c), param(1, c));
    let (attn, attn_bias, fc, fc_bias) = (param(c, 3 * c), param(1, 3 * c), param(c, hidden), param(1, hidden));
    let (gate, proj) = (param(c, 2 * hidden), param(hidden, c));
    let len = places.0.get(Region::Params);
    for region in [Region::Grads, Region::Moment1, Region::Moment2] {
        places.0.set(region, len);
    }
    let (tokens, targets) = (places.tensor(Region::Inputs, 1, rows), places.tensor(Region::Inputs, 1, rows));
    let (k_cache, v_cache) = (places.tensor(Region::KvCache, block, c), places.tensor(Region::KvCache, block, c));
    places.0.set(Region::Results, Results::LEN);
    let grad = |tensor: Tensor| tensor.in_region(Region::Grads);
    let b = &mut ProgramBuilder::new(places.0);
    let wide_activation = if has_16_bits { ProgramBuilder::activation16 } else { ProgramBuilder::activation };
    let [x, dx, dropped] = [(); 3].map(|()| b.activation(rows, c));
    let [y, dy, attended] = [(); 3].map(|()| wide_activation(b, rows, c));
    let (new_qkv, cached) = (b.activation(rows, 3 * c), b.activation(rows, c)); // decoding is in f32
    let [mean, rstd, loss] = [(); 3].map(|()| b.activation(1, rows));
    let [qkv, dqkv] = [(); 2].map(|()| wide_activation(b, rows, 3 * c));
    let [pre, post, dpre] = [(); 3].map(|()| wide_activation(b, rows, hidden));
    let [wide, dwide] = [(); 2].map(|()| wide_activation(b, rows, 2 * hidden));
    let lse = b.activation(batch * heads, block);
    let [logits, scratch] = [(); 2].map(|()| b.activation(rows, vocab));
    let gelu = Activation::Gelu;
    let mask = DropoutMask { p: 0.25, site: 3 };
    let linear = |x, weight, bias, out| Linear { x, weight, bias, activation: None, pre: None, residual: None, out };

    b.push(Fill { out: dx, value: 0.5 });
    b.push(Embedding { tokens, wte, wpe, out: x, block });
    b.push(LayerNorm { x, weight: norm, bias: Some(norm_bias), y, mean, rstd, eps: 1e-5 });
    b.push(linear(y, attn, Some(attn_bias), qkv));
    let dropout = Some(mask);
    b.push(Attention { qkv, out: attended, lse, batch, heads, dropout });
    b.push(AttentionBwd { qkv, out: attended, lse, dout: y, dqkv, batch, heads, dropout });
    let first = block - 1; // with the position below, the whole cache
    let (new, out) = (new_qkv.row_range(0, first), cached.row_range(0, first));
    b.push(AttentionCached { qkv: new, k_cache, v_cache, out, heads });
    b.push(Dropout { x, residual: Some(dx), out: dropped, mask });
    b.push(Linear { activation: Some(gelu), pre: Some(pre), ..linear(y, fc, Some(fc_bias), post) });
    b.push(Linear { residual: Some(x), ..linear(post, proj, None, dropped) });
    b.push(linear(y, gate, None, wide));
    b.push(Swiglu { pre: wide, out: post });
    b.push(SwigluBwd { pre: wide, dout: pre, dpre: dwide, out: post });
    b.push(LinearBwdInput { dy: x, weight: proj, activation: Some((gelu, pre, post)), dx: dpre });
    b.push(LinearBwdInput { dy: dqkv, weight: attn, activation: None, dx: dy });
    let accumulate = true; // gradients begin as random numbers
    b.push(LinearBwdWeight { x: y, dy: pre, dweight: grad(fc), dbias: Some(grad(fc_bias)), accumulate });
    b.push(LinearBwdWeight { x: post, dy: x, dweight: grad(proj), dbias: None, accumulate });
    b.push(LayerNormBwd {
        x,
        weight: norm,
        mean,
        rstd,
        dy,
        dx,
        dweight: grad(norm),
        dbias: Some(grad(norm_bias)),
        accumulate_dx: true,
        accumulate,
    });
    b.push(Logits { x: y, weight: wte, out: logits });
    b.push(CrossEntropy { x: y, weight: wte, targets, scratch, loss, grad_scale: Some(0.1) });
    b.push(HeadBwd { x: y, weight: wte, scratch, dx: dy, dweight: grad(wte), accumulate: false });
    b.push(LossSum { loss, out: Results::loss_tensor(), scale: 0.1, accumulate: false });
    b.push(EmbeddingBwd { tokens, dout: x, dwte: grad(wte), dwpe: grad(wpe), block, accumulate: false });
    let flat = |region| Tensor::new(region, 0, 1, len);
    b.push(GradNorm { grads: flat(Region::Grads), results: Results::tensor(), grad_clip: 1.0, spike_threshold: 0.0 });
    b.push(AdamW {
        params: flat(Region::Params),
        grads: flat(Region::Grads),
        moment1: flat(Region::Moment1),
        moment2: flat(Region::Moment2),
        results: Results::tensor(),
        decay_runs: vec![
            DecayRun { end: norm.offset, is_decayed: true },
            DecayRun { end: attn.offset, is_decayed: false },
            DecayRun { end: len, is_decayed: true },
        ],
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    });
    let kept = [
        x, y, dx, dy, mean, rstd, loss, qkv, dqkv, new_qkv, pre, post, dpre, wide, dwide, lse, logits, scratch,
        attended, cached, dropped,
    ];
    std::mem::replace(b, ProgramBuilder::new(RegionSizes::default())).build(&kept).0
}

/// All programs that are run, of every shape and storage.
pub(crate) fn programs() -> Vec<Program> {
    SHAPES.iter().map(|shape| program(shape, false)).chain([program(&SHAPE_16, true)]).collect()
}

/// Everything that the test runs, as text: what it proved holds for these dispatches and no others.
pub(crate) fn dispatches(profile: &Profile, format: Option<Format16>) -> String {
    let programs = programs();
    let run = if format.is_some() { &programs[..] } else { &programs[..SHAPES.len()] };
    let mut text = String::new();
    for call in run.iter().flat_map(Program::ops) {
        let dispatches = Lowering::of(&call.op, profile).map(|lowering| lowering.dispatches);
        text += &format!("{dispatches:?}\n");
    }
    text
}

/// Runs every operation on both. The answer names the first that differs.
pub(crate) fn self_test(backend: &mut HeliosBackend) -> Result<Option<String>, BackendError> {
    let (format, plain) = (backend.format16(), SHAPES.iter().map(|shape| (shape, false)));
    for (shape, has_16_bits) in plain.chain(format.map(|_| (&SHAPE_16, true))) {
        let program = program(shape, has_16_bits);
        let allowed = tolerance(format.filter(|_| has_16_bits));
        let mut reference = RefBackend::<f32>::new();
        reference.prepare(program.sizes(), &[&program])?;
        backend.prepare(program.sizes(), &[&program])?;
        fill(&mut reference, backend, &program, shape)?;
        let args = RunArgs {
            seed: 7,
            step: 3,
            micro_step: 1,
            update: 3,
            lr: 1e-2,
            position: 1,
            is_chained: false,
            loss_scale: 4.0,
        };
        for (index, call) in program.ops().iter().enumerate() {
            let single = program.only(index);
            reference.run(&single, &args, None)?;
            let has_other_code = matches!(
                call.op,
                Op::Linear(_) | Op::Attention(_) | Op::AttentionBwd(_) | Op::LayerNorm(_) | Op::CrossEntropy(_)
            );
            if shape.c.is_multiple_of(4) || has_other_code {
                backend.run(&single, &args, None)?;
            } else {
                hand_over(&mut reference, backend, &call.op)?;
                continue;
            }
            if let Some(why) = difference(&mut reference, backend, &call.op, allowed)? {
                return Ok(Some(format!("`{}` of rows of {}: {why}", call.op.name(), shape.c)));
            }
        }
    }
    Ok(None)
}

/// The same random numbers for both, whatever they mean.
fn fill(
    reference: &mut RefBackend<f32>,
    backend: &mut HeliosBackend,
    program: &Program,
    shape: &Shape,
) -> Result<(), BackendError> {
    let key = Key::new(11, Purpose::Synthetic);
    for region in Region::ALL.into_iter().filter(|&region| region != Region::Inputs) {
        let key = key.fold(region.index() as u64);
        let mut values: Vec<f32> =
            (0..program.sizes().get(region) as u64).map(|i| 0.5 * key.normal_pair(i)[0] as f32).collect();
        if region == Region::Moment2 {
            for value in &mut values {
                *value = value.abs();
            }
        }
        backend.write(region, 0, &values)?;
        backend.read(region, 0, &mut values)?; // rounded, where it has 16 bits
        reference.write(region, 0, &values)?;
    }
    let tokens: Vec<u32> =
        (0..program.sizes().get(Region::Inputs) as u64).map(|i| key.below(i, shape.vocab as u64) as u32).collect();
    reference.write_tokens(0, &tokens)?;
    backend.write_tokens(0, &tokens)
}

/// What an operation writes.
fn written(op: &Op) -> Vec<Tensor> {
    let mut written = Vec::new();
    op.clone().visit(&mut |tensor, access| {
        if access != Access::Read && tensor.len() > 0 {
            written.push(*tensor);
        }
    });
    written
}

/// Both go on from the reference's numbers, as the device holds them, so that rounding does not add up.
fn hand_over(reference: &mut RefBackend<f32>, backend: &mut HeliosBackend, op: &Op) -> Result<(), BackendError> {
    for tensor in written(op) {
        let mut values = vec![0.0; tensor.len()];
        reference.read(tensor.region, tensor.offset, &mut values)?;
        backend.write(tensor.region, tensor.offset, &values)?;
        if tensor.region == Region::Activations16 {
            backend.read(tensor.region, tensor.offset, &mut values)?;
            reference.write(tensor.region, tensor.offset, &values)?;
        }
    }
    Ok(())
}

/// How a result of an operation differs from the reference's, if it does.
fn difference(
    reference: &mut RefBackend<f32>,
    backend: &mut HeliosBackend,
    op: &Op,
    tolerance: f64,
) -> Result<Option<String>, BackendError> {
    for tensor in written(op) {
        let [mut expected, mut found] = [vec![0.0; tensor.len()], vec![0.0; tensor.len()]];
        reference.read(tensor.region, tensor.offset, &mut expected)?;
        backend.read(tensor.region, tensor.offset, &mut found)?;
        let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let allowed = tolerance * f64::from(largest.max(1e-3));
        let is_close = |(e, f): &(&f32, &f32)| (f64::from(**e) - f64::from(**f)).abs() <= allowed; // NaN is not
        if let Some((expected, found)) = expected.iter().zip(&found).find(|pair| !is_close(pair)) {
            return Ok(Some(format!("found {found}, expected {expected}")));
        }
    }
    hand_over(reference, backend, op)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeliosError, Options};

    #[test]
    fn every_operation_is_among_those_tested() {
        for program in programs() {
            for name in Op::NAMES {
                assert!(program.ops().iter().any(|call| call.op.name() == *name), "`{name}` is not tested");
            }
        }
    }

    /// One wrong number in a kernel is found, and the kernel named.
    #[test]
    fn a_device_that_computes_wrongly_is_found() {
        let mut backend = match HeliosBackend::open(&Options::default()) {
            Ok(backend) => backend,
            Err(HeliosError::NoDevice) => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(self_test(&mut backend).expect("it runs"), None);
        for (right, wrong, name) in [
            ("fma(vec4(factor), b_row", "fma(vec4(factor) * 1.01, b_row", "`linear`"),
            ("exp(score[e] - new_largest)", "exp(score[e] - new_largest) + 0.01", "`attention`"),
            (
                "* p.scale;\n        for (var d = 0u; d < HD4; d++) {\n            dq",
                "* 1.1 * p.scale;\n        for (var d = 0u; d < HD4; d++) {\n            dq",
                "`attention_bwd`",
            ),
            ("(1.0 - p.beta2) * g * g", "(1.0 - p.beta2) * g", "`adamw`"),
            ("13u, 15u, 26u, 6u", "13u, 15u, 26u, 7u", "`attention`"),
        ] {
            backend.sabotage(right, wrong);
            let found = self_test(&mut backend).expect("it runs");
            assert!(found.as_ref().is_some_and(|found| found.starts_with(name)), "{name}: {found:?}");
        }
    }
}

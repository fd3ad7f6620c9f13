//! The programs of the self-test: every operation of the table, on small operands that hold random numbers.

use alpha_tensor::{
    Program, ProgramBuilder, Region, RegionSizes, Results, Tensor,
    op::{
        Activation, AdamW, Attention, AttentionBwd, AttentionCached, CrossEntropy, DecayRun, Dropout, DropoutMask,
        Embedding, EmbeddingBwd, Fill, GradNorm, HeadBwd, LayerNorm, LayerNormBwd, Linear, LinearBwdInput,
        LinearBwdWeight, Logits, LossSum, Swiglu, SwigluBwd,
    },
    tensor::ALIGN_ELEMENTS,
};

pub(super) struct Shape {
    batch: usize,
    block: usize,
    pub(super) c: usize,
    heads: usize,
    hidden: usize,
    pub(super) vocab: usize,
}

pub(super) const SHAPES: [Shape; 2] = [
    Shape { batch: 2, block: 24, c: 32, heads: 2, hidden: 64, vocab: 76 },
    Shape { batch: 1, block: 9, c: 15, heads: 3, hidden: 21, vocab: 37 },
];

/// Rows with 16 bits must be whole vectors. No other size is a multiple of 4.
pub(super) const SHAPE_16: Shape = Shape { batch: 2, block: 21, c: 36, heads: 3, hidden: 68, vocab: 77 };

const GELU: Activation = Activation::Gelu;
const MASK: DropoutMask = DropoutMask { p: 0.25, site: 3 };

/// Every operation of the table. Activations inside a layer have 16 bits if `has_16_bits`. Gradients begin as random
/// numbers, to which some operations add.
pub(super) fn program(&Shape { batch, block, c, heads, hidden, vocab }: &Shape, has_16_bits: bool) -> Program {
    let rows = batch * block;
    let mut sizes = RegionSizes::default();
    let mut param = |rows, cols| allocate(&mut sizes, Region::Params, rows, cols);
    // One position more than a sequence has: runs begin at position 1.
    let (wte, wpe, norm, norm_bias) = (param(vocab, c), param(block + 1, c), param(1, c), param(1, c));
    let (attn, attn_bias, fc, fc_bias) = (param(c, 3 * c), param(1, 3 * c), param(c, hidden), param(1, hidden));
    let (gate, proj) = (param(c, 2 * hidden), param(hidden, c));
    let len = sizes.get(Region::Params);
    for region in [Region::Grads, Region::Moment1, Region::Moment2] {
        sizes.set(region, len);
    }
    let [tokens, targets] = [(); 2].map(|()| allocate(&mut sizes, Region::Inputs, 1, rows));
    let [k_cache, v_cache] = [(); 2].map(|()| allocate(&mut sizes, Region::KvCache, block, c));
    sizes.set(Region::Results, Results::LEN);
    let mut b = ProgramBuilder::new(sizes);
    let inner = if has_16_bits { ProgramBuilder::activation16 } else { ProgramBuilder::activation };
    let [x, dx, dropped] = [(); 3].map(|()| b.activation(rows, c));
    let [y, dy, attended] = [(); 3].map(|()| inner(&mut b, rows, c));
    let (new_qkv, cached) = (b.activation(rows, 3 * c), b.activation(rows, c)); // decoding is in f32
    let [mean, rstd, loss] = [(); 3].map(|()| b.activation(1, rows));
    let [qkv, dqkv] = [(); 2].map(|()| inner(&mut b, rows, 3 * c));
    let [pre, post, dpre] = [(); 3].map(|()| inner(&mut b, rows, hidden));
    let [gated, dgated] = [(); 2].map(|()| inner(&mut b, rows, 2 * hidden));
    let lse = b.activation(batch * heads, block);
    let [logits, scratch] = [(); 2].map(|()| b.activation(rows, vocab));

    b.push(Fill { out: dx, value: 0.5 });
    b.push(Embedding { tokens, wte, wpe, out: x, block });
    b.push(LayerNorm { x, weight: norm, bias: Some(norm_bias), y, mean, rstd, eps: 1e-5 });
    b.push(linear(y, attn, Some(attn_bias), qkv));
    b.push(Attention { qkv, out: attended, lse, batch, heads, dropout: Some(MASK) });
    b.push(AttentionBwd { qkv, out: attended, lse, dout: y, dqkv, batch, heads, dropout: Some(MASK) });
    let first = block - 1; // with the run's position, this fills the cache
    let (new, out) = (new_qkv.row_range(0, first), cached.row_range(0, first));
    b.push(AttentionCached { qkv: new, k_cache, v_cache, out, heads });
    b.push(Dropout { x, residual: Some(dx), out: dropped, mask: MASK });
    b.push(Linear { activation: Some(GELU), pre: Some(pre), ..linear(y, fc, Some(fc_bias), post) });
    b.push(Linear { residual: Some(x), ..linear(post, proj, None, dropped) });
    b.push(linear(y, gate, None, gated));
    b.push(Swiglu { pre: gated, out: post });
    b.push(SwigluBwd { pre: gated, dout: pre, dpre: dgated, out: post });
    b.push(LinearBwdInput { dy: x, weight: proj, activation: Some((GELU, pre, post)), dx: dpre });
    b.push(LinearBwdInput { dy: dqkv, weight: attn, activation: None, dx: dy });
    b.push(LinearBwdWeight { x: y, dy: pre, dweight: grad(fc), dbias: Some(grad(fc_bias)), accumulate: true });
    b.push(LinearBwdWeight { x: post, dy: x, dweight: grad(proj), dbias: None, accumulate: true });
    let (dweight, dbias) = (grad(norm), Some(grad(norm_bias)));
    b.push(LayerNormBwd { x, weight: norm, mean, rstd, dy, dx, dweight, dbias, accumulate_dx: true, accumulate: true });
    b.push(Logits { x: y, weight: wte, out: logits });
    b.push(CrossEntropy { x: y, weight: wte, targets, scratch, loss, grad_scale: Some(0.1) });
    b.push(HeadBwd { x: y, weight: wte, scratch, dx: dy, dweight: grad(wte), accumulate: false });
    b.push(LossSum { loss, out: Results::loss_tensor(), scale: 0.1, accumulate: false });
    b.push(EmbeddingBwd { tokens, dout: x, dwte: grad(wte), dwpe: grad(wpe), block, accumulate: false });
    push_update(&mut b, len, [norm.offset, attn.offset]);
    b.build(&[
        x, y, dx, dy, mean, rstd, loss, qkv, dqkv, new_qkv, pre, post, dpre, gated, dgated, lse, logits, scratch,
        attended, cached, dropped,
    ])
    .0
}

/// Takes the next elements of a region.
fn allocate(sizes: &mut RegionSizes, region: Region, rows: usize, cols: usize) -> Tensor {
    let tensor = Tensor::new(region, sizes.get(region), rows, cols);
    sizes.set(region, (tensor.offset + tensor.len()).next_multiple_of(ALIGN_ELEMENTS));
    tensor
}

fn linear(x: Tensor, weight: Tensor, bias: Option<Tensor>, out: Tensor) -> Linear {
    Linear { x, weight, bias, activation: None, pre: None, residual: None, out }
}

fn grad(param: Tensor) -> Tensor {
    param.in_region(Region::Grads)
}

/// One update of `len` parameters, of which a range in the middle is not decayed.
fn push_update(b: &mut ProgramBuilder, len: usize, [start, end]: [usize; 2]) {
    let flat = |region| Tensor::new(region, 0, 1, len);
    b.push(GradNorm { grads: flat(Region::Grads), results: Results::tensor(), grad_clip: 1.0, spike_threshold: 0.0 });
    b.push(AdamW {
        params: flat(Region::Params),
        grads: flat(Region::Grads),
        moment1: flat(Region::Moment1),
        moment2: flat(Region::Moment2),
        results: Results::tensor(),
        decay_runs: vec![
            DecayRun { end: start, is_decayed: true },
            DecayRun { end, is_decayed: false },
            DecayRun { end: len, is_decayed: true },
        ],
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    });
}

/// All programs that the test runs, with every shape and storage.
pub(crate) fn programs() -> Vec<Program> {
    SHAPES.iter().map(|shape| program(shape, false)).chain([program(&SHAPE_16, true)]).collect()
}

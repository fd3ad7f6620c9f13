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

/// Every operation of the table. Activations inside a layer have 16 bits if `has_16_bits`.
pub(super) fn program(shape: &Shape, has_16_bits: bool) -> Program {
    let mut sizes = RegionSizes::default();
    let fixed = FixedTensors::new(shape, &mut sizes);
    let mut b = ProgramBuilder::new(sizes);
    let activations = Activations::new(shape, has_16_bits, &mut b);
    push_forward(shape, &fixed, &activations, &mut b);
    push_backward(&fixed, &activations, &mut b);
    push_head(shape.block, &fixed, &activations, &mut b);
    push_update(sizes.get(Region::Params), &fixed, &mut b);
    b.finish(&activations.all()).0
}

/// All programs that the test runs, with every shape and storage.
pub(crate) fn programs() -> Vec<Program> {
    SHAPES.iter().map(|shape| program(shape, false)).chain([program(&SHAPE_16, true)]).collect()
}

const GELU: Activation = Activation::Gelu;
const DROPOUT: DropoutMask = DropoutMask { p: 0.25, site: 3 };

/// Tensors that are not activations, which the builder does not place.
struct FixedTensors {
    wte: Tensor,
    wpe: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    attn: Tensor,
    attn_bias: Tensor,
    fc: Tensor,
    fc_bias: Tensor,
    gate: Tensor,
    proj: Tensor,
    tokens: Tensor,
    targets: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
}

/// Takes the next elements of a region.
fn allocate(sizes: &mut RegionSizes, region: Region, rows: usize, cols: usize) -> Tensor {
    let tensor = Tensor::new(region, sizes.get(region), rows, cols);
    sizes.set(region, (tensor.offset + tensor.len()).next_multiple_of(ALIGN_ELEMENTS));
    tensor
}

impl FixedTensors {
    fn new(&Shape { batch, block, c, hidden, vocab, .. }: &Shape, sizes: &mut RegionSizes) -> FixedTensors {
        let mut tensor = |region, rows, cols| allocate(sizes, region, rows, cols);
        let fixed = FixedTensors {
            wte: tensor(Region::Params, vocab, c),
            // One position more than a sequence has: runs begin at position 1.
            wpe: tensor(Region::Params, block + 1, c),
            norm: tensor(Region::Params, 1, c),
            norm_bias: tensor(Region::Params, 1, c),
            attn: tensor(Region::Params, c, 3 * c),
            attn_bias: tensor(Region::Params, 1, 3 * c),
            fc: tensor(Region::Params, c, hidden),
            fc_bias: tensor(Region::Params, 1, hidden),
            gate: tensor(Region::Params, c, 2 * hidden),
            proj: tensor(Region::Params, hidden, c),
            tokens: tensor(Region::Inputs, 1, batch * block),
            targets: tensor(Region::Inputs, 1, batch * block),
            k_cache: tensor(Region::KvCache, block, c),
            v_cache: tensor(Region::KvCache, block, c),
        };
        for region in [Region::Grads, Region::Moment1, Region::Moment2] {
            sizes.set(region, sizes.get(Region::Params));
        }
        sizes.set(Region::Results, Results::LEN);
        fixed
    }
}

/// Tensors that the builder places.
struct Activations {
    x: Tensor,
    dx: Tensor,
    dropped: Tensor,
    y: Tensor,
    dy: Tensor,
    attended: Tensor,
    new_qkv: Tensor,
    cached: Tensor,
    mean: Tensor,
    rstd: Tensor,
    loss: Tensor,
    qkv: Tensor,
    dqkv: Tensor,
    pre: Tensor,
    post: Tensor,
    dpre: Tensor,
    gated: Tensor,
    dgated: Tensor,
    lse: Tensor,
    logits: Tensor,
    scratch: Tensor,
}

impl Activations {
    fn new(shape: &Shape, has_16_bits: bool, b: &mut ProgramBuilder) -> Activations {
        let &Shape { batch, block, c, heads, hidden, vocab } = shape;
        let rows = batch * block;
        let inner = if has_16_bits { ProgramBuilder::activation16 } else { ProgramBuilder::activation };
        Activations {
            x: b.activation(rows, c),
            dx: b.activation(rows, c),
            dropped: b.activation(rows, c),
            y: inner(b, rows, c),
            dy: inner(b, rows, c),
            attended: inner(b, rows, c),
            // Decoding is in f32.
            new_qkv: b.activation(rows, 3 * c),
            cached: b.activation(rows, c),
            mean: b.activation(1, rows),
            rstd: b.activation(1, rows),
            loss: b.activation(1, rows),
            qkv: inner(b, rows, 3 * c),
            dqkv: inner(b, rows, 3 * c),
            pre: inner(b, rows, hidden),
            post: inner(b, rows, hidden),
            dpre: inner(b, rows, hidden),
            gated: inner(b, rows, 2 * hidden),
            dgated: inner(b, rows, 2 * hidden),
            lse: b.activation(batch * heads, block),
            logits: b.activation(rows, vocab),
            scratch: b.activation(rows, vocab),
        }
    }

    fn all(&self) -> [Tensor; 21] {
        let &Activations { x, dx, dropped, y, dy, attended, new_qkv, cached, mean, rstd, loss, .. } = self;
        let &Activations { qkv, dqkv, pre, post, dpre, gated, dgated, lse, logits, scratch, .. } = self;
        [
            x, y, dx, dy, mean, rstd, loss, qkv, dqkv, new_qkv, pre, post, dpre, gated, dgated, lse, logits, scratch,
            attended, cached, dropped,
        ]
    }
}

fn linear(x: Tensor, weight: Tensor, bias: Option<Tensor>, out: Tensor) -> Linear {
    Linear { x, weight, bias, activation: None, pre: None, residual: None, out }
}

fn grad(param: Tensor) -> Tensor {
    param.in_region(Region::Grads)
}

/// The operations of a layer and of the embedding, attention's backward among them.
fn push_forward(&Shape { batch, block, heads, .. }: &Shape, f: &FixedTensors, a: &Activations, b: &mut ProgramBuilder) {
    let dropout = Some(DROPOUT);
    let &Activations { x, y, mean, rstd, qkv, dqkv, lse, attended, .. } = a;
    b.push(Fill { out: a.dx, value: 0.5 });
    b.push(Embedding { tokens: f.tokens, wte: f.wte, wpe: f.wpe, out: x, block });
    b.push(LayerNorm { x, weight: f.norm, bias: Some(f.norm_bias), y, mean, rstd, eps: 1e-5 });
    b.push(linear(y, f.attn, Some(f.attn_bias), qkv));
    b.push(Attention { qkv, out: attended, lse, batch, heads, dropout });
    b.push(AttentionBwd { qkv, out: attended, lse, dout: y, dqkv, batch, heads, dropout });
    let first = block - 1; // with the run's position, this fills the cache
    let (new, out) = (a.new_qkv.row_range(0, first), a.cached.row_range(0, first));
    b.push(AttentionCached { qkv: new, k_cache: f.k_cache, v_cache: f.v_cache, out, heads });
    b.push(Dropout { x, residual: Some(a.dx), out: a.dropped, mask: DROPOUT });
    b.push(Linear { activation: Some(GELU), pre: Some(a.pre), ..linear(y, f.fc, Some(f.fc_bias), a.post) });
    b.push(Linear { residual: Some(x), ..linear(a.post, f.proj, None, a.dropped) });
    b.push(linear(y, f.gate, None, a.gated));
    b.push(Swiglu { pre: a.gated, out: a.post });
}

/// The backward of a layer's other operations. The parameters' gradients begin as random numbers, to which these add.
fn push_backward(f: &FixedTensors, a: &Activations, b: &mut ProgramBuilder) {
    let &Activations { x, dx, y, dy, mean, rstd, pre, post, .. } = a;
    b.push(SwigluBwd { pre: a.gated, dout: pre, dpre: a.dgated, out: post });
    b.push(LinearBwdInput { dy: x, weight: f.proj, activation: Some((GELU, pre, post)), dx: a.dpre });
    b.push(LinearBwdInput { dy: a.dqkv, weight: f.attn, activation: None, dx: dy });
    let dbias = Some(grad(f.fc_bias));
    b.push(LinearBwdWeight { x: y, dy: pre, dweight: grad(f.fc), dbias, accumulate: true });
    b.push(LinearBwdWeight { x: post, dy: x, dweight: grad(f.proj), dbias: None, accumulate: true });
    b.push(LayerNormBwd {
        x,
        weight: f.norm,
        mean,
        rstd,
        dy,
        dx,
        dweight: grad(f.norm),
        dbias: Some(grad(f.norm_bias)),
        accumulate_dx: true,
        accumulate: true,
    });
}

/// Head, loss and embedding, whose gradients replace what was there.
fn push_head(block: usize, f: &FixedTensors, a: &Activations, b: &mut ProgramBuilder) {
    let &FixedTensors { tokens, targets, wte, .. } = f;
    let &Activations { x, y, loss, scratch, .. } = a;
    b.push(Logits { x: y, weight: wte, out: a.logits });
    b.push(CrossEntropy { x: y, weight: wte, targets, scratch, loss, grad_scale: Some(0.1) });
    b.push(HeadBwd { x: y, weight: wte, scratch, dx: a.dy, dweight: grad(wte), accumulate: false });
    b.push(LossSum { loss, out: Results::loss_tensor(), scale: 0.1, accumulate: false });
    b.push(EmbeddingBwd { tokens, dout: x, dwte: grad(wte), dwpe: grad(f.wpe), block, accumulate: false });
}

/// One update of `len` parameters.
fn push_update(len: usize, f: &FixedTensors, b: &mut ProgramBuilder) {
    let flat = |region| Tensor::new(region, 0, 1, len);
    b.push(GradNorm { grads: flat(Region::Grads), results: Results::tensor(), grad_clip: 1.0, spike_threshold: 0.0 });
    b.push(AdamW {
        params: flat(Region::Params),
        grads: flat(Region::Grads),
        moment1: flat(Region::Moment1),
        moment2: flat(Region::Moment2),
        results: Results::tensor(),
        decay_runs: vec![
            DecayRun { end: f.norm.offset, is_decayed: true },
            DecayRun { end: f.attn.offset, is_decayed: false },
            DecayRun { end: len, is_decayed: true },
        ],
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    });
}

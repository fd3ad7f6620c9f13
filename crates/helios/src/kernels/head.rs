//! Head, cross-entropy, logits and the sum of losses. Logits are row-major in `scratch`.

use alpha_tensor::{
    Tensor,
    op::{CrossEntropy, HeadBwd, Logits, LossSum},
};

use super::shader::ShaderBuilder;
use super::{
    GRID, Lowering, LoweringError, Params, REDUCE, RunValue, folded,
    matmul::{Epilogue, Product},
};

/// The scratch space of a chunk as logits `[r, vocab]`.
fn as_logits(scratch: Tensor, rows: usize, vocab: usize) -> Tensor {
    Tensor { rows, cols: vocab, ..scratch }
}

/// The index of `grad_scale` in the kernel's own words.
const GRAD_SCALE_WORD: usize = 2;

pub(super) fn cross_entropy(op: &CrossEntropy, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (rows, vocab) = (op.x.rows, op.weight.rows);
    let scratch = as_logits(op.scratch, rows, vocab);
    Product::new((op.x, false), (op.weight, true), scratch).push(l)?;
    let shader = ShaderBuilder::new("cross_entropy", 3)
        .number("WG", l.profile.reduce_width)
        .flag("GRADIENT", op.grad_scale.is_some())
        .access(&[("logits", l.storage(&scratch, true)?)])
        .part(GRID)
        .part(REDUCE)
        .part(include_str!("cross_entropy.wgsl"))
        .build();
    let operands = vec![l.whole(scratch)?, op.targets.into(), op.loss.into()];
    let words = vec![rows as u32, vocab as u32, 0];
    let run_values = op.grad_scale.map(|scale| (GRAD_SCALE_WORD, RunValue::LossScale(scale))).into_iter().collect();
    l.push(shader, operands, Params { words, run_values }, folded(rows))
}

pub(super) fn head_bwd(op: &HeadBwd, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let scratch = as_logits(op.scratch, op.x.rows, op.weight.rows);
    Product::new((scratch, false), (op.weight, false), op.dx).push(l)?;
    let epilogue = if op.accumulate { Epilogue::Accumulate } else { Epilogue::Plain };
    Product { epilogue, ..Product::new((scratch, true), (op.x, false), op.dweight) }.push(l)
}

pub(super) fn logits(op: &Logits, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    Product::new((op.x, false), (op.weight, true), op.out).push(l)
}

pub(super) fn loss_sum(op: &LossSum, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let shader = ShaderBuilder::new("loss_sum", 2)
        .number("WG", l.profile.reduce_width)
        .flag("ACCUMULATE", op.accumulate)
        .part(REDUCE)
        .part(include_str!("loss_sum.wgsl"))
        .build();
    let params = Params::fixed([op.loss.len() as u32, op.scale.to_bits()]);
    l.push(shader, vec![op.loss.into(), op.out.into()], params, [1, 1, 1])
}

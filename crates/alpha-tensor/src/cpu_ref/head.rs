//! The head and cross-entropy. `scratch` holds the logits' gradient row-major, `[r, vocab]`.

use super::{
    Float, Memory,
    attention::log_sum_exp,
    linear::{product, transpose},
};
use crate::{
    backend::RunArgs,
    op::{CrossEntropy, HeadBwd, IGNORED_TARGET, Logits, LossSum},
    tensor::Tensor,
};

/// `x · weightᵀ`, `[r, vocab]`.
fn logits_of<F: Float>(x: &Tensor, weight: &Tensor, memory: &Memory<F>) -> Vec<F> {
    let [r, c, vocab] = [x.rows, x.cols, weight.rows];
    product(&memory.load(x), &transpose(&memory.load(weight), [vocab, c]), [r, c, vocab])
}

pub(super) fn logits<F: Float>(op: &Logits, memory: &mut Memory<F>) {
    let logits = logits_of(&op.x, &op.weight, memory);
    memory.store(&op.out, &logits);
}

pub(super) fn cross_entropy<F: Float>(op: &CrossEntropy, args: &RunArgs, memory: &mut Memory<F>) {
    let [r, vocab] = [op.x.rows, op.weight.rows];
    let grad_scale = F::from_f32(op.grad_scale.unwrap_or(0.0) * args.loss_scale);
    let logits = logits_of(&op.x, &op.weight, memory);
    let mut dlogits = vec![F::ZERO; r * vocab];
    let mut loss = vec![F::ZERO; r];
    for (i, target) in memory.load_tokens(&op.targets).into_iter().enumerate() {
        if target == IGNORED_TARGET {
            continue;
        }
        let logits = &logits[i * vocab..][..vocab];
        let lse = log_sum_exp(logits);
        loss[i] = lse - logits[target as usize];
        for (j, &logit) in logits.iter().enumerate() {
            let onehot = if j == target as usize { F::ONE } else { F::ZERO };
            dlogits[i * vocab + j] = ((logit - lse).exp() - onehot) * grad_scale;
        }
    }
    memory.store(&op.scratch, &dlogits);
    memory.store(&op.loss, &loss);
}

pub(super) fn head_bwd<F: Float>(op: &HeadBwd, memory: &mut Memory<F>) {
    let [r, c, vocab] = [op.x.rows, op.x.cols, op.weight.rows];
    let dlogits = memory.load(&op.scratch);
    let dx = product(&dlogits, &memory.load(&op.weight), [r, vocab, c]);
    let dweight = product(&transpose(&dlogits, [r, vocab]), &memory.load(&op.x), [vocab, r, c]);
    memory.store(&op.dx, &dx);
    memory.store_gradient(&op.dweight, &dweight, op.accumulate);
}

pub(super) fn loss_sum<F: Float>(op: &LossSum, memory: &mut Memory<F>) {
    let sum: f64 = memory.load(&op.loss).iter().map(|loss| loss.to_f64()).sum();
    memory.store_gradient(&op.out, &[F::from_f64(f64::from(op.scale) * sum)], op.accumulate);
}

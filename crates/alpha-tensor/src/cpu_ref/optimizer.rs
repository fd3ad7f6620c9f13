//! Gradient norm and `AdamW`.

use super::{Float, Memory};
use crate::{
    backend::RunArgs,
    op::{AdamW, GradNorm},
};

pub(super) fn grad_norm<F: Float>(op: &GradNorm, args: &RunArgs, memory: &mut Memory<F>) {
    let sum_of_squares: f64 = memory.load(&op.grads).iter().map(|grad| grad.to_f64() * grad.to_f64()).sum();
    let mut results = memory.load(&op.results);
    let loss = results[0].to_f64();
    let norm = F::from_f64(sum_of_squares.sqrt() / f64::from(args.loss_scale)).to_f64();
    let (grad_clip, spike_threshold) = (f64::from(op.grad_clip), f64::from(op.spike_threshold));
    let coef = grad_clip / (norm + 1e-6);
    let clip_coef = if grad_clip > 0.0 && coef < 1.0 { coef } else { 1.0 };
    let is_spike = spike_threshold > 0.0 && norm > spike_threshold;
    let is_blocked = args.is_chained && results[3] == F::ZERO;
    let is_applied = norm.is_finite() && loss.is_finite() && !is_spike && !is_blocked;
    results[1] = F::from_f64(norm);
    results[2] = F::from_f64(clip_coef);
    results[3] = if is_applied { F::ONE } else { F::ZERO };
    memory.store(&op.results, &results);
}

pub(super) fn adamw<F: Float>(op: &AdamW, args: &RunArgs, memory: &mut Memory<F>) {
    let results = memory.load(&op.results);
    let (clip_coef, is_applied) = (results[2], results[3] != F::ZERO);
    if !is_applied {
        return;
    }
    let grad_coef = clip_coef / F::from_f32(args.loss_scale);
    let [beta1, beta2, eps, lr, weight_decay] = [op.beta1, op.beta2, op.eps, args.lr, op.weight_decay].map(F::from_f32);
    let correction = |beta: f32| F::from_f64(1.0 - f64::from(beta).powf(args.update as f64));
    let (correction1, correction2) = (correction(op.beta1), correction(op.beta2));
    let (mut params, grads) = (memory.load(&op.params), memory.load(&op.grads));
    let (mut moment1, mut moment2) = (memory.load(&op.moment1), memory.load(&op.moment2));
    let mut runs = op.decay_runs.iter().peekable();
    for i in 0..params.len() {
        while runs.next_if(|run| run.end <= op.params.offset + i).is_some() {}
        let decay = if runs.peek().is_some_and(|run| run.is_decayed) { weight_decay } else { F::ZERO };
        let g = grad_coef * grads[i];
        let m = beta1 * moment1[i] + (F::ONE - beta1) * g;
        let v = beta2 * moment2[i] + (F::ONE - beta2) * g * g;
        params[i] = params[i] * (F::ONE - lr * decay) - lr * (m / correction1) / ((v / correction2).sqrt() + eps);
        (moment1[i], moment2[i]) = (m, v);
    }
    memory.store(&op.params, &params);
    memory.store(&op.moment1, &moment1);
    memory.store(&op.moment2, &moment2);
}

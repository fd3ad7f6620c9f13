//! Gradient norm and AdamW: one pass each over flat memory.

use std::ops::Range;

use super::{
    memory::{FLAT_PER_TASK, Task},
    simd::{Simd, fold, load_at, store_at, update},
};
use crate::op::{AdamW, GradNorm};

fn norm_parts(op: &GradNorm) -> usize {
    op.grads.len().div_ceil(FLAT_PER_TASK)
}

/// Elements (4 bytes) for the partial sums in f64.
pub(super) fn grad_norm_partials(op: &GradNorm) -> usize {
    2 * norm_parts(op)
}

pub(super) fn grad_norm_tasks(op: &GradNorm, stage: usize) -> usize {
    if stage == 0 { norm_parts(op) } else { 1 }
}

/// Numbers summed in f32 before the sum goes on in f64.
const NORM_RUN: usize = 1024;

#[inline(always)]
pub(super) fn run_grad_norm<S: Simd>(s: S, op: &GradNorm, task: Task) {
    let memory = task.memory;
    if task.stage == 0 {
        let Range { start, end } = task.range(op.grads.len(), FLAT_PER_TASK);
        let grads = memory.read(&op.grads, start, end);
        let mut total = 0.0f64;
        for run in grads.chunks(NORM_RUN) {
            let sum = fold!(s, run.len(), s.splat(0.0), |at, len, sum| {
                let g = load_at(s, run, at, len);
                s.fma(g, g, sum)
            });
            total += f64::from(s.reduce_add(sum));
        }
        // SAFETY: each task has its own slot.
        unsafe { *memory.partial(task.index) = total };
        return;
    }
    let mut total = 0.0f64;
    for part in 0..norm_parts(op) {
        // SAFETY: written in the stage before.
        total += unsafe { *memory.partial(part) };
    }
    let norm = (total.sqrt() / f64::from(memory.args.loss_scale)) as f32;
    // SAFETY: the only task of this stage.
    let results = unsafe { memory.write(&op.results, 0, op.results.len()) };
    let is_spike = op.spike_threshold > 0.0 && norm > op.spike_threshold;
    let is_blocked = memory.args.is_chained && results[3] == 0.0;
    let is_applied = norm.is_finite() && results[0].is_finite() && !is_spike && !is_blocked;
    results[1] = norm;
    results[2] = if op.grad_clip > 0.0 { (op.grad_clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    results[3] = f32::from(u8::from(is_applied));
}

pub(super) fn adamw_tasks(op: &AdamW) -> usize {
    op.params.len().div_ceil(FLAT_PER_TASK)
}

#[inline(always)]
pub(super) fn run_adamw<S: Simd>(s: S, op: &AdamW, task: Task) {
    let memory = task.memory;
    let results = memory.all(&op.results);
    let (clip_coef, is_applied) = (results[2], results[3] != 0.0);
    if !is_applied {
        return;
    }
    let (lr, update_count) = (f64::from(memory.args.lr), memory.args.update as i32);
    let correction1 = 1.0 - f64::from(op.beta1).powi(update_count);
    let correction2 = 1.0 - f64::from(op.beta2).powi(update_count);
    let step_size = s.splat((lr / correction1) as f32);
    let root_scale = s.splat((1.0 / correction2.sqrt()) as f32);
    let (beta1, beta2, eps) = (s.splat(op.beta1), s.splat(op.beta2), s.splat(op.eps));
    let (rest1, rest2) = (s.splat(1.0 - op.beta1), s.splat(1.0 - op.beta2));
    let grad_coef = s.splat(clip_coef / memory.args.loss_scale);

    let Range { mut start, end } = task.range(op.params.len(), FLAT_PER_TASK);
    let mut run = op.decay_runs.partition_point(|run| run.end <= start);
    while start < end {
        let run_end = op.decay_runs[run].end.min(end);
        let decay = if op.decay_runs[run].is_decayed { (1.0 - lr * f64::from(op.weight_decay)) as f32 } else { 1.0 };
        let decay = s.splat(decay);
        let grads = memory.read(&op.grads, start, run_end);
        // SAFETY: each task writes its own elements of three different tensors.
        let (params, moment1, moment2) = unsafe {
            (
                memory.write(&op.params, start, run_end),
                memory.write(&op.moment1, start, run_end),
                memory.write(&op.moment2, start, run_end),
            )
        };
        update!(s, params, |at, len, p| {
            let g = s.mul(load_at(s, grads, at, len), grad_coef);
            let m = s.fma(beta1, load_at(s, moment1, at, len), s.mul(rest1, g));
            let v = s.fma(beta2, load_at(s, moment2, at, len), s.mul(rest2, s.mul(g, g)));
            store_at(s, moment1, at, len, m);
            store_at(s, moment2, at, len, v);
            let denominator = s.fma(s.sqrt(v), root_scale, eps);
            s.fnma(step_size, s.div(m, denominator), s.mul(p, decay))
        });
        start = run_end;
        run += 1;
    }
}

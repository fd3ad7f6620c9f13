//! Activations on slices, the gated one, and fill.

use std::ops::Range;

use super::{
    memory::{FLAT_PER_TASK, ROWS_PER_TASK, Task},
    simd::{Simd, exp, load_at, sigmoid, store_at, update},
};
use crate::op::{Activation, Fill, Swiglu, SwigluBwd};

pub(super) fn tasks(rows: usize) -> usize {
    rows.div_ceil(ROWS_PER_TASK)
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// `gelu(x) = x·σ(2u)`, `u = √(2/π)(x + 0.044715x³)`: the tanh form, `½(1 + tanh u) = σ(2u)`.
/// Returns `σ(2u)` and `x²`.
#[inline(always)]
fn gelu_gate<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let squared = s.mul(x, x);
    let slope = s.fma(squared, s.splat(-2.0 * SQRT_2_OVER_PI * GELU_CUBIC), s.splat(-2.0 * SQRT_2_OVER_PI));
    let one = s.splat(1.0);
    (s.div(one, s.add(one, exp(s, s.mul(x, slope)))), squared)
}

/// Replaces `x` by `activation(x)`.
#[inline(always)]
pub(super) fn activate<S: Simd>(s: S, activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Gelu => update!(s, x, |_, _, x| s.mul(x, gelu_gate(s, x).0)),
        Activation::Silu => update!(s, x, |_, _, x| s.mul(x, sigmoid(s, x))),
        Activation::Relu => update!(s, x, |_, _, x| s.max(s.splat(0.0), x)),
    }
}

/// `dx *= activation'(pre)`, `post = activation(pre)`.
#[inline(always)]
pub(super) fn activate_bwd<S: Simd>(s: S, activation: Activation, pre: &[f32], dx: &mut [f32], post: &mut [f32]) {
    assert!(pre.len() == dx.len() && post.len() == dx.len());
    let one = s.splat(1.0);
    match activation {
        Activation::Gelu => update!(s, dx, |at, len, dx| {
            let x = load_at(s, pre, at, len);
            let (gate, squared) = gelu_gate(s, x);
            let value = s.mul(x, gate);
            store_at(s, post, at, len, value);
            let slope = s.fma(squared, s.splat(6.0 * SQRT_2_OVER_PI * GELU_CUBIC), s.splat(2.0 * SQRT_2_OVER_PI));
            s.mul(dx, s.fma(s.mul(value, s.sub(one, gate)), slope, gate))
        }),
        Activation::Silu => update!(s, dx, |at, len, dx| {
            let x = load_at(s, pre, at, len);
            let gate = sigmoid(s, x);
            let value = s.mul(x, gate);
            store_at(s, post, at, len, value);
            s.mul(dx, s.fma(value, s.sub(one, gate), gate))
        }),
        Activation::Relu => update!(s, dx, |at, len, dx| {
            let x = load_at(s, pre, at, len);
            store_at(s, post, at, len, s.max(s.splat(0.0), x));
            s.mul(dx, s.where_positive(x, one))
        }),
    }
}

#[inline(always)]
pub(super) fn run_swiglu<S: Simd>(s: S, op: &Swiglu, task: Task) {
    let memory = task.memory;
    for row in task.range(op.out.rows, ROWS_PER_TASK) {
        let (gate, up) = memory.row(&op.pre, row).split_at(op.out.cols);
        // SAFETY: each task writes its own rows.
        let out = unsafe { memory.row_mut(&op.out, row) };
        update!(s, out, |at, len, _| {
            let gate = load_at(s, gate, at, len);
            s.mul(s.mul(gate, sigmoid(s, gate)), load_at(s, up, at, len))
        });
    }
}

#[inline(always)]
pub(super) fn run_swiglu_bwd<S: Simd>(s: S, op: &SwigluBwd, task: Task) {
    let memory = task.memory;
    for row in task.range(op.out.rows, ROWS_PER_TASK) {
        let (gate, up) = memory.row(&op.pre, row).split_at(op.out.cols);
        let dout = memory.row(&op.dout, row);
        // SAFETY: each task writes its own rows of two different tensors.
        let (dpre, out) = unsafe { (memory.row_mut(&op.dpre, row), memory.row_mut(&op.out, row)) };
        let (dgate, dup) = dpre.split_at_mut(op.out.cols);
        update!(s, dgate, |at, len, _| {
            let gate = load_at(s, gate, at, len);
            let sigma = sigmoid(s, gate);
            let silu = s.mul(gate, sigma);
            let slope = s.fma(silu, s.sub(s.splat(1.0), sigma), sigma);
            s.mul(s.mul(load_at(s, dout, at, len), load_at(s, up, at, len)), slope)
        });
        update!(s, dup, |at, len, _| {
            let gate = load_at(s, gate, at, len);
            s.mul(load_at(s, dout, at, len), s.mul(gate, sigmoid(s, gate)))
        });
        update!(s, out, |at, len, _| {
            let gate = load_at(s, gate, at, len);
            s.mul(s.mul(gate, sigmoid(s, gate)), load_at(s, up, at, len))
        });
    }
}

pub(super) fn fill_tasks(op: &Fill) -> usize {
    op.out.len().div_ceil(FLAT_PER_TASK)
}

#[inline(always)]
pub(super) fn run_fill<S: Simd>(_: S, op: &Fill, task: Task) {
    let Range { start, end } = task.range(op.out.len(), FLAT_PER_TASK);
    // SAFETY: each task writes its own elements.
    unsafe { task.memory.write(&op.out, start, end) }.fill(op.value);
}

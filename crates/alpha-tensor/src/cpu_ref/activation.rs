//! Pointwise activations and their derivatives, the gated one, and fill.

use super::{Float, Memory};
use crate::op::{Activation, Fill, Swiglu, SwigluBwd};

/// `√(2/π)`.
const GELU_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const GELU_CUBIC: f64 = 0.044_715;

fn sigmoid<F: Float>(x: F) -> F {
    F::ONE / (F::ONE + (-x).exp())
}

/// `activation(x)`.
pub(super) fn value<F: Float>(activation: Activation, x: F) -> F {
    match activation {
        Activation::Gelu => {
            let [scale, cubic, half] = [GELU_SCALE, GELU_CUBIC, 0.5].map(F::from_f64);
            let tanh = (scale * (x + cubic * x * x * x)).tanh();
            half * x * (F::ONE + tanh)
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Relu if x < F::ZERO => F::ZERO,
        Activation::Relu => x,
    }
}

/// `activation'(x)`.
pub(super) fn derivative<F: Float>(activation: Activation, x: F) -> F {
    match activation {
        Activation::Gelu => {
            let [scale, cubic, half, three] = [GELU_SCALE, GELU_CUBIC, 0.5, 3.0].map(F::from_f64);
            let tanh = (scale * (x + cubic * x * x * x)).tanh();
            let inner = scale * (F::ONE + three * cubic * x * x);
            half * (F::ONE + tanh) + half * x * (F::ONE - tanh * tanh) * inner
        }
        Activation::Silu => sigmoid(x) * (F::ONE + x * (F::ONE - sigmoid(x))),
        Activation::Relu if x > F::ZERO => F::ONE,
        Activation::Relu => F::ZERO,
    }
}

pub(super) fn swiglu<F: Float>(op: &Swiglu, memory: &mut Memory<F>) {
    let [r, n] = [op.out.rows, op.out.cols];
    let pre = memory.load(&op.pre);
    let mut out = vec![F::ZERO; r * n];
    for i in 0..r {
        for j in 0..n {
            let (gate, up) = (pre[i * 2 * n + j], pre[i * 2 * n + n + j]);
            out[i * n + j] = value(Activation::Silu, gate) * up;
        }
    }
    memory.store(&op.out, &out);
}

pub(super) fn swiglu_bwd<F: Float>(op: &SwigluBwd, memory: &mut Memory<F>) {
    let [r, n] = [op.out.rows, op.out.cols];
    let (pre, dout) = (memory.load(&op.pre), memory.load(&op.dout));
    let mut dpre = vec![F::ZERO; r * 2 * n];
    let mut out = vec![F::ZERO; r * n];
    for i in 0..r {
        for j in 0..n {
            let (gate, up) = (pre[i * 2 * n + j], pre[i * 2 * n + n + j]);
            let dout = dout[i * n + j];
            dpre[i * 2 * n + j] = dout * up * derivative(Activation::Silu, gate);
            dpre[i * 2 * n + n + j] = dout * value(Activation::Silu, gate);
            out[i * n + j] = value(Activation::Silu, gate) * up;
        }
    }
    memory.store(&op.dpre, &dpre);
    memory.store(&op.out, &out);
}

pub(super) fn fill<F: Float>(op: &Fill, memory: &mut Memory<F>) {
    memory.store(&op.out, &vec![F::from_f32(op.value); op.out.len()]);
}

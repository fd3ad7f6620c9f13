//! Pointwise activations, the gated one, and fill.

use super::{Access, Operation, Shapes};
use crate::tensor::Tensor;

/// Activations that fit into a product's epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `½x(1 + tanh(√(2/π)(x + 0.044715x³)))` (Hendrycks and Gimpel, 2016, section 2), as GPT-2.
    Gelu,
    /// `x·σ(x)`.
    Silu,
    /// `max(x, 0)`; its derivative at 0 is 0.
    Relu,
}

/// `out = silu(gate) ∘ up` with `gate = pre[:, ..n]`, `up = pre[:, n..]` (Shazeer, 2020, equation 6).
#[derive(Clone, Debug, PartialEq)]
pub struct Swiglu {
    /// Gate and up projection side by side `[r, 2n]`.
    pub pre: Tensor,
    /// Output `[r, n]`.
    pub out: Tensor,
}

impl Operation for Swiglu {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.pre, Access::Read);
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.matrix("pre", &self.pre, self.out.rows, 2 * self.out.cols);
    }

    fn flops(&self) -> u64 {
        6 * self.out.len() as u64
    }
}

/// Backward of [`Swiglu`]; also computes its output again, which forward did not keep.
#[derive(Clone, Debug, PartialEq)]
pub struct SwigluBwd {
    /// Input of the forward `[r, 2n]`.
    pub pre: Tensor,
    /// Gradient of the output `[r, n]`.
    pub dout: Tensor,
    /// Gradient of the input `[r, 2n]`.
    pub dpre: Tensor,
    /// The forward's output again `[r, n]`.
    pub out: Tensor,
}

impl Operation for SwigluBwd {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.pre, Access::Read);
        f(&mut self.dout, Access::Read);
        f(&mut self.dpre, Access::Write);
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, n) = (self.out.rows, self.out.cols);
        shapes.matrix("pre", &self.pre, r, 2 * n);
        shapes.matrix("dpre", &self.dpre, r, 2 * n);
        shapes.matrix("dout", &self.dout, r, n);
    }

    fn flops(&self) -> u64 {
        14 * self.out.len() as u64
    }
}

/// `out = value` everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// The tensor.
    pub out: Tensor,
    /// The value.
    pub value: f32,
}

impl Operation for Fill {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.out, Access::Write);
    }

    fn check(&self, _: &mut Shapes) {}

    fn flops(&self) -> u64 {
        0
    }
}

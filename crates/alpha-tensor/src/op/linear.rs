//! Matrix products with bias, activation and residual in their epilogues.

use super::{Access, Activation, Operation, Shapes};
use crate::tensor::Tensor;

/// `pre = x · weight + bias`, `out = activation(pre) + residual`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Input `[r, k]`.
    pub x: Tensor,
    /// Weight `[k, n]`.
    pub weight: Tensor,
    /// Bias `[1, n]`.
    pub bias: Option<Tensor>,
    /// Applied to the product plus bias, which `pre` keeps for backward.
    pub activation: Option<Activation>,
    /// The value before the activation `[r, n]`; only with an activation.
    pub pre: Option<Tensor>,
    /// Added at the end `[r, n]`; never with an activation. May be the same tensor as `out`.
    pub residual: Option<Tensor>,
    /// Output `[r, n]`.
    pub out: Tensor,
}

impl Operation for Linear {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        if let Some(bias) = &mut self.bias {
            f(bias, Access::Read);
        }
        if let Some(residual) = &mut self.residual {
            f(residual, Access::Read);
        }
        if let Some(pre) = &mut self.pre {
            f(pre, Access::Write);
        }
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, k, n) = (self.x.rows, self.x.cols, self.out.cols);
        shapes.matrix("weight", &self.weight, k, n);
        shapes.matrix("out", &self.out, r, n);
        shapes.optional_vector("bias", self.bias.as_ref(), n);
        for (what, tensor) in [("pre", &self.pre), ("residual", &self.residual)] {
            if let Some(tensor) = tensor {
                shapes.matrix(what, tensor, r, n);
            }
        }
    }

    /// `2·r·k·n`, and one for each element of bias and residual, eight for an activation.
    fn flops(&self) -> u64 {
        let elements = self.out.len() as u64;
        let epilogue = u64::from(self.bias.is_some())
            + u64::from(self.residual.is_some())
            + if self.activation.is_some() { 8 } else { 0 };
        elements * (2 * self.x.cols as u64 + epilogue)
    }
}

/// `dx = (dy · weightᵀ) ∘ activation'(pre)`.
///
/// With an activation, `dx` is the gradient of the *pre-activation* that fed `x`, and the
/// activation's value is computed again into `post`, so that forward need not keep it.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearBwdInput {
    /// Gradient of the output `[r, n]`.
    pub dy: Tensor,
    /// Weight `[k, n]`.
    pub weight: Tensor,
    /// Activation that produced `x`, with the stored `pre` `[r, k]` and where `activation(pre)` goes `[r, k]`.
    pub activation: Option<(Activation, Tensor, Tensor)>,
    /// Gradient of the input `[r, k]`.
    pub dx: Tensor,
}

impl Operation for LinearBwdInput {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.dy, Access::Read);
        f(&mut self.weight, Access::Read);
        if let Some((_, pre, post)) = &mut self.activation {
            f(pre, Access::Read);
            f(post, Access::Write);
        }
        f(&mut self.dx, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, k, n) = (self.dx.rows, self.dx.cols, self.dy.cols);
        shapes.matrix("dy", &self.dy, r, n);
        shapes.matrix("weight", &self.weight, k, n);
        if let Some((_, pre, post)) = &self.activation {
            shapes.matrix("pre", pre, r, k);
            shapes.matrix("post", post, r, k);
        }
    }

    /// `2·r·k·n`, and sixteen for each element of an activation (value and derivative).
    fn flops(&self) -> u64 {
        let epilogue = if self.activation.is_some() { 16 } else { 0 };
        self.dx.len() as u64 * (2 * self.dy.cols as u64 + epilogue)
    }
}

/// `dweight (+)= xᵀ · dy`, `dbias (+)= Σ_rows dy`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearBwdWeight {
    /// Input of the forward `[r, k]`.
    pub x: Tensor,
    /// Gradient of the output `[r, n]`.
    pub dy: Tensor,
    /// Gradient of the weight `[k, n]`.
    pub dweight: Tensor,
    /// Gradient of the bias `[1, n]`.
    pub dbias: Option<Tensor>,
    /// Add to the gradients instead of assigning them.
    pub accumulate: bool,
}

impl Operation for LinearBwdWeight {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        let access = Access::of_gradient(self.accumulate);
        f(&mut self.x, Access::Read);
        f(&mut self.dy, Access::Read);
        f(&mut self.dweight, access);
        if let Some(dbias) = &mut self.dbias {
            f(dbias, access);
        }
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.equal("rows of dy", self.dy.rows, self.x.rows);
        shapes.matrix("dweight", &self.dweight, self.x.cols, self.dy.cols);
        shapes.optional_vector("dbias", self.dbias.as_ref(), self.dy.cols);
    }

    /// `2·r·k·n`, and `r·n` for the bias.
    fn flops(&self) -> u64 {
        let bias = if self.dbias.is_some() { self.dy.len() as u64 } else { 0 };
        2 * self.x.rows as u64 * self.dweight.len() as u64 + bias
    }
}

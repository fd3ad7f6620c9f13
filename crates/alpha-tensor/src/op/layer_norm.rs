//! Layer normalisation (Ba et al., 2016, equation 4) over the columns of each row.

use super::{Access, Operation, Shapes};
use crate::tensor::Tensor;

/// `y = (x − mean)·rstd·weight + bias`, `rstd = 1/√(var + eps)`, biased variance.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Input `[r, c]`.
    pub x: Tensor,
    /// Scale `[1, c]`.
    pub weight: Tensor,
    /// Shift `[1, c]`.
    pub bias: Option<Tensor>,
    /// Output `[r, c]`.
    pub y: Tensor,
    /// Mean of each row `[1, r]`, kept for backward.
    pub mean: Tensor,
    /// Reciprocal standard deviation of each row `[1, r]`, kept for backward.
    pub rstd: Tensor,
    /// Added to the variance.
    pub eps: f32,
}

impl Operation for LayerNorm {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        if let Some(bias) = &mut self.bias {
            f(bias, Access::Read);
        }
        f(&mut self.y, Access::Write);
        f(&mut self.mean, Access::Write);
        f(&mut self.rstd, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, c) = (self.x.rows, self.x.cols);
        shapes.matrix("y", &self.y, r, c);
        shapes.vector("weight", &self.weight, c);
        shapes.optional_vector("bias", self.bias.as_ref(), c);
        shapes.vector("mean", &self.mean, r);
        shapes.vector("rstd", &self.rstd, r);
    }

    fn flops(&self) -> u64 {
        8 * self.x.len() as u64
    }
}

/// Backward of [`LayerNorm`]. With `x̂ = (x − mean)·rstd` and `g = dy ∘ weight`:
/// `dx (+)= rstd·(g − mean(g) − x̂·mean(g ∘ x̂))`, `dweight (+)= Σ_r dy ∘ x̂`, `dbias (+)= Σ_r dy`.
///
/// `dx` is added to when `accumulate_dx`: the residual stream's gradient bypasses the norm.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNormBwd {
    /// Input of the forward `[r, c]`.
    pub x: Tensor,
    /// Scale `[1, c]`.
    pub weight: Tensor,
    /// Kept by forward `[1, r]`.
    pub mean: Tensor,
    /// Kept by forward `[1, r]`.
    pub rstd: Tensor,
    /// Gradient of the output `[r, c]`.
    pub dy: Tensor,
    /// Gradient of the input `[r, c]`.
    pub dx: Tensor,
    /// Gradient of the scale `[1, c]`.
    pub dweight: Tensor,
    /// Gradient of the shift `[1, c]`.
    pub dbias: Option<Tensor>,
    /// Add to `dx` instead of assigning it.
    pub accumulate_dx: bool,
    /// Add to `dweight` and `dbias` instead of assigning them.
    pub accumulate: bool,
}

impl Operation for LayerNormBwd {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        let access = Access::of_gradient(self.accumulate);
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        f(&mut self.mean, Access::Read);
        f(&mut self.rstd, Access::Read);
        f(&mut self.dy, Access::Read);
        f(&mut self.dx, Access::of_gradient(self.accumulate_dx));
        f(&mut self.dweight, access);
        if let Some(dbias) = &mut self.dbias {
            f(dbias, access);
        }
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, c) = (self.x.rows, self.x.cols);
        shapes.matrix("dy", &self.dy, r, c);
        shapes.matrix("dx", &self.dx, r, c);
        shapes.vector("weight", &self.weight, c);
        shapes.vector("mean", &self.mean, r);
        shapes.vector("rstd", &self.rstd, r);
        shapes.vector("dweight", &self.dweight, c);
        shapes.optional_vector("dbias", self.dbias.as_ref(), c);
    }

    fn flops(&self) -> u64 {
        14 * self.x.len() as u64
    }
}

//! The language-model head, `logits = x · weightᵀ`, fused with cross-entropy in chunks of
//! tokens, so that the logits of a whole batch never exist at once.

use super::{Access, Operation, Shapes};
use crate::tensor::Tensor;

/// A target that counts neither in the loss nor in the gradient.
pub const IGNORED_TARGET: u32 = u32::MAX;

/// `loss[r] = logsumexp(logits[r]) − logits[r, targets[r]]`, 0 for ignored targets.
/// Leaves `dlogits = (softmax(logits) − onehot(target))·grad_scale·loss_scale` (0 for ignored rows) in
/// `scratch`, in a layout of the backend's choice; only [`HeadBwd`] may read it.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Tokens of this chunk `[r, c]`.
    pub x: Tensor,
    /// Head weight `[vocab, c]`.
    pub weight: Tensor,
    /// Targets of this chunk, u32 `[1, r]`.
    pub targets: Tensor,
    /// Chunk of logits, then their gradient: `r·vocab` elements.
    pub scratch: Tensor,
    /// Loss of each token `[1, r]`.
    pub loss: Tensor,
    /// `Some(1 / tokens of the whole step)` when training; `None` leaves `scratch` undefined.
    pub grad_scale: Option<f32>,
}

impl Operation for CrossEntropy {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        f(&mut self.targets, Access::Read);
        f(&mut self.scratch, Access::Write);
        f(&mut self.loss, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let r = self.x.rows;
        shapes.equal("columns of weight", self.weight.cols, self.x.cols);
        shapes.vector("targets", &self.targets, r);
        shapes.vector("loss", &self.loss, r);
        shapes.equal("elements of scratch", self.scratch.len(), r * self.weight.rows);
    }

    /// `2·r·vocab·c`, and five (seven with the gradient) for each logit.
    fn flops(&self) -> u64 {
        let logits = (self.x.rows * self.weight.rows) as u64;
        logits * (2 * self.x.cols as u64 + if self.grad_scale.is_some() { 7 } else { 5 })
    }
}

/// `dx = dlogits · weight`, `dweight (+)= dlogitsᵀ · x`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadBwd {
    /// Tokens of this chunk `[r, c]`.
    pub x: Tensor,
    /// Head weight `[vocab, c]`.
    pub weight: Tensor,
    /// The gradient that [`CrossEntropy`] left: `r·vocab` elements.
    pub scratch: Tensor,
    /// Gradient of this chunk's input `[r, c]`.
    pub dx: Tensor,
    /// Gradient of the head weight `[vocab, c]`.
    pub dweight: Tensor,
    /// Add to `dweight` instead of assigning it.
    pub accumulate: bool,
}

impl Operation for HeadBwd {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        f(&mut self.scratch, Access::Read);
        f(&mut self.dx, Access::Write);
        f(&mut self.dweight, Access::of_gradient(self.accumulate));
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, c) = (self.x.rows, self.x.cols);
        shapes.equal("columns of weight", self.weight.cols, c);
        shapes.matrix("dx", &self.dx, r, c);
        shapes.matrix("dweight", &self.dweight, self.weight.rows, c);
        shapes.equal("elements of scratch", self.scratch.len(), r * self.weight.rows);
    }

    /// Two products of `2·r·vocab·c`.
    fn flops(&self) -> u64 {
        4 * (self.x.rows * self.weight.len()) as u64
    }
}

/// `out = x · weightᵀ`: the logits themselves, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// Input `[r, c]`.
    pub x: Tensor,
    /// Head weight `[vocab, c]`.
    pub weight: Tensor,
    /// Output `[r, vocab]`.
    pub out: Tensor,
}

impl Operation for Logits {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        f(&mut self.weight, Access::Read);
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.equal("columns of weight", self.weight.cols, self.x.cols);
        shapes.matrix("out", &self.out, self.x.rows, self.weight.rows);
    }

    fn flops(&self) -> u64 {
        2 * (self.out.len() * self.x.cols) as u64
    }
}

/// `results.loss (+)= scale · Σ loss`, summed in row order, in f64 where there is f64.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSum {
    /// Loss of each token `[1, r]`.
    pub loss: Tensor,
    /// The results' loss slot `[1, 1]`.
    pub out: Tensor,
    /// Factor, for instance 1 / tokens of the whole step.
    pub scale: f32,
    /// Add instead of assigning.
    pub accumulate: bool,
}

impl Operation for LossSum {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.loss, Access::Read);
        f(&mut self.out, Access::of_gradient(self.accumulate));
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.vector("out", &self.out, 1);
    }

    fn flops(&self) -> u64 {
        self.loss.len() as u64
    }
}

//! Token and learned position embedding.

use super::{Access, Operation, Shapes};
use crate::tensor::Tensor;

/// `out[r] = wte[tokens[r]] + wpe[p + r mod block]`, `p` being
/// [`crate::backend::RunArgs::position`] (0 in training).
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Token ids, u32 `[1, r]`, all below the vocabulary size (checked by the host).
    pub tokens: Tensor,
    /// Token embedding `[vocab, c]`.
    pub wte: Tensor,
    /// Position embedding `[positions, c]`.
    pub wpe: Tensor,
    /// Output `[r, c]`.
    pub out: Tensor,
    /// Tokens a sequence.
    pub block: usize,
}

impl Operation for Embedding {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.tokens, Access::Read);
        f(&mut self.wte, Access::Read);
        f(&mut self.wpe, Access::Read);
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.vector("tokens", &self.tokens, self.out.rows);
        shapes.equal("columns of wte", self.wte.cols, self.out.cols);
        shapes.equal("columns of wpe", self.wpe.cols, self.out.cols);
        shapes.divides("block", self.block, self.out.rows);
    }

    fn flops(&self) -> u64 {
        self.out.len() as u64
    }

    /// Only the rows that are looked up are read.
    fn bytes(&self) -> u64 {
        self.tokens.bytes() + 2 * self.out.bytes() + (self.block.min(self.wpe.rows) * self.wpe.cols * 4) as u64
    }
}

/// Backward of [`Embedding`]: `dwte[tokens[r]] += dout[r]`; `dwpe (+)=` sums over sequences,
/// rows past `block` becoming zero when not accumulating.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingBwd {
    /// Token ids, u32 `[1, r]`.
    pub tokens: Tensor,
    /// Gradient of the output `[r, c]`.
    pub dout: Tensor,
    /// Gradient of the token embedding `[vocab, c]`; always added to.
    pub dwte: Tensor,
    /// Gradient of the position embedding `[positions, c]`.
    pub dwpe: Tensor,
    /// Tokens a sequence.
    pub block: usize,
    /// Add to `dwpe` instead of assigning it.
    pub accumulate: bool,
}

impl Operation for EmbeddingBwd {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.tokens, Access::Read);
        f(&mut self.dout, Access::Read);
        f(&mut self.dwte, Access::ReadWrite);
        f(&mut self.dwpe, Access::of_gradient(self.accumulate));
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.vector("tokens", &self.tokens, self.dout.rows);
        shapes.equal("columns of dwte", self.dwte.cols, self.dout.cols);
        shapes.equal("columns of dwpe", self.dwpe.cols, self.dout.cols);
        shapes.divides("block", self.block, self.dout.rows);
    }

    fn flops(&self) -> u64 {
        2 * self.dout.len() as u64
    }

    /// Of `dwte` only the rows that are looked up are touched.
    fn bytes(&self) -> u64 {
        self.tokens.bytes() + 3 * self.dout.bytes() + self.dwpe.bytes() * if self.accumulate { 2 } else { 1 }
    }
}

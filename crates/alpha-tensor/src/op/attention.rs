//! Causal self-attention. Scores are scaled by `1/√hd` before the mask, `hd = c / heads`.
//!
//! `qkv` holds queries, keys and values side by side: row = token, columns `[q | k | v]`,
//! head `h` in columns `h·hd..(h+1)·hd` of each third, as GPT-2's `c_attn` leaves it.

use super::{Access, DropoutMask, Operation, Shapes};
use crate::tensor::Tensor;

/// `out = softmax(q·kᵀ/√hd + mask)·v` per sequence and head; keeps only the log-sum-exp
/// of each score row, never a `T×T` matrix (Dao et al., 2022, algorithm 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// `[b·t, 3c]`.
    pub qkv: Tensor,
    /// `[b·t, c]`.
    pub out: Tensor,
    /// Log-sum-exp of the scaled scores `[b·heads, t]`.
    pub lse: Tensor,
    /// Sequences.
    pub batch: usize,
    /// Heads; divides `c`.
    pub heads: usize,
    /// Dropout on the probabilities: row `(b·heads + h)·t + i`, column `j`.
    pub dropout: Option<DropoutMask>,
}

impl Operation for Attention {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.qkv, Access::Read);
        f(&mut self.out, Access::Write);
        f(&mut self.lse, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, c) = (self.out.rows, self.out.cols);
        shapes.divides("batch", self.batch, r);
        shapes.divides("heads", self.heads, c);
        shapes.matrix("qkv", &self.qkv, r, 3 * c);
        shapes.equal("elements of lse", self.lse.len(), r * self.heads);
    }

    /// Two products over the `t(t+1)/2` scores under the mask, and five for each softmax element.
    fn flops(&self) -> u64 {
        let scores = scores(self.batch, self.out.rows);
        scores * (4 * self.out.cols as u64 + 5 * self.heads as u64)
    }
}

/// Backward of [`Attention`] (Dao et al., 2022, algorithm 4): probabilities are computed
/// again from `qkv` and `lse`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionBwd {
    /// `[b·t, 3c]`.
    pub qkv: Tensor,
    /// Forward's output `[b·t, c]`.
    pub out: Tensor,
    /// Forward's log-sum-exp `[b·heads, t]`.
    pub lse: Tensor,
    /// Gradient of `out` `[b·t, c]`.
    pub dout: Tensor,
    /// Gradient of `qkv` `[b·t, 3c]`.
    pub dqkv: Tensor,
    /// Sequences.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// The forward's dropout.
    pub dropout: Option<DropoutMask>,
}

impl Operation for AttentionBwd {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.qkv, Access::Read);
        f(&mut self.out, Access::Read);
        f(&mut self.lse, Access::Read);
        f(&mut self.dout, Access::Read);
        f(&mut self.dqkv, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (r, c) = (self.out.rows, self.out.cols);
        shapes.divides("batch", self.batch, r);
        shapes.divides("heads", self.heads, c);
        shapes.matrix("qkv", &self.qkv, r, 3 * c);
        shapes.matrix("dqkv", &self.dqkv, r, 3 * c);
        shapes.matrix("dout", &self.dout, r, c);
        shapes.equal("elements of lse", self.lse.len(), r * self.heads);
    }

    /// Five products over the scores under the mask, and eight for each softmax element.
    fn flops(&self) -> u64 {
        let scores = scores(self.batch, self.out.rows);
        scores * (10 * self.out.cols as u64 + 8 * self.heads as u64) + 2 * self.out.len() as u64
    }
}

/// Scores under the causal mask of all sequences, for one head.
fn scores(batch: usize, rows: usize) -> u64 {
    let block = (rows / batch.max(1)) as u64;
    batch as u64 * block * (block + 1) / 2
}

/// Attention of `n` new tokens of one sequence at positions `p..p+n`, `p` being
/// [`crate::backend::RunArgs::position`]: stores their keys and values in the cache, then
/// attends to everything up to each token. Same arithmetic as [`Attention`].
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionCached {
    /// `[n, 3c]`.
    pub qkv: Tensor,
    /// `[block, c]`.
    pub k_cache: Tensor,
    /// `[block, c]`.
    pub v_cache: Tensor,
    /// `[n, c]`.
    pub out: Tensor,
    /// Heads.
    pub heads: usize,
}

impl Operation for AttentionCached {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.qkv, Access::Read);
        f(&mut self.k_cache, Access::ReadWrite);
        f(&mut self.v_cache, Access::ReadWrite);
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        let (n, c) = (self.out.rows, self.out.cols);
        shapes.divides("heads", self.heads, c);
        shapes.matrix("qkv", &self.qkv, n, 3 * c);
        shapes.equal("columns of k_cache", self.k_cache.cols, c);
        shapes.matrix("v_cache", &self.v_cache, self.k_cache.rows, c);
    }

    /// As [`Attention`] with a full cache: the position is not known here.
    fn flops(&self) -> u64 {
        let scores = (self.qkv.rows * self.k_cache.rows) as u64;
        scores * (4 * self.out.cols as u64 + 5 * self.heads as u64)
    }
}

//! Gradient norm and AdamW over the flat parameter regions.

use super::{Access, Operation, Shapes};
use crate::tensor::{RESULTS_LEN, Tensor};

/// `results.grad_norm = ‖grads‖₂ / loss_scale`, `results.clip_coef = min(1, grad_clip/(norm + 1e-6))`
/// (1 with `grad_clip = 0`), and `results.is_applied` = 1 unless the norm or the loss is not
/// finite, the norm exceeds `spike_threshold`, or the run is chained to one that was not applied
/// ([`crate::backend::RunArgs::is_chained`]): then [`AdamW`] leaves everything as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct GradNorm {
    /// All gradients, flat `[1, n]`; the padding between tensors is zero.
    pub grads: Tensor,
    /// The results region, whole.
    pub results: Tensor,
    /// 0 = no clipping.
    pub grad_clip: f32,
    /// 0 = no guard.
    pub spike_threshold: f32,
}

impl Operation for GradNorm {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.grads, Access::Read);
        f(&mut self.results, Access::ReadWrite);
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.vector("results", &self.results, RESULTS_LEN);
    }

    fn flops(&self) -> u64 {
        2 * self.grads.len() as u64
    }
}

/// A run of consecutive parameters that are decayed, or are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecayRun {
    /// First element after the run, counted from the start of the region. Runs are in order
    /// and cover the region; each begins where the one before ends.
    pub end: usize,
    /// Whether weight decay applies.
    pub is_decayed: bool,
}

/// AdamW (Loshchilov and Hutter, 2019, algorithm 2, with the learning rate also scaling the
/// decay, as in PyTorch). With `g = clip_coef·grad/loss_scale`, `t` = updates applied so far + 1
/// ([`crate::backend::RunArgs::update`]):
///
/// `m = β₁m + (1−β₁)g`, `v = β₂v + (1−β₂)g²`,
/// `p = p·(1 − lr·wd) − lr·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + eps)`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Flat `[1, n]`.
    pub params: Tensor,
    /// Flat `[1, n]`.
    pub grads: Tensor,
    /// Flat `[1, n]`.
    pub moment1: Tensor,
    /// Flat `[1, n]`.
    pub moment2: Tensor,
    /// The results region: `clip_coef` and `is_applied` are read.
    pub results: Tensor,
    /// Which parameters are decayed.
    pub decay_runs: Vec<DecayRun>,
    /// β₁.
    pub beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the decayed runs.
    pub weight_decay: f32,
}

impl Operation for AdamW {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.params, Access::ReadWrite);
        f(&mut self.grads, Access::Read);
        f(&mut self.moment1, Access::ReadWrite);
        f(&mut self.moment2, Access::ReadWrite);
        f(&mut self.results, Access::Read);
    }

    fn check(&self, shapes: &mut Shapes) {
        let n = self.params.len();
        for (what, tensor) in [("grads", &self.grads), ("moment1", &self.moment1), ("moment2", &self.moment2)] {
            shapes.equal(what, tensor.len(), n);
        }
        shapes.vector("results", &self.results, RESULTS_LEN);
        shapes.equal("end of the last decay run", self.decay_runs.last().map_or(0, |run| run.end), n);
    }

    fn flops(&self) -> u64 {
        14 * self.params.len() as u64
    }
}

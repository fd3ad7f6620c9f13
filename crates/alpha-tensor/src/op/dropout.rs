//! Dropout with masks that are computed, not stored.

use super::{Access, Operation, Shapes};
use crate::{
    rng::{Key, Purpose},
    tensor::Tensor,
};

/// A mask: its probability of zero, and the site that sets it apart from all other masks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutMask {
    /// Probability that an element is dropped, in `(0, 1)`.
    pub p: f32,
    /// Number of the place in the model; same in forward and backward.
    pub site: u32,
}

impl DropoutMask {
    /// The mask's stream for one micro-step.
    pub fn key(&self, seed: u64, step: u64, micro_step: u32) -> Key {
        Key::new(seed, Purpose::Dropout).fold(step).fold(u64::from(micro_step)).fold(u64::from(self.site))
    }

    /// An element is kept when its random word is at least this.
    pub fn threshold(&self) -> u32 {
        (f64::from(self.p) * 4_294_967_296.0) as u32
    }

    /// The factor of a kept element.
    pub fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// Whether the element at (row, column) is kept: word `col % 2` of counter `[col / 2, row]`.
    #[inline(always)]
    pub fn keeps(key: Key, threshold: u32, row: usize, col: usize) -> bool {
        key.words([(col / 2) as u32, row as u32])[col % 2] >= threshold
    }
}

/// `out = residual + mask ∘ x / (1 − p)`; without residual also its own backward.
/// `out` may be the same tensor as `x` or as `residual`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Input `[r, n]`.
    pub x: Tensor,
    /// Added at the end `[r, n]`.
    pub residual: Option<Tensor>,
    /// Output `[r, n]`.
    pub out: Tensor,
    /// The mask.
    pub mask: DropoutMask,
}

impl Operation for Dropout {
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
        f(&mut self.x, Access::Read);
        if let Some(residual) = &mut self.residual {
            f(residual, Access::Read);
        }
        f(&mut self.out, Access::Write);
    }

    fn check(&self, shapes: &mut Shapes) {
        shapes.matrix("x", &self.x, self.out.rows, self.out.cols);
        if let Some(residual) = &self.residual {
            shapes.matrix("residual", residual, self.out.rows, self.out.cols);
        }
    }

    fn flops(&self) -> u64 {
        self.out.len() as u64 * (1 + u64::from(self.residual.is_some()))
    }
}

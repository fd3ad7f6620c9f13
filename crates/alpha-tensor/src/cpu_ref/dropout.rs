//! Dropout with computed masks.

use super::{Float, Memory};
use crate::{
    backend::RunArgs,
    op::{Dropout, DropoutMask},
    rng::Key,
};

/// One mask in one micro-step.
pub(super) struct Mask {
    key: Key,
    threshold: u32,
    scale: f32,
}

impl Mask {
    pub(super) fn new(mask: DropoutMask, args: &RunArgs) -> Mask {
        let key = mask.key(args.seed, args.step, args.micro_step);
        Mask { key, threshold: mask.threshold(), scale: mask.scale() }
    }

    /// The element's factor: 0 or `1/(1 − p)`.
    pub(super) fn factor<F: Float>(&self, row: usize, col: usize) -> F {
        if DropoutMask::keeps(self.key, self.threshold, row, col) { F::from_f32(self.scale) } else { F::ZERO }
    }
}

pub(super) fn dropout<F: Float>(op: &Dropout, args: &RunArgs, memory: &mut Memory<F>) {
    let mask = Mask::new(op.mask, args);
    let mut out = memory.load(&op.x);
    for (index, value) in out.iter_mut().enumerate() {
        *value = *value * mask.factor(index / op.x.cols, index % op.x.cols);
    }
    if let Some(residual) = &op.residual {
        for (value, residual) in out.iter_mut().zip(memory.load(residual)) {
            *value += residual;
        }
    }
    memory.store(&op.out, &out);
}

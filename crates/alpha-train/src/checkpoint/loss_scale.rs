//! The loss scale of a run in f16: as large as the gradients allow.

use serde::{Deserialize, Serialize};

/// Dynamic loss scaling (Micikevicius et al., 2018, "Mixed precision training", section 3.2; the numbers are those of
/// PyTorch's `GradScaler`): a gradient that overflows halves the scale, and its update is left out; 2000 updates without
/// an overflow double it. Scales are powers of two, so that scaling rounds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor of the loss.
    pub scale: f32,
    /// Steps since it changed.
    pub good_steps: u32,
}

const FIRST: f32 = 65536.0;
const SMALLEST: f32 = 1.0;
/// A larger scale gains nothing: gradients that are 0 in f16 even at 2²⁴ are too small to change an update in f32.
const LARGEST: f32 = 16_777_216.0;
const GROWTH_INTERVAL: u32 = 2000;

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { scale: FIRST, good_steps: 0 }
    }
}

impl LossScale {
    /// The scale after this many steps with finite gradients.
    #[must_use]
    pub fn after_good_steps(mut self, good_steps: usize) -> LossScale {
        for _ in 0..good_steps {
            self.good_steps += 1;
            if self.good_steps == GROWTH_INTERVAL {
                self = LossScale { scale: (2.0 * self.scale).min(LARGEST), good_steps: 0 };
            }
        }
        self
    }

    /// The scale after a step whose loss was finite and whose gradients were not; none where a smaller scale cannot help.
    #[must_use]
    pub fn after_overflow(self) -> Option<LossScale> {
        (self.scale > SMALLEST).then_some(LossScale { scale: self.scale / 2.0, good_steps: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_an_overflow_and_doubles_after_two_thousand_good_steps() {
        let first = LossScale::default();
        let halved = first.after_good_steps(1999).after_overflow().expect("it can shrink");
        assert_eq!(halved, LossScale { scale: 32768.0, good_steps: 0 });
        assert_eq!(halved.after_good_steps(1999), LossScale { scale: 32768.0, good_steps: 1999 });
        assert_eq!(halved.after_good_steps(2000), first);
        assert_eq!(halved.after_good_steps(1500).after_good_steps(500), halved.after_good_steps(2000));
    }

    #[test]
    fn it_has_bounds() {
        assert_eq!(LossScale::default().after_good_steps(100_000), LossScale { scale: LARGEST, good_steps: 0 });
        let overflows = std::iter::successors(Some(LossScale::default()), |scale| scale.after_overflow());
        assert_eq!(overflows.map(|scale| scale.scale).last(), Some(1.0));
    }
}

//! Coin flips and draws that anybody can recompute from a logged seed.
//!
//! Counter-based: draw (purpose, i, j) is a hash (BLAKE3) of seed, purpose, i and j, whatever was drawn before. A pair
//! that is repeated has a new number and so new draws.

use serde::{Deserialize, Serialize};

use crate::Arm;

/// The seed of every draw of a comparison, as the record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Randomization {
    /// 64 random bits.
    pub seed: u64,
}

/// What a draw decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Which arm of pair i starts first and gets the first folder.
    Pair,
    /// Which arm has the first turn in block j of pair i.
    Block,
    /// The training seed of pair i.
    TrainingSeed,
    /// The step whose update is checked in pair i.
    CheckedStep,
    /// Which later pair has its updates checked.
    CheckedPair,
    /// The signs of the projection of updates.
    Projection,
    /// Length of slice j of a pair of plain runs.
    Slice,
    /// Steps of plain runs.
    PlainSteps,
    /// Layouts that a claim is confirmed over.
    Layout,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Pair => "pair",
            Purpose::Block => "block",
            Purpose::TrainingSeed => "training seed",
            Purpose::CheckedStep => "checked step",
            Purpose::CheckedPair => "checked pair",
            Purpose::Projection => "projection",
            Purpose::Slice => "slice",
            Purpose::PlainSteps => "plain steps",
            Purpose::Layout => "layout",
        }
    }
}

impl Randomization {
    /// A seed that nobody can predict, from the operating system's hash randomness and the clock.
    pub fn fresh() -> Randomization {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let mut hasher = RandomState::new().build_hasher();
        if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            hasher.write_u128(now.as_nanos());
        }
        hasher.write_u32(std::process::id());
        // JSON numbers are exact up to 2^53 for every reader.
        Randomization { seed: hasher.finish() >> 11 }
    }

    /// 64 bits for `(purpose, i, j)`.
    pub fn bits(self, purpose: Purpose, i: u64, j: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(purpose.name().as_bytes());
        hasher.update(&i.to_le_bytes());
        hasher.update(&j.to_le_bytes());
        let bytes = hasher.finalize();
        bytes.as_bytes()[..8].iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// A fair coin.
    pub fn coin(self, purpose: Purpose, i: u64, j: u64) -> bool {
        self.bits(purpose, i, j) & 1 == 1
    }

    /// Which arm is first in `(purpose, i, j)`.
    pub fn order(self, purpose: Purpose, i: u64, j: u64) -> [Arm; 2] {
        if self.coin(purpose, i, j) { Arm::BOTH } else { [Arm::Candidate, Arm::Baseline] }
    }

    /// The training seed of pair `number`, the same for both arms; fits an i32.
    pub fn training_seed(self, number: u64) -> u64 {
        self.below(1 << 31, Purpose::TrainingSeed, number, 0)
    }

    /// A number in `0..n`; `n` is far below 2^64, so that the remainder's bias does not matter.
    pub fn below(self, n: u64, purpose: Purpose, i: u64, j: u64) -> u64 {
        self.bits(purpose, i, j) % n.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_are_fair_and_can_be_repeated() {
        let draws = Randomization { seed: 7 };
        let heads = |purpose| (0..10_000).filter(|i| draws.coin(purpose, *i, 3)).count();
        for purpose in [Purpose::Pair, Purpose::Block] {
            // Five standard deviations of 10 000 fair draws are 250.
            assert!((4_750..5_250).contains(&heads(purpose)), "{}", heads(purpose));
            assert_eq!(heads(purpose), heads(purpose));
        }
        let agree =
            (0..10_000).filter(|i| draws.coin(Purpose::Pair, *i, 0) == draws.coin(Purpose::Block, *i, 0)).count();
        assert!((4_750..5_250).contains(&agree));
        assert_ne!(Randomization::fresh(), Randomization::fresh());
    }
}

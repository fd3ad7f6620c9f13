//! The two arms of a comparison.

use serde::{Deserialize, Serialize};

/// Which trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// A: the last accepted trainer.
    Baseline,
    /// B: the changed one.
    Candidate,
}

impl Arm {
    /// Both, the baseline first.
    pub const BOTH: [Arm; 2] = [Arm::Baseline, Arm::Candidate];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Arm::Baseline => "baseline",
            Arm::Candidate => "candidate",
        }
    }

    /// Its place in an array of two.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Arm {
        match self {
            Arm::Baseline => Arm::Candidate,
            Arm::Candidate => Arm::Baseline,
        }
    }
}

//! The two arms of a comparison.

use serde::{Deserialize, Serialize};

/// One of the two trainers of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The last accepted trainer, A.
    Baseline,
    /// The changed trainer, B.
    Candidate,
}

impl Arm {
    /// Both, the baseline first.
    pub const BOTH: [Arm; 2] = [Arm::Baseline, Arm::Candidate];

    /// Its name in messages.
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

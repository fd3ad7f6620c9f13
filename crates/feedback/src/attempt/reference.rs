//! Compares an attempt's parent and candidate with the best tree that was accepted before.

use std::fmt;

use pairbench::verdict::{Estimate, Verdict};
use serde::{Deserialize, Serialize};

use crate::visible::short;

/// The parent and the candidate compared with the best accepted tree of the last commits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The commit.
    pub commit: String,
    /// The parent's gain over it; none if both build the same program, or it could not be measured.
    pub parent: Option<Beside>,
    /// The candidate's gain over it, if the parent may be slower.
    pub candidate: Option<Beside>,
    /// Why it could not be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeasured: Option<String>,
}

/// A measurement against the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Its record in the ledger.
    pub record: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its estimate.
    pub estimate: Option<Estimate>,
}

impl Beside {
    /// Whether it may be slower by more than ε.
    pub fn may_be_slower(&self, epsilon_pct: f64) -> bool {
        match self.verdict {
            Verdict::Slower => true,
            Verdict::Undecided => self.estimate.is_none_or(|estimate| estimate.speedup_pct < -epsilon_pct),
            Verdict::Faster | Verdict::Leaner | Verdict::Same | Verdict::Refused => false,
        }
    }
}

/// The estimate, or the verdict where there is none.
impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.estimate {
            Some(estimate) => write!(f, "{estimate}"),
            None => f.write_str(self.verdict.name()),
        }
    }
}

impl Reference {
    /// Whether the gain only takes back what was lost since.
    pub fn takes_back(&self) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.verdict != Verdict::Faster)
    }

    /// Whether a gain over the parent may be claimed: not if it takes back what was lost, nor if that could not be
    /// measured.
    pub fn allows_a_claim(&self) -> bool {
        !self.takes_back() && self.unmeasured.is_none()
    }
}

/// Lines for a commit's message.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = short(&self.commit);
        if let Some(why) = &self.unmeasured {
            return write!(
                f,
                "Reference: NOT measured against `{commit}`, the best accepted before, so no gain is claimed: {why}"
            );
        }
        let best = format!("`{commit}`, the best accepted before");
        match (&self.parent, &self.candidate) {
            (None, _) => write!(f, "Reference: the parent builds the same program as {best}"),
            (Some(parent), None) => write!(f, "Reference: the parent is {parent} beside {best}"),
            (Some(parent), Some(candidate)) => {
                let what = if self.takes_back() {
                    "Takes back a slowdown, no gain"
                } else {
                    "Reference (the smaller gain is claimed)"
                };
                write!(f, "{what}: beside {best}, the parent is {parent}, this commit {candidate}")
            }
        }
    }
}

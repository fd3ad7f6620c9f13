//! Whether two trainers do the same training: judged from what both recorded; no process is run here.
//!
//! Differences are relative to the baseline. A rule without evidence fails: nothing passes because it was not measured.
//! `docs/parity.md` says where the limits come from, and which check finds each of twelve broken trainers.

pub mod trajectory;
pub mod weights;
pub mod pair_log;
pub mod record;

mod check;
mod floor;
mod learning;
mod losses;
mod recorded;
pub mod sampling;
mod updates;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use self::{check::Check, floor::Floor, recorded::problems, updates::Distance};
use crate::{
    LoopError,
    config::metrics::Shows,
    parity::{trajectory::Trajectory, weights::UpdateCheck},
};

/// How much a change may alter the numbers; declared when a cycle starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Not at all: every bit stays the same.
    T0,
    /// Sums of floating-point numbers may be taken in another order.
    #[default]
    T1,
    /// Another precision or kernel: the same learning over several seeds.
    T2,
}

impl FromStr for Tier {
    type Err = LoopError;

    fn from_str(text: &str) -> Result<Tier, LoopError> {
        match text {
            "t0" | "T0" => Ok(Tier::T0),
            "t1" | "T1" => Ok(Tier::T1),
            "t2" | "T2" => Ok(Tier::T2),
            _ => Err(LoopError::usage(format!("`{text}` is not a tier of parity, expected `t0`, `t1` or `t2`"))),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::T0 => "T0",
            Tier::T1 => "T1",
            Tier::T2 => "T2",
        })
    }
}

/// A value of each trainer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arms<T> {
    /// The last accepted trainer's.
    pub baseline: T,
    /// The changed trainer's.
    pub candidate: T,
}

/// A pair of runs with one seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairEvidence {
    /// Of both runs.
    pub seed: u64,
    /// Every step.
    pub records: Arms<Trajectory>,
    /// Loss on held-out data after the last step, computed by the baseline's program. One pair needs it; for T2 a pair
    /// of every seed.
    pub held_out: Option<Arms<f64>>,
}

/// How far both trainers' weights moved over the same steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateEvidence {
    /// Steps done at the first save.
    pub from: u64,
    /// Steps done at the second.
    pub to: u64,
    /// The updates between them, with the same seed in both arms.
    pub moved: Arms<UpdateCheck>,
}

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was declared.
    pub tier: Tier,
    /// What the records show.
    pub shows: Shows,
    /// Optimiser steps that each run was told to make.
    pub steps: u64,
    /// Steps whose updates are checked one by one, beside a drawn step.
    pub alone: Vec<u64>,
    /// Every pair that was run.
    pub pairs: Vec<PairEvidence>,
    /// How much runs of the baseline differ.
    pub floor: Floor,
    /// Updates of single steps (those in `alone` and a drawn one, where `from` is `to − 1`) and of the whole run: from
    /// 0 to the last step or the one before.
    pub updates: Vec<UpdateEvidence>,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// What was declared.
    pub tier: Tier,
    /// Whether every check passed.
    pub passed: bool,
    /// Each rule, passed or not.
    pub checks: Vec<Check>,
}

impl Parity {
    /// Judges by the rules of the declared tier.
    pub fn judge(evidence: &Evidence) -> Parity {
        let mut checks = learning::checks(evidence);
        match evidence.tier {
            Tier::T0 => checks.extend(losses::same_bits(evidence)),
            Tier::T1 => checks.extend(losses::within_limits(evidence)),
            Tier::T2 => checks.extend(losses::equivalent(evidence)),
        }
        checks.extend(updates::checks(evidence));
        Parity { tier: evidence.tier, passed: checks.iter().all(|check| check.passed), checks }
    }

    /// The same with more checks, such as those of [`sampling`].
    #[must_use]
    pub fn with(mut self, checks: impl IntoIterator<Item = Check>) -> Parity {
        self.checks.extend(checks);
        self.passed = self.checks.iter().all(|check| check.passed);
        self
    }

    /// The checks that refuse.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// In a few words, for a report.
impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: Vec<String> = self.failures().map(ToString::to_string).collect();
        let is_rounded = self.checks.iter().any(|check| check.name == losses::DIGITS && check.found > Some(0.0));
        if failed.is_empty() {
            let digits = if is_rounded { " to the printed digits" } else { "" };
            write!(f, "{}{digits} holds, {} checks", self.tier, self.checks.len())
        } else {
            write!(f, "{} does not hold: {}", self.tier, failed.join("; "))
        }
    }
}

/// Rules about learning, judged against another commit than the baseline.
const BESIDE_ANCHOR: [&str; 2] = ["anchor_last_fifth", "anchor_held_out"];

/// Prefix of their names.
pub const ANCHOR: &str = "anchor";

/// Whether a judgement has them.
pub fn is_judged_beside_anchor(parity: &Parity) -> bool {
    parity.checks.iter().any(|check| check.name == BESIDE_ANCHOR[0])
}

/// Whether several T2 changes together still learn the same, from pairs with the commit before the first of them: the
/// same rules and limits as against the baseline. The loss on held-out data counts where it can be computed.
pub fn beside_anchor(pairs: &[PairEvidence], has_eval: bool) -> Vec<Check> {
    let [fifth, held_out] = losses::learned(pairs);
    let named = |check: Check, name: &str| Check { name: name.to_owned(), ..check };
    let mut checks = vec![named(fifth, BESIDE_ANCHOR[0])];
    checks.extend(has_eval.then(|| named(held_out, BESIDE_ANCHOR[1])));
    checks
}

#[cfg(test)]
mod tests;

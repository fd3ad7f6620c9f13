//! Ways to look faster without being faster, and how each is noticed. Each has a name.
//!
//! Many are impossible by construction: time is measured outside the process, folders, home and caches are new for each
//! run, seeds differ from pair to pair, the waiting arm is stopped, data and workload come from the baseline. The
//! others are found here.

use std::{fmt, path::PathBuf};

use crate::attempt::{Attempt, PairRow, VoidPair};
use globset::GlobSet;
use pairbench::{
    Arm,
    stats::{robust::median, signed_rank::p_greater},
    verdict::{log_of_pct, pct_of_log},
};
use serde::{Deserialize, Serialize};

/// Void pairs that end a comparison.
pub const MAX_VOIDS: usize = 3;
/// Share of the gain in steady steps that must remain over the whole run.
const WHOLE_SHARE: f64 = 0.5;
/// One-sided level at which less than that must be shown.
const MOVED_LEVEL: f64 = 0.02;
/// Below this share of a processor, no other program works.
const QUIET: f64 = 0.05;
/// Above this share another program works.
const BUSY: f64 = 0.15;
/// How far a step may seem to exceed measured peaks, which have errors of their own.
const ROOFLINE_SLACK: f64 = 1.1;

/// Something that makes the numbers worthless as a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name.
    pub name: String,
    /// What was found, and what it means.
    pub what: String,
}

impl Finding {
    fn new(name: &str, what: impl Into<String>) -> Finding {
        Finding { name: name.to_owned(), what: what.into() }
    }
}

/// `moved_work: …`, as a refusal says it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// A change of the instrument's own files.
pub fn sealed_files(changed: &[PathBuf], sealed: &GlobSet) -> Option<Finding> {
    let touched: Vec<String> =
        changed.iter().filter(|path| sealed.is_match(path)).map(|path| format!("`{}`", path.display())).collect();
    (!touched.is_empty()).then(|| {
        Finding::new(
            "instrument",
            format!(
                "the change touches files of the instrument ({}): that is a commit of its own \
                 (`alpha loop commit --instrument`), never a gain",
                touched.join(", ")
            ),
        )
    })
}

/// Pairs that did not count because of what the candidate did.
pub fn voids(voids: &[VoidPair]) -> Option<Finding> {
    let by = |arm| voids.iter().filter(|void| void.arm == arm).collect::<Vec<_>>();
    let candidate = by(Arm::Candidate);
    (candidate.len() >= MAX_VOIDS).then(|| {
        let last = candidate[candidate.len() - 1];
        Finding::new("other_turn", format!("{} pairs were spoiled by the candidate: it {}", candidate.len(), last.why))
    })
}

/// Work that was moved out of the steady steps: whole runs show less than half of the gain that the steady steps should
/// cause over the whole run, and not by chance.
pub fn moved_work(attempt: &Attempt) -> Option<Finding> {
    let of = |number: fn(&PairRow) -> f64| median(&attempt.measured().map(number).collect::<Vec<_>>());
    let (steady, whole) = (of(|pair| pair.log_ratio), of(|pair| pair.run_log_ratio));
    let missing: Vec<f64> =
        attempt.measured().map(|pair| WHOLE_SHARE * steady_share(pair) * pair.log_ratio - pair.run_log_ratio).collect();
    let is_gain = steady >= log_of_pct(attempt.epsilon_pct);
    (is_gain && p_greater(&missing) < MOVED_LEVEL).then(|| {
        Finding::new(
            "moved_work",
            format!(
                "steady steps are faster by {:.2} %, but whole runs by {:.2} %: work was moved out of the timed steps",
                pct_of_log(steady),
                pct_of_log(whole)
            ),
        )
    })
}

/// The share of a run's time that is steady steps, where a gain can show.
fn steady_share(pair: &PairRow) -> f64 {
    let total_s = pair.turns_s + (pair.ready_ms.iter().sum::<f64>() + pair.finish_ms.iter().sum::<f64>()) / 1e3;
    (pair.turns_s / total_s).clamp(0.0, 1.0)
}

/// A machine that is busy while the baseline has its turn, and only then. If other programs work all the time this
/// cannot be seen: they use whatever a slower arm leaves idle.
pub fn disturbed_baseline(attempt: &Attempt) -> Option<Finding> {
    let shares: Vec<[f64; 2]> = attempt.measured().map(|pair| pair.foreign_cpu_share).collect();
    let disturbed = shares.iter().filter(|[baseline, candidate]| *baseline > BUSY && *candidate < QUIET).count();
    (shares.len() >= 8 && disturbed * 4 > shares.len() * 3).then(|| {
        let baseline: Vec<f64> = shares.iter().map(|[baseline, _]| *baseline).collect();
        Finding::new(
            "disturbed_baseline",
            format!(
                "something uses {:.0} % of a processor while the baseline has its turn, and nothing while the candidate has",
                median(&baseline) * 100.0
            ),
        )
    })
}

/// A step faster than the machine's measured peaks allow. `flops` and `bytes` are the baseline's, of a step.
pub fn beyond_roofline(step_s: f64, flops: u64, gflops: f64) -> Option<Finding> {
    let reached = flops as f64 / step_s / 1e9;
    (step_s > 0.0 && gflops > 0.0 && reached > gflops * ROOFLINE_SLACK).then(|| {
        Finding::new(
            "beyond_roofline",
            format!("the step would run at {reached:.0} GFLOP/s where this machine's measured peak is {gflops:.0}"),
        )
    })
}

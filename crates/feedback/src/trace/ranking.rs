//! Where an attempt may pay off: kernels and the unexplained rest, ranked by their possible gain.
//!
//! Input are traces of several processes of one trainer. Shares are of the wall time of a step. If a kernel has the
//! share s and needs at least r of its present time, its potential is G = 1 / (1 − s(1 − r)) − 1: the whole step's gain
//! if this one kernel ran at the roofline. The score is ln(1 + G) × chance of success ÷ risk. The ranking does not
//! decide whether a change is a gain.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{LoopError, config::Area};

mod bootstrap;
mod chance;
mod roofline;
mod steps;
mod trace;

use self::{
    bootstrap::share_interval,
    chance::{Outlook, Prospects},
    roofline::{Floor, floor},
    steps::Steps,
};
pub use self::{
    chance::{Kind, PastAttempts},
    roofline::{Bound, Peaks, parse_peaks},
    trace::{Kernel, Trace, TracedRun, parse_kernels},
};

/// Version of [`Report`].
pub const SCHEMA: &str = "alpha.loop.next/1";

/// Name of the entry for time that no kernel covers.
pub const REST: &str = "rest/unexplained";

/// A shorter call is mostly its own start: waking threads or launching a kernel takes 2 to 10 µs.
const SHORT_CALL_MS: f64 = 0.02;

/// Fewer short calls in a step are not worth merging.
const MANY_CALLS: f64 = 4.0;

/// From this share of the roofline on, little is left and it is hard to gain.
const NEAR: f64 = 2.0 / 3.0;

/// No change makes a part of the step vanish completely.
const MOST_SAVED: f64 = 0.99;

/// The input of the ranking.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// One for each process.
    pub runs: &'a [TracedRun],
    /// Measured peaks; without them floors are unknown, and potentials are upper limits.
    pub peaks: Option<Peaks>,
    /// The ledger's attempts.
    pub past: &'a [PastAttempts],
    /// The configured areas.
    pub areas: &'a BTreeMap<String, Area>,
    /// Paths of the tree's files; areas name some of them.
    pub files: &'a [String],
    /// The smallest effect that this machine resolves; if it is unknown nothing is hidden.
    pub resolvable_pct: Option<f64>,
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Traced processes.
    pub processes: usize,
    /// Mean time of a step.
    pub step_ms: f64,
    /// The peaks that floors are computed from.
    pub peaks: Option<Peaks>,
    /// The smallest effect that this machine resolves.
    pub resolvable_pct: Option<f64>,
    /// The step by phases, the longest first.
    pub phases: Vec<Share>,
    /// Entries to try, the best first.
    pub ranked: Vec<Entry>,
    /// Parts too small to matter, the largest first.
    pub hidden: Vec<Hidden>,
    /// Parts whose figures cannot be true.
    pub quarantined: Vec<Hidden>,
    /// Remarks that the reader needs to judge the figures.
    pub notes: Vec<String>,
}

/// A part of the step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// A phase, or `phase/kernel`.
    pub name: String,
    /// Time in a step.
    pub time_ms: f64,
    /// Share of the step's time.
    pub share_pct: f64,
    /// The share's 95 % interval over processes; none with one process.
    pub share_interval_pct: Option<(f64, f64)>,
}

/// Something to try.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What and how much.
    #[serde(flatten)]
    pub share: Share,
    /// The kind of work.
    pub kind: Kind,
    /// Calls in a step.
    pub calls: Option<f64>,
    /// The least time that it needs; `None` if unknown.
    pub floor_ms: Option<f64>,
    /// The limit that the floor comes from.
    pub bound: Option<Bound>,
    /// Gain of the step if this part ran at its floor.
    pub potential_pct: f64,
    /// The same at the upper end of the share's interval.
    pub at_most_pct: f64,
    /// Probability of success.
    pub chance: f64,
    /// 1 + failed attempts in its areas + files that it spans.
    pub risk: f64,
    /// The number that decides the rank.
    pub score: f64,
    /// Areas that it belongs to.
    pub areas: Vec<String>,
    /// Files of these areas.
    pub files: Vec<String>,
    /// Attempts in these areas.
    pub attempts: u32,
    /// Those that were accepted.
    pub accepted: u32,
    /// A remark on its figures.
    pub remark: Option<String>,
}

/// Something that is not worth trying, or not credible.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hidden {
    /// What and how much.
    #[serde(flatten)]
    pub share: Share,
    /// Why it is not ranked.
    pub reason: String,
}

/// Ranks the parts of the step.
pub fn rank(basis: &Basis) -> Result<Report, LoopError> {
    let steps = Steps::new(basis.runs)?;
    let mut notes = steps.notes.clone();
    if basis.peaks.is_none() {
        notes.push("no measured peaks: floors are unknown, and each potential is what vanishing would bring".into());
    }
    if basis.resolvable_pct.is_none() {
        notes.push("what this machine resolves is not known yet: nothing is hidden".to_owned());
    }
    let prospects = Prospects::new(basis.areas, basis.files, basis.past);
    let (mut ranked, mut hidden, mut quarantined) = (Vec::new(), Vec::new(), Vec::new());
    for kernel in steps.mean_kernels() {
        let share = steps.share(&kernel.label(), |other| (&other.phase, &other.name) == (&kernel.phase, &kernel.name));
        match judge_kernel(&kernel, basis.peaks) {
            Err(beyond) => quarantined.push(Hidden { share, reason: beyond.to_string() }),
            Ok(judged) => {
                let outlook = prospects.outlook(&kernel.name, &share.name, judged.kind);
                ranked.push(entry(share, &judged, outlook));
            }
        }
    }
    if let Some(share) = steps.rest() {
        let judged = Judged {
            kind: Kind::Waiting,
            calls: None,
            floor_ms: Some(0.0),
            bound: None,
            remark: Some("time of the step that no kernel covers: waiting, reading back, preparing batches".to_owned()),
        };
        let outlook = prospects.outlook("unexplained", REST, judged.kind);
        ranked.push(entry(share, &judged, outlook));
    }
    let resolvable_pct = basis.resolvable_pct.unwrap_or(0.0);
    ranked.retain(|entry| {
        let matters = entry.at_most_pct >= resolvable_pct;
        if !matters {
            let reason =
                format!("at most +{:.1} %, and this machine resolves +{resolvable_pct:.1} %", entry.at_most_pct);
            hidden.push(Hidden { share: entry.share.clone(), reason });
        }
        matters
    });
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    hidden.sort_by(|a, b| b.share.time_ms.total_cmp(&a.share.time_ms));
    Ok(Report {
        schema: SCHEMA,
        processes: basis.runs.len(),
        step_ms: steps.mean_step_ms(),
        peaks: basis.peaks,
        resolvable_pct: basis.resolvable_pct,
        phases: steps.phases(),
        ranked,
        hidden,
        quarantined,
        notes,
    })
}

/// Gain of a step in per cent if `saved` of its time (0 to 1) were gone.
fn gain_pct(saved: f64) -> f64 {
    let saved = saved.clamp(0.0, MOST_SAVED);
    100.0 * saved / (1.0 - saved)
}

struct Judged {
    kind: Kind,
    calls: Option<f64>,
    floor_ms: Option<f64>,
    bound: Option<Bound>,
    remark: Option<String>,
}

/// A time that cannot be true.
#[derive(Debug, thiserror::Error)]
#[error(
    "beyond the roofline: {time_ms:.4} ms for work that takes at least {floor_ms:.4} ms; peaks or counters are wrong"
)]
struct BeyondRoofline {
    time_ms: f64,
    floor_ms: f64,
}

/// Judges what a kernel is bound by. `kernel` holds the mean of a step.
fn judge_kernel(kernel: &Kernel, peaks: Option<Peaks>) -> Result<Judged, BeyondRoofline> {
    let (floor_ms, bound, remark) = match floor(kernel, peaks) {
        Floor::Unknown => {
            (None, None, peaks.map(|_| "its flops or bytes are not recorded: its floor is unknown".into()))
        }
        Floor::Known { floor_ms, bound } => (Some(floor_ms), Some(bound), None),
        Floor::Cached { floor_ms } => {
            let remark = "faster than memory, so its data stays in a cache: the floor is that of its flops alone";
            (Some(floor_ms), Some(Bound::Memory), Some(remark.to_owned()))
        }
        Floor::Beyond { floor_ms } => return Err(BeyondRoofline { time_ms: kernel.time_ms, floor_ms }),
    };
    let is_short = |calls: f64| calls >= MANY_CALLS && kernel.time_ms / calls < SHORT_CALL_MS;
    let is_near = |floor_ms: f64| floor_ms >= NEAR * kernel.time_ms;
    let kind = match bound {
        Some(_) if floor_ms.is_some_and(is_near) => Kind::NearFloor,
        _ if kernel.calls.is_some_and(is_short) => Kind::Calls,
        Some(Bound::Memory) => Kind::Passes,
        Some(Bound::Compute) => Kind::Compute,
        None => Kind::Unknown,
    };
    Ok(Judged { kind, calls: kernel.calls, floor_ms, bound, remark })
}

fn entry(share: Share, judged: &Judged, outlook: Outlook) -> Entry {
    let ratio = match judged.floor_ms {
        Some(floor_ms) if share.time_ms > 0.0 => floor_ms / share.time_ms,
        _ => 0.0,
    };
    let potential_pct = gain_pct(share.share_pct / 100.0 * (1.0 - ratio));
    let most_pct = share.share_interval_pct.map_or(share.share_pct, |(_, high)| high);
    let Outlook { chance, risk, areas, files, attempts, accepted } = outlook;
    Entry {
        kind: judged.kind,
        calls: judged.calls,
        floor_ms: judged.floor_ms,
        bound: judged.bound,
        potential_pct,
        at_most_pct: gain_pct(most_pct / 100.0 * (1.0 - ratio)),
        score: (potential_pct / 100.0).ln_1p() * chance / risk,
        chance,
        risk,
        areas,
        files,
        attempts,
        accepted,
        remark: judged.remark.clone(),
        share,
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these values are exact")]
mod tests;

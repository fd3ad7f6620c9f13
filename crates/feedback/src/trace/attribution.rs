//! Where a gain comes from: the change of each phase and kernel between traced runs of both arms.
//!
//! Runs are traced in pairs, baseline and candidate one after the other, so that both see much the same load. Times are
//! of one step; *saved* is baseline − candidate, positive where the candidate is faster. Intervals are Student's t on
//! the differences of the pairs: few pairs are traced, and neither ranks nor resampling reach 95 % with three or four.
//! A disturbed pair widens them, so that they claim too little rather than too much.

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobSet;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{
    config::Area,
    trace::ranking::{REST, TracedRun},
};

mod table;

use self::table::plain;
pub use self::table::table;

/// Share of the gain that may come from outside the declared area.
const LET_THROUGH: f64 = 0.25;

/// Two-sided.
const LEVEL: f64 = 0.05;

/// A traced run of each arm, one right after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedPair {
    /// A run of the last accepted trainer.
    pub baseline: TracedRun,
    /// A run of the changed trainer.
    pub candidate: TracedRun,
}

/// How much one part of the step changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// `step`, a phase, `phase/kernel`, or [`REST`].
    pub name: String,
    /// Mean over the pairs.
    pub baseline_ms: f64,
    /// Mean over the pairs.
    pub candidate_ms: f64,
    /// Mean difference, positive where the candidate is faster.
    pub saved_ms: f64,
    /// Its 95 % interval.
    pub interval_ms: (f64, f64),
    /// `saved_ms` in per cent of the baseline's step.
    pub saved_pct: f64,
}

/// The conclusion for the declared area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The area got faster, and at most a quarter of the gain is seen outside.
    Inside,
    /// More than a quarter of the gain is outside, or the candidate's traces no longer name kernels: refused unless the
    /// area is widened with a reason.
    Outside,
    /// The traces are too noisy to show where the gain is: neither a refusal nor an attribution.
    NotResolved,
    /// There is nothing to attribute to: neither a refusal nor an attribution.
    NotAttributable,
}

/// Where a gain comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// The conclusion.
    pub finding: Finding,
    /// The conclusion in words.
    pub explanation: String,
    /// Traced pairs.
    pub pairs: usize,
    /// The change of the whole step; `None` if nothing could be attributed.
    pub step: Option<Change>,
    /// The change of everything that the area covers.
    pub inside: Option<Change>,
    /// The change of everything else.
    pub outside: Option<Change>,
    /// The changes of the phases, the largest first.
    pub phases: Vec<Change>,
    /// The changes of the kernels and of the rest that no kernel covers, the largest first.
    pub kernels: Vec<KernelChange>,
}

/// How much one kernel changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelChange {
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Whether the declared area covers it.
    pub is_in_area: bool,
}

/// Attributes a gain of `gain_pct`, as the verdict estimates it, to the declared `areas`.
///
/// The gain seen outside is the time saved beyond noise: by everything outside together, if its interval lies above 0,
/// else by the kernels whose own intervals do, at a level divided by their number (Bonferroni). An area without globs
/// of kernels covers nothing; a glob that matches [`REST`] covers the rest.
pub fn attribute(pairs: &[TracedPair], areas: &[&Area], gain_pct: f64) -> Attribution {
    let nothing = |finding: Finding, explanation: &str| Attribution {
        finding,
        explanation: explanation.to_owned(),
        pairs: pairs.len(),
        step: None,
        inside: None,
        outside: None,
        phases: Vec::new(),
        kernels: Vec::new(),
    };
    if let Some((finding, explanation)) = obstacle(pairs) {
        return nothing(finding, explanation);
    }
    let globs: Vec<GlobSet> = areas.iter().map(|area| area.kernels()).collect();
    let covers = |part: &Part| globs.iter().any(|set| set.is_match(&part.kernel) || set.is_match(&part.label));
    let table = Table::new(pairs);
    let steps = table.sum(&|_| true);
    let baseline_step_ms = mean(&steps.0.iter().map(|(before, _)| *before).collect::<Vec<_>>());
    if baseline_step_ms <= 0.0 {
        return nothing(Finding::NotAttributable, "not attributable: the traces hold no time");
    }
    let change = |name: &str, is_part: &dyn Fn(&Part) -> bool| table.sum(is_part).change(name, baseline_step_ms, LEVEL);
    let step = steps.change("step", baseline_step_ms, LEVEL);
    let inside = change("inside the area", &covers);
    let outside = change("outside the area", &|part| !covers(part));
    let outside_parts: Vec<_> = table.parts.iter().filter(|(part, _)| !covers(part)).collect();
    let level = LEVEL / outside_parts.len() as f64;
    let kernels_outside: Vec<Change> = outside_parts
        .iter()
        .map(|(part, series)| series.change(&part.label, baseline_step_ms, level))
        .filter(|change| change.interval_ms.0 > 0.0)
        .collect();
    let gain_ms = (baseline_step_ms * gain_pct / (100.0 + gain_pct)).max(0.0);
    let (finding, explanation) = find(&inside, &outside, &kernels_outside, gain_ms);
    let phases: BTreeSet<&str> = table.parts.keys().map(|part| part.phase.as_str()).collect();
    let mut phases: Vec<Change> = phases.into_iter().map(|phase| change(phase, &|part| part.phase == phase)).collect();
    let mut kernels: Vec<KernelChange> = table
        .parts
        .iter()
        .map(|(part, series)| KernelChange {
            change: series.change(&part.label, baseline_step_ms, LEVEL),
            is_in_area: covers(part),
        })
        .collect();
    let size = |change: &Change| change.saved_ms.abs();
    phases.sort_by(|a, b| size(b).total_cmp(&size(a)));
    kernels.sort_by(|a, b| size(&b.change).total_cmp(&size(&a.change)));
    Attribution {
        finding,
        explanation,
        pairs: pairs.len(),
        step: Some(step),
        inside: Some(inside),
        outside: Some(outside),
        phases,
        kernels,
    }
}

/// Why pairs cannot be attributed at all, and the conclusion.
fn obstacle(pairs: &[TracedPair]) -> Option<(Finding, &'static str)> {
    let names_no_kernels =
        |of: fn(&TracedPair) -> &TracedRun| pairs.iter().any(|pair| of(pair).trace.kernels.is_empty());
    if pairs.len() < 2 {
        let why = "not attributable: to tell a change from noise, at least 2 pairs must be traced";
        Some((Finding::NotAttributable, why))
    } else if names_no_kernels(|pair| &pair.baseline) {
        Some((Finding::NotAttributable, "not attributable: the baseline's traces name no kernels"))
    } else if names_no_kernels(|pair| &pair.candidate) {
        let why = "the candidate's traces name no kernels, the baseline's do: restore the trace";
        Some((Finding::Outside, why))
    } else {
        None
    }
}

/// The conclusion from the changes inside and outside the area; `kernels_outside` are those that saved time beyond
/// noise.
fn find(inside: &Change, outside: &Change, kernels_outside: &[Change], gain_ms: f64) -> (Finding, String) {
    let saved_outside_ms = if outside.interval_ms.0 > 0.0 {
        outside.saved_ms
    } else {
        kernels_outside.iter().map(|kernel| kernel.saved_ms).sum()
    };
    if saved_outside_ms > LET_THROUGH * gain_ms {
        let name = |kernel: &Change| format!("`{}` {:.3} ms", plain(&kernel.name), kernel.saved_ms);
        let named: Vec<String> = kernels_outside.iter().take(3).map(name).collect();
        let by = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
        let text = format!(
            "{saved_outside_ms:.3} ms saved outside the declared area{by}, more than a quarter of the {gain_ms:.3} ms gained: \
             declare the area that this belongs to, or widen with a reason"
        );
        (Finding::Outside, text)
    } else if inside.interval_ms.0 > 0.0 {
        let text = format!("{:.3} of {gain_ms:.3} ms gained are seen inside the declared area", inside.saved_ms);
        (Finding::Inside, text)
    } else {
        let (low, high) = inside.interval_ms;
        let text = format!(
            "the traces are too noisy to show where {gain_ms:.3} ms are gained: inside the area {low:+.3} to {high:+.3} ms"
        );
        (Finding::NotResolved, text)
    }
}

/// A kernel in its phase, or the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    phase: String,
    kernel: String,
    label: String,
}

/// Time of a part in one step, baseline and candidate, for each pair.
#[derive(Clone, Debug)]
struct Series(Vec<(f64, f64)>);

struct Table {
    parts: BTreeMap<Part, Series>,
}

impl Table {
    fn new(pairs: &[TracedPair]) -> Table {
        let is_timed = pairs.iter().all(|pair| pair.baseline.step_ms.is_some() && pair.candidate.step_ms.is_some());
        let of = |run: &TracedRun| parts_of(run, is_timed);
        let arms: Vec<_> = pairs.iter().map(|pair| (of(&pair.baseline), of(&pair.candidate))).collect();
        let names: BTreeSet<&Part> =
            arms.iter().flat_map(|(before, after)| before.keys().chain(after.keys())).collect();
        let time = |parts: &BTreeMap<Part, f64>, part: &Part| parts.get(part).copied().unwrap_or(0.0);
        let series = |part: &Part| Series(arms.iter().map(|arms| (time(&arms.0, part), time(&arms.1, part))).collect());
        let parts = names.into_iter().map(|part| (part.clone(), series(part))).collect();
        Table { parts }
    }

    fn sum(&self, is_part: &dyn Fn(&Part) -> bool) -> Series {
        let pairs = self.parts.values().next().map_or(0, |series| series.0.len());
        let mut sum = vec![(0.0, 0.0); pairs];
        for (_, series) in self.parts.iter().filter(|(part, _)| is_part(part)) {
            for (sum, (before, after)) in sum.iter_mut().zip(&series.0) {
                *sum = (sum.0 + before, sum.1 + after);
            }
        }
        Series(sum)
    }
}

/// Time of each kernel in one step, and with `is_timed` the rest of the recorded step.
fn parts_of(run: &TracedRun, is_timed: bool) -> BTreeMap<Part, f64> {
    let mut parts: BTreeMap<Part, f64> = BTreeMap::new();
    let mut kernels_ms = 0.0;
    for kernel in &run.trace.kernels {
        let ms = kernel.time_ms / run.trace.steps.max(1) as f64;
        let part = Part { phase: kernel.phase.clone(), kernel: kernel.name.clone(), label: kernel.label() };
        *parts.entry(part).or_default() += ms;
        kernels_ms += ms;
    }
    if let Some(step_ms) = run.step_ms.filter(|ms| is_timed && ms.is_finite()) {
        let (phase, kernel) = REST.split_once('/').unwrap_or(("", REST));
        let rest = Part { phase: phase.to_owned(), kernel: kernel.to_owned(), label: REST.to_owned() };
        parts.insert(rest, (step_ms - kernels_ms).max(0.0));
    }
    parts
}

impl Series {
    /// The change, with the t interval of the paired differences at a two-sided `level`.
    fn change(&self, name: &str, baseline_step_ms: f64, level: f64) -> Change {
        let (before, after): (Vec<f64>, Vec<f64>) = self.0.iter().copied().unzip();
        let saved: Vec<f64> = self.0.iter().map(|(before, after)| before - after).collect();
        let saved_ms = mean(&saved);
        let freedom = saved.len() as f64 - 1.0;
        let variance = saved.iter().map(|value| (value - saved_ms).powi(2)).sum::<f64>() / freedom;
        let t = StudentsT::new(0.0, 1.0, freedom).expect("there are two pairs or more").inverse_cdf(1.0 - level / 2.0);
        let half_ms = t * (variance / saved.len() as f64).sqrt();
        Change {
            name: name.to_owned(),
            baseline_ms: mean(&before),
            candidate_ms: mean(&after),
            saved_ms,
            interval_ms: (saved_ms - half_ms, saved_ms + half_ms),
            saved_pct: 100.0 * saved_ms / baseline_step_ms,
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests;

//! Whether a phase of the step became slower by more than the baseline differs from itself.
//!
//! A phase has a table of runs × steps; the first step is left out as warm-up. The quickest run at
//! each step leaves a series over the steps: its median is the phase's time, and its spread (median
//! absolute deviation × 1.4826, the standard deviation of a normal distribution) says how far the
//! baseline differs from itself. A phase regressed when its time is above 1.5 × the baseline's, the
//! excess above 3 × that spread, and above 5 % of the baseline's step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use pairbench::stats::robust::{mad_sd, median};
use serde::Serialize;

use super::SmokeRun;

const RATIO: f64 = 1.5;
const SPREADS: f64 = 3.0;
const SHARE_OF_STEP: f64 = 0.05;
/// Undisturbed runs of one program differ by less than this.
const AGREEMENT: f64 = 1.1;

/// One phase in both arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseChange {
    /// Its name in the records.
    pub phase: String,
    /// Its time in the baseline, 0 where it has none.
    pub baseline_ms: f64,
    /// Its time in the candidate.
    pub candidate_ms: f64,
    /// How far the baseline differs from itself.
    pub spread_ms: f64,
    /// Whether it became slower by all three criteria.
    pub regressed: bool,
}

impl fmt::Display for PhaseChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PhaseChange { phase, baseline_ms, candidate_ms, spread_ms, .. } = self;
        write!(f, "phase `{phase}` takes {candidate_ms:.3} ms, {baseline_ms:.3} ± {spread_ms:.3} ms in the baseline")
    }
}

/// All phases of both arms.
pub(super) struct Comparison {
    /// The slowest in the baseline first.
    pub(super) phases: Vec<PhaseChange>,
    pub(super) baseline_step_ms: f64,
    /// Why the machine may have been disturbed.
    pub(super) disagreement: Option<String>,
}

/// Compares whole runs; `None` where no record has a phase.
pub(super) fn compare(baseline: &[SmokeRun], candidate: &[SmokeRun]) -> Option<Comparison> {
    let (before, after) = (times(baseline), times(candidate));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let measured = |times: &BTreeMap<&str, Vec<f64>>, name| match times.get(name) {
        Some(steps) if !steps.is_empty() => (median(steps), mad_sd(steps)),
        _ => (0.0, 0.0),
    };
    let step_ms: f64 = names.iter().map(|name| measured(&before, *name).0).sum();
    let mut phases: Vec<PhaseChange> = names
        .iter()
        .map(|&phase| {
            let ((baseline_ms, spread_ms), (candidate_ms, _)) = (measured(&before, phase), measured(&after, phase));
            let excess_ms = candidate_ms - baseline_ms;
            let regressed = candidate_ms > RATIO * baseline_ms
                && excess_ms > SPREADS * spread_ms
                && excess_ms > SHARE_OF_STEP * step_ms;
            PhaseChange { phase: phase.to_owned(), baseline_ms, candidate_ms, spread_ms, regressed }
        })
        .collect();
    phases.sort_by(|a, b| b.baseline_ms.total_cmp(&a.baseline_ms));
    let disagreement = [("baseline", baseline), ("candidate", candidate)].into_iter().find_map(|(arm, runs)| {
        let mut steps_ms: Vec<f64> = runs.iter().map(median_step).collect();
        steps_ms.sort_by(f64::total_cmp);
        let [first, second, ..] = steps_ms[..] else { return None };
        (second > AGREEMENT * first).then(|| {
            format!("the two quickest runs of the {arm} took {first:.3} and {second:.3} ms a step: other load disturbs")
        })
    });
    (!phases.is_empty()).then_some(Comparison { phases, baseline_step_ms: step_ms, disagreement })
}

/// Of each phase, the time of the quickest run at each step after the first.
fn times(runs: &[SmokeRun]) -> BTreeMap<&str, Vec<f64>> {
    let names: BTreeSet<&str> =
        runs.iter().flat_map(|run| &run.rows).flat_map(|row| row.phases_ms.keys()).map(String::as_str).collect();
    let steps = runs.iter().map(|run| run.rows.len()).min().unwrap_or(0);
    let quickest = |name: &str, step: usize| {
        runs.iter().map(|run| time(&run.rows[step].phases_ms, name)).fold(f64::INFINITY, f64::min)
    };
    names.into_iter().map(|name| (name, (1..steps).map(|step| quickest(name, step)).collect())).collect()
}

/// A phase that is missing from a record took no time.
fn time(phases_ms: &BTreeMap<String, f64>, name: &str) -> f64 {
    phases_ms.get(name).copied().filter(|ms| ms.is_finite()).unwrap_or(0.0)
}

fn median_step(run: &SmokeRun) -> f64 {
    let step_ms = |phases_ms: &BTreeMap<String, f64>| phases_ms.values().filter(|ms| ms.is_finite()).sum();
    median(&run.rows.iter().skip(1).map(|row| step_ms(&row.phases_ms)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::{Ending, SmokeRow, SmokeVerdict, judge};
    use super::*;

    /// Shares as in a small GPT on a CPU, and as where work is spread evenly.
    const PROFILES: [[(&str, f64); 6]; 2] = [
        [("data", 0.005), ("fwd", 0.8), ("bwd", 1.4), ("gradnorm", 0.06), ("optim", 0.25), ("flush", 0.03)],
        [("data", 0.01), ("fwd", 1.0), ("bwd", 1.0), ("gradnorm", 0.3), ("optim", 1.0), ("flush", 0.6)],
    ];

    fn normal(random: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
    }

    fn between(random: &mut fastrand::Rng, low: f64, high: f64) -> f64 {
        low + (high - low) * random.f64()
    }

    /// A run on a virtual machine with neighbours: whole runs up to twice as slow, single steps 2 to
    /// 5 times as slow, single phases interrupted. `disturbance` 1 is a machine that is clearly busy.
    fn run(profile: &[(&str, f64)], disturbance: f64, random: &mut fastrand::Rng) -> SmokeRun {
        let mut pace = (0.05 * disturbance * normal(random)).exp();
        if random.f64() < 0.15 * disturbance {
            pace *= between(random, 1.2, 2.0);
        }
        let step_ms: f64 = profile.iter().map(|(_, ms)| ms).sum();
        let rows = (1..=5).map(|step| {
            let slow = if random.f64() < 0.12 * disturbance { between(random, 2.0, 5.0) } else { 1.0 };
            let mut phases_ms: Vec<f64> =
                profile.iter().map(|(_, ms)| ms * pace * slow * (0.08 * disturbance * normal(random)).exp()).collect();
            if random.f64() < 0.1 * disturbance {
                phases_ms[random.usize(..profile.len())] += between(random, 0.2, 2.0) * step_ms;
            }
            let phases_ms = profile.iter().map(|(name, _)| (*name).to_owned()).zip(phases_ms).collect();
            SmokeRow { step, loss: Some(1.0), grad_norm: Some(1.0), phases_ms }
        });
        SmokeRun { ending: Ending::Exited(0), stderr_tail: String::new(), rows: rows.collect() }
    }

    /// Three runs of each arm, and more while the verdict asks for them, as `alpha loop smoke` does.
    fn smoke(
        before: &[(&str, f64)],
        after: &[(&str, f64)],
        disturbance: f64,
        most_runs: usize,
        random: &mut fastrand::Rng,
    ) -> SmokeVerdict {
        let (mut baseline, mut candidate) = (Vec::new(), Vec::new());
        loop {
            baseline.push(run(before, disturbance, random));
            candidate.push(run(after, disturbance, random));
            if baseline.len() >= 3 {
                let verdict = judge(5, Some(&baseline), &candidate);
                if verdict.unsettled.is_none() || baseline.len() >= most_runs {
                    return verdict;
                }
            }
        }
    }

    fn false_alarms(disturbance: f64, most_runs: usize) -> usize {
        let mut random = fastrand::Rng::with_seed(1);
        let mut alarm = |trial: usize| {
            let profile = &PROFILES[trial % 2];
            !smoke(profile, profile, disturbance, most_runs, &mut random).passed
        };
        (0..200).filter(|trial| alarm(*trial)).count()
    }

    /// Doubled phases of at least a fifth of the step that pass.
    fn misses(disturbance: f64, most_runs: usize) -> usize {
        let mut random = fastrand::Rng::with_seed(2);
        let mut missed = |trial: usize| {
            let before = PROFILES[trial % 2];
            let step_ms: f64 = before.iter().map(|(_, ms)| ms).sum();
            let large: Vec<usize> = (0..before.len()).filter(|phase| before[*phase].1 >= 0.2 * step_ms).collect();
            let mut after = before;
            let phase = large[trial / 2 % large.len()];
            after[phase].1 *= 2.0;
            let verdict = smoke(&before, &after, disturbance, most_runs, &mut random);
            !verdict.problems.iter().any(|problem| problem.what.contains(&format!("`{}`", before[phase].0)))
        };
        (0..200).filter(|trial| missed(*trial)).count()
    }

    #[test]
    fn noise_is_told_from_a_doubled_phase() {
        for disturbance in [0.0, 0.5, 1.0] {
            assert_eq!((false_alarms(disturbance, 12), misses(disturbance, 12)), (0, 0), "{disturbance}");
        }
        assert_eq!(false_alarms(0.5, 3), 0, "on a machine that is somewhat busy, three runs are enough");
    }

    #[test]
    fn a_busier_machine_costs_runs_and_makes_no_false_alarms() {
        assert!(false_alarms(2.0, 3) > 0, "without more runs there would be nothing to settle");
        assert_eq!((false_alarms(1.5, 12), false_alarms(2.0, 12)), (0, 0));
    }

    fn steady(phases: &[(&str, f64)]) -> SmokeRun {
        run(phases, 0.0, &mut fastrand::Rng::with_seed(0))
    }

    #[test]
    fn each_criterion_alone_lets_through() {
        let regressed = |before: [&[(&str, f64)]; 2], after: &[(&str, f64)]| {
            let verdict = judge(5, Some(&before.map(steady)), &[steady(after), steady(after)]);
            !verdict.passed
        };
        let calm: &[(&str, f64)] = &[("fwd", 1.0), ("optim", 0.1)];
        assert!(regressed([calm; 2], &[("fwd", 1.52), ("optim", 0.1)]));
        assert!(!regressed([calm; 2], &[("fwd", 1.48), ("optim", 0.1)]), "below 1.5 times");
        assert!(!regressed([calm; 2], &[("fwd", 1.0), ("optim", 0.15)]), "below 5 % of the step");
        assert!(regressed([calm; 2], &[("fwd", 1.0), ("optim", 0.16)]));
        assert!(regressed([calm; 2], &[("fwd", 1.0), ("optim", 0.1), ("new", 0.06)]), "a phase the baseline lacks");
        // Steps of 1, 1, 2, 2 ms: median 1.5, spread 0.74.
        let mut restless = steady(&[("fwd", 1.0)]);
        for row in &mut restless.rows[3..] {
            row.phases_ms.insert("fwd".to_owned(), 2.0);
        }
        let judged = |after| judge(5, Some(&[restless.clone(), restless.clone()]), &[steady(&[("fwd", after)])]);
        assert!(judged(3.7).passed, "an excess of 2.2 ms is below 3 spreads");
        assert!(!judged(3.8).passed, "2.3 ms is above");
    }
}

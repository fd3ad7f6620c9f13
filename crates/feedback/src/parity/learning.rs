//! Rules of every tier: both trainers did all steps, on the same tokens, with finite numbers, and learned.

use super::{
    Evidence,
    check::Check,
    losses::{fails_if_any_in_pairs, numbered, quantities},
};
use crate::parity::trajectory::Trajectory;

/// A loss that changes by less than the first steps may differ proves nothing.
const LEAST_MOTION: f64 = 1e-4;

pub(super) fn checks(evidence: &Evidence) -> Vec<Check> {
    let mut checks = vec![
        steps(evidence),
        finite(evidence),
        of_runs(evidence, "loss_moved", |run| {
            let losses = || run.rows.iter().map(|row| row.loss);
            let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
            // Written so that a NaN counts as not moved.
            let has_moved = high - low > LEAST_MOTION * high.abs();
            (!has_moved).then(|| format!("losses of all steps are {low} to {high}"))
        }),
    ];
    checks.extend(evidence.shows.data_hashes.then(|| tokens(evidence)));
    checks
}

/// Every run has the steps that it was told to make, and both arms make as many beyond.
fn steps(evidence: &Evidence) -> Check {
    let mut found = breaches(evidence, |run| {
        let (found, expected) = (run.steps(), evidence.steps);
        (found as u64 != expected).then(|| format!("{found} steps, expected {expected}"))
    });
    found.extend(numbered(evidence).filter_map(|(pair, arms)| {
        let (baseline, candidate) = (arms.baseline.extra_steps, arms.candidate.extra_steps);
        (baseline != candidate).then(|| {
            format!("pair {pair}: the baseline made {baseline} steps beyond the last, the candidate {candidate}")
        })
    }));
    fails_if_any_in_pairs(evidence, "steps", &found)
}

/// A rule about each run alone.
fn of_runs(evidence: &Evidence, name: &str, breach: impl Fn(&Trajectory) -> Option<String>) -> Check {
    fails_if_any_in_pairs(evidence, name, &breaches(evidence, breach))
}

fn breaches(evidence: &Evidence, breach: impl Fn(&Trajectory) -> Option<String>) -> Vec<String> {
    let runs = numbered(evidence).flat_map(|(pair, arms)| {
        [("baseline", &arms.baseline), ("candidate", &arms.candidate)].map(|(arm, run)| (pair, arm, run))
    });
    runs.filter_map(|(pair, arm, run)| breach(run).map(|what| format!("pair {pair}, {arm}: {what}"))).collect()
}

/// Every loss, gradient norm, saved weight and evaluation is finite.
fn finite(evidence: &Evidence) -> Check {
    let mut found = breaches(evidence, |run| {
        run.rows.iter().enumerate().find_map(|(i, row)| {
            let quantity = quantities(evidence.shows).find(|quantity| !(quantity.of)(row).is_finite())?;
            Some(format!("{} of step {} is not finite", quantity.name, i + 1))
        })
    });
    let held_out = evidence.pairs.iter().filter_map(|pair| Some((pair.seed, pair.held_out?)));
    found.extend(
        held_out
            .filter(|(_, arms)| !arms.baseline.is_finite() || !arms.candidate.is_finite())
            .map(|(seed, arms)| format!("held-out loss of seed {seed}: {} and {}", arms.baseline, arms.candidate)),
    );
    for update in &evidence.updates {
        let both = update.moved.baseline.tensors.iter().chain(&update.moved.candidate.tensors);
        found.extend(
            both.filter(|tensor| !tensor.is_finite)
                .map(|tensor| format!("tensor `{}` in steps {} to {}", tensor.name, update.from, update.to)),
        );
    }
    fails_if_any_in_pairs(evidence, "finite", &found)
}

/// The hash covers all tokens so far, so it must differ from step to step and be equal in both trainers.
fn tokens(evidence: &Evidence) -> Check {
    let mut breaches = Vec::new();
    for (pair, arms) in numbered(evidence) {
        let hashes = |run: &Trajectory| run.rows.iter().map(|row| row.data_hash.clone()).collect::<Vec<_>>();
        let (baseline, candidate) = (hashes(&arms.baseline), hashes(&arms.candidate));
        let breach = baseline.iter().zip(&candidate).enumerate().find_map(|(i, (a, b))| {
            let step = i + 1;
            match (a, b) {
                (None, _) | (_, None) => Some(format!("step {step} has no `data_hash`")),
                (a, b) if a != b => Some(format!("from step {step} on other tokens were consumed")),
                (a, _) if i > 0 && *a == baseline[i - 1] => Some(format!("step {step} consumed no tokens")),
                _ => None,
            }
        });
        breaches.extend(breach.map(|what| format!("pair {pair}: {what}")));
    }
    fails_if_any_in_pairs(evidence, "tokens", &breaches)
}

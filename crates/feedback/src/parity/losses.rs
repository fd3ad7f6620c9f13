//! Losses and gradient norms of both trainers, step by step and in the end.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{
    Arms, Evidence, PairEvidence,
    check::{Check, Worst, relative_difference},
    floor::{FLOOR_FACTOR, widened},
};
use crate::{
    config::metrics::Shows,
    parity::trajectory::{StepRecord, Trajectory},
};

/// Means of losses, and the loss on held-out data, may differ by this much.
pub(super) const MEAN_LIMIT: f64 = 0.005;

/// Seeds that an equivalence test needs.
const T2_SEEDS: usize = 5;

/// Level of each of its two one-sided tests.
const T2_LEVEL: f64 = 0.05;

/// After step 20 differences may grow but not begin (`docs/parity.md`). While no loss or gradient norm has differed by
/// more than rounding explains, it may differ by this much in one step …
const CALM: f64 = 3e-6;
const ONSET: f64 = 2e-5;

/// … and after that grow by this factor, for the loss and for the gradient norm: training amplifies rounding.
const GROWTH: [f64; 2] = [30.0, 300.0];

/// A gradient norm is only reported by the trainer: from step 6 on, where its own limit is wide, it widens other limits
/// only as if it differed by no more than this.
const CREDITED_NORM: f64 = ONSET;
const CREDITED_FROM: usize = 6;

/// Where a rule about single steps holds.
pub(super) struct StepRange {
    /// Part of the rule's name.
    pub name: &'static str,
    /// First step, counted from 1.
    pub first: usize,
    /// Last step.
    pub last: usize,
    /// Largest relative difference of the loss and of the gradient norm; none where they may only grow gradually.
    pub limits: Option<[f64; 2]>,
}

/// The rules about single steps.
pub(super) const RANGES: [StepRange; 3] = [
    StepRange { name: "1_5", first: 1, last: 5, limits: Some([1e-4, 1e-3]) },
    StepRange { name: "6_20", first: 6, last: 20, limits: Some([1e-3, 1e-2]) },
    StepRange { name: "21_on", first: 21, last: usize::MAX, limits: None },
];

/// A number of a step's record.
pub(super) struct Quantity {
    pub name: &'static str,
    pub of: fn(&StepRecord) -> f64,
    /// The distance between two values that are recorded differently.
    pub unit: fn(&StepRecord) -> f64,
}

const LOSS: &str = "loss";

/// The numbers that are compared at every step.
pub(super) const QUANTITIES: [Quantity; 2] = [
    Quantity { name: LOSS, of: |row| row.loss, unit: |row| row.loss_unit },
    Quantity { name: "grad_norm", of: |row| row.grad_norm, unit: |row| row.grad_norm_unit },
];

/// Those that the records show.
pub(super) fn quantities(shows: Shows) -> impl Iterator<Item = &'static Quantity> {
    QUANTITIES.iter().filter(move |quantity| quantity.name == LOSS || shows.grad_norms)
}

/// Whether the records have enough digits for the limits of single steps: two values that differ by the limit must be
/// told apart.
fn digits(evidence: &Evidence) -> Check {
    let mut worst = Worst::default();
    for (q, quantity) in quantities(evidence.shows).enumerate() {
        for (pair, arms) in numbered(evidence) {
            let rows = arms.baseline.rows.iter().chain(&arms.candidate.rows);
            let rows =
                rows.zip((1..=arms.baseline.steps()).chain(1..)).filter(|(row, _)| (quantity.of)(row).is_finite());
            for (row, step) in rows {
                let (value, unit) = ((quantity.of)(row), (quantity.unit)(row));
                let share = if unit == 0.0 { 0.0 } else { unit / value.abs() };
                worst.record(share, digits_limit(step, q), || {
                    let name = quantity.name;
                    format!("pair {pair}, step {step}: {name} {value} is recorded in steps of {unit:.0e}; T2 needs fewer digits")
                });
            }
        }
    }
    worst.check(DIGITS, "no pair was run")
}

/// The name of the rule about digits.
pub(super) const DIGITS: &str = "digits";

/// The largest share of a value that its last digit can be. Where differences may only grow, the onset of one has to be
/// seen: a loss has the digits of the first steps, a norm, which is credited less, those of the range before.
fn digits_limit(step: usize, quantity: usize) -> f64 {
    let range = RANGES.iter().rev().find(|range| range.first <= step);
    range.and_then(|range| range.limits).unwrap_or([LATE_LOSS_DIGITS, MOST_DIGITS_LIMIT])[quantity]
}

/// The limit of losses from step 21 on.
const LATE_LOSS_DIGITS: f64 = 1e-4;

/// The largest limit of [`digits`].
pub(super) const MOST_DIGITS_LIMIT: f64 = 1e-2;

/// T0: every bit is the same.
pub(super) fn same_bits(evidence: &Evidence) -> Vec<Check> {
    let mut checks: Vec<Check> = quantities(evidence.shows)
        .map(|quantity| {
            let name = format!("{}_bits", quantity.name);
            let mut differing = Vec::new();
            for (pair, Arms { baseline, candidate }) in numbered(evidence) {
                let steps = baseline.rows.iter().zip(&candidate.rows).enumerate();
                differing.extend(steps.filter_map(|(i, (a, b))| {
                    let (a, b) = ((quantity.of)(a), (quantity.of)(b));
                    (a.to_bits() != b.to_bits()).then(|| format!("pair {pair}, step {}: {a} and {b}", i + 1))
                }));
            }
            fails_if_any_in_pairs(evidence, &name, &differing)
        })
        .collect();
    let differing: Vec<String> = held_out(&evidence.pairs)
        .filter(|(_, arms)| arms.baseline.to_bits() != arms.candidate.to_bits())
        .map(|(seed, arms)| format!("seed {seed}: {} and {}", arms.baseline, arms.candidate))
        .collect();
    checks.push(match held_out(&evidence.pairs).next() {
        None => unmeasured_held_out(),
        Some(_) => Check::fails_if_any("held_out", &differing),
    });
    checks.extend((!evidence.shows.all_digits).then(|| digits(evidence)));
    checks
}

/// T1: single steps within limits at first, within gradual growth later, means and the end within half a per cent.
pub(super) fn within_limits(evidence: &Evidence) -> Vec<Check> {
    let mut checks = Vec::new();
    for (r, range) in RANGES.iter().enumerate() {
        for (q, quantity) in quantities(evidence.shows).enumerate() {
            let floor = FLOOR_FACTOR * evidence.floor.steps[r][q];
            let mut worst = Worst::default();
            for (pair, arms) in numbered(evidence) {
                // Norms may widen the limit of norms, and of nothing else.
                let drifts = drifts(arms, if quantity.name == LOSS { CREDITED_NORM } else { f64::INFINITY });
                let steps = differences(&arms.baseline, &arms.candidate, quantity).enumerate();
                for (i, difference) in steps.take(range.last).skip(range.first - 1) {
                    let limit = match range.limits {
                        Some(limits) => limits[q],
                        None if drifts[i - 1] <= CALM => ONSET,
                        None => GROWTH[q] * drifts[i - 1],
                    };
                    // The first difference that can be seen is one in the last digit.
                    let limit = limit.max(last_digit(&arms.baseline.rows[i], quantity));
                    worst.record(difference, widened(limit, floor), || format!("pair {pair}, step {}", i + 1));
                }
            }
            let is_short = evidence.steps < range.first as u64;
            if !is_short {
                let name = format!("{}_{}", quantity.name, range.name);
                checks.push(worst.check(&name, &format!("no pair has step {}", range.first)));
            }
        }
    }
    let mut worst = Worst::default();
    for (pair, arms) in numbered(evidence) {
        for fifth in 0..5 {
            let [a, b] = [&arms.baseline, &arms.candidate].map(|run| mean_loss(run, fifth));
            worst.record(relative_difference(a, b), MEAN_LIMIT, || {
                format!("pair {pair}, fifth {}: mean loss {a} and {b}", fifth + 1)
            });
        }
    }
    checks.push(worst.check("loss_fifths", "no pair was run"));
    let mut worst = Worst::default();
    for (seed, Arms { baseline, candidate }) in held_out(&evidence.pairs) {
        let difference = relative_difference(baseline, candidate);
        worst.record(difference, MEAN_LIMIT, || format!("seed {seed}: {baseline} and {candidate}"));
    }
    checks.push(worst.check("held_out", HELD_OUT_MISSING));
    checks.extend((!evidence.shows.all_digits).then(|| digits(evidence)));
    checks
}

/// T2: over several seeds the mean loss of the last fifth and the held-out loss are equivalent.
pub(super) fn equivalent(evidence: &Evidence) -> Vec<Check> {
    learned(&evidence.pairs).to_vec()
}

/// The same for any pairs.
pub(super) fn learned(pairs: &[PairEvidence]) -> [Check; 2] {
    let last_fifth = pairs.iter().map(|pair| {
        let [a, b] = [&pair.records.baseline, &pair.records.candidate].map(|run| mean_loss(run, 4));
        (pair.seed, b / a - 1.0)
    });
    let end = held_out(pairs).map(|(seed, arms)| (seed, arms.candidate / arms.baseline - 1.0));
    [equivalence("loss_last_fifth", last_fifth), equivalence("held_out", end)]
}

/// Differences of runs with equal seeds are averaged first: they are not independent.
fn equivalence(name: &str, differences: impl Iterator<Item = (u64, f64)>) -> Check {
    let mut by_seed: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (seed, difference) in differences {
        by_seed.entry(seed).or_default().push(difference);
    }
    let of_seeds: Vec<f64> = by_seed.values().map(|runs| mean(runs)).collect();
    if of_seeds.len() < T2_SEEDS {
        return Check::unmeasured(name, &format!("found {} seeds, expected at least {T2_SEEDS}", of_seeds.len()));
    }
    let mut worst = Worst::default();
    let (mean, half_width) = tost(&of_seeds, T2_LEVEL);
    worst.record(mean.abs() + half_width, MEAN_LIMIT, || {
        format!("{} seeds: mean difference {mean:.2e} ± {half_width:.2e}, all of it must be inside", of_seeds.len())
    });
    worst.check(name, "")
}

/// Two one-sided t tests (Schuirmann, 1987): equivalent at `level` exactly when mean ± half width, the interval of
/// confidence 1 − 2·level, lies inside the margins. Returns the two.
fn tost(differences: &[f64], level: f64) -> (f64, f64) {
    let n = differences.len() as f64;
    let mean = mean(differences);
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let student = StudentsT::new(0.0, 1.0, n - 1.0).expect("at least two differences");
    (mean, student.inverse_cdf(1.0 - level) * (variance / n).sqrt())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Mean loss of a fifth of a run, counted from 0; NaN where it has no step.
fn mean_loss(run: &Trajectory, fifth: usize) -> f64 {
    let n = run.steps();
    let losses: Vec<f64> = run.rows[fifth * n / 5..(fifth + 1) * n / 5].iter().map(|row| row.loss).collect();
    mean(&losses)
}

/// Differences as they count for what may follow: one in the last digit is none.
fn credited<'a>(arms: &'a Arms<Trajectory>, quantity: &'a Quantity) -> impl Iterator<Item = f64> + 'a {
    let found = differences(&arms.baseline, &arms.candidate, quantity);
    found
        .zip(&arms.baseline.rows)
        .map(|(difference, row)| if difference <= last_digit(row, quantity) { 0.0 } else { difference })
}

/// The share of a value that its last digit is.
fn last_digit(row: &StepRecord, quantity: &Quantity) -> f64 {
    let unit = (quantity.unit)(row);
    if unit == 0.0 { 0.0 } else { unit / (quantity.of)(row).abs() }
}

/// Relative differences of each step that both runs have: the least that the recorded digits prove.
pub(super) fn differences<'a>(
    one: &'a Trajectory,
    other: &'a Trajectory,
    quantity: &'a Quantity,
) -> impl Iterator<Item = f64> + 'a {
    let rows = one.rows.iter().zip(&other.rows);
    rows.map(|(a, b)| {
        let difference = relative_difference((quantity.of)(a), (quantity.of)(b));
        let unit = last_digit(a, quantity);
        // Written so that what is not a number stays so.
        if difference <= unit { 0.0 } else { difference - unit }
    })
}

/// The largest difference of losses and gradient norms up to each step: never falls. From [`CREDITED_FROM`] on a norm's
/// difference counts as at most `credited_norm`.
fn drifts(arms: &Arms<Trajectory>, credited_norm: f64) -> Vec<f64> {
    let [loss, grad_norm] = QUANTITIES.each_ref().map(|quantity| credited(arms, quantity));
    let steps = loss.zip(grad_norm).enumerate();
    steps
        .scan(0.0, |largest: &mut f64, (i, (loss, grad_norm))| {
            let grad_norm = if i + 1 < CREDITED_FROM { grad_norm } else { grad_norm.min(credited_norm) };
            *largest = largest.max(loss).max(grad_norm);
            Some(*largest)
        })
        .collect()
}

/// The same for all pairs after a number of steps, for everything but norms.
pub(super) fn drift(evidence: &Evidence, steps: u64) -> f64 {
    let of_pair =
        |pair: &PairEvidence| drifts(&pair.records, CREDITED_NORM).into_iter().take(steps as usize).next_back();
    let of_pairs = evidence.pairs.iter().filter_map(of_pair);
    of_pairs.fold(0.0, f64::max)
}

/// Pairs, counted from 1.
pub(super) fn numbered(evidence: &Evidence) -> impl Iterator<Item = (usize, &Arms<Trajectory>)> {
    evidence.pairs.iter().enumerate().map(|(i, PairEvidence { records, .. })| (i + 1, records))
}

/// A rule about pairs that fails if any fault was found, or without pairs.
pub(super) fn fails_if_any_in_pairs(evidence: &Evidence, name: &str, found: &[String]) -> Check {
    if evidence.pairs.is_empty() {
        return Check::unmeasured(name, "no pair was run");
    }
    Check::fails_if_any(name, found)
}

fn held_out(pairs: &[PairEvidence]) -> impl Iterator<Item = (u64, Arms<f64>)> {
    pairs.iter().filter_map(|pair| pair.held_out.map(|arms| (pair.seed, arms)))
}

const HELD_OUT_MISSING: &str = "held-out loss was not measured: `workload.eval` in `loop.toml` names the command";

fn unmeasured_held_out() -> Check {
    Check::unmeasured("held_out", HELD_OUT_MISSING)
}

//! How far the weights moved in both trainers over the same steps.
//!
//! The loss of the first steps cannot show a wrong weight decay, learning rate or precision, or one tensor left out;
//! updates do. The update over the whole run shows faults of any step before its end.

use serde::{Deserialize, Serialize};

use super::{
    Evidence, Tier, UpdateEvidence,
    check::{Check, Worst, relative_difference},
    floor::{FLOOR_FACTOR, widened},
    losses::drift,
};
use crate::parity::weights::{TensorUpdate, UpdateCheck};

/// The distance between two updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// ‖Δw − Δv‖ / ‖Δw‖ over all tensors together, estimated by one random projection a tensor.
    pub projection: f64,
    /// | ‖Δv‖ / ‖Δw‖ − 1 | of the tensor where it is largest.
    pub norm: f64,
    /// |⟨Δv, v⟩ − ⟨Δw, w⟩| / ‖Δw‖‖w‖ of the tensor where it is largest.
    pub dot: f64,
}

/// Limits for T1: of a single step and of the whole run. `docs/parity.md` says what they lie between.
pub(super) const T1_STEP: Distance = Distance { projection: 2e-3, norm: 5e-4, dot: 5e-4 };
pub(super) const T1_RUN: Distance = Distance { projection: 5e-5, norm: 1e-4, dot: 1e-4 };

/// Limits for T2, which allow another precision but no other optimiser and no missing tensor.
pub(super) const T2: Distance = Distance { projection: 0.3, norm: 0.05, dot: 0.05 };

/// Elements whose gradient is so near zero that rounding decides its sign, and with it their first update.
pub(super) const FLIPS: f64 = 2.0;

/// Where training has amplified rounding, updates may be this many times as far apart as losses or gradient norms, within
/// [`super::floor::WIDEST`].
const STEP_PER_DRIFT: Distance = Distance { projection: 10.0, norm: 10.0, dot: 10.0 };
const RUN_PER_DRIFT: Distance = Distance { projection: 5.0, norm: 2.0, dot: 2.0 };

pub(super) fn checks(evidence: &Evidence) -> Vec<Check> {
    let mut checks = vec![completeness(evidence), zero_gradient(evidence)];
    if evidence.tier == Tier::T0 {
        checks.push(same_bits(evidence));
    } else {
        checks.extend(within_limits(evidence));
    }
    checks
}

/// Whether everything needed was measured and can be compared.
fn completeness(evidence: &Evidence) -> Check {
    // The weights of the last step may not be among those that a trainer can be asked for.
    let last = evidence.steps.saturating_sub(1);
    let alone = |update: &&UpdateEvidence| update.from + 1 == update.to;
    let mut missing: Vec<String> = evidence
        .alone
        .iter()
        .filter(|&&step| !evidence.updates.iter().filter(alone).any(|update| update.to == step))
        .map(|step| format!("step {step} was not measured"))
        .collect();
    if evidence.updates.iter().filter(alone).all(|update| evidence.alone.contains(&update.to)) {
        missing.push("no drawn step was measured".into());
    }
    if !evidence.updates.iter().any(|update| update.from == 0 && update.to >= last) {
        missing.push("the whole run was not measured".into());
    }
    for update in &evidence.updates {
        let (one, other) = (&update.moved.baseline, &update.moved.candidate);
        let shapes = |check: &UpdateCheck| check.tensors.iter().map(|t| (t.name.clone(), t.len)).collect::<Vec<_>>();
        if one.seed != other.seed || shapes(one) != shapes(other) {
            missing.push(format!("steps {} to {}: the trainers' tensors are not the same", update.from, update.to));
        }
    }
    Check::fails_if_any("updates", &missing)
}

/// A tensor that does not move has no gradient.
fn zero_gradient(evidence: &Evidence) -> Check {
    let Some(first) = evidence.updates.first() else { return Check::unmeasured("zero_gradient", NO_WEIGHTS) };
    let is_still = |tensor: &TensorUpdate| tensor.max_abs == 0.0;
    let mut found = Vec::new();
    for (i, TensorUpdate { name, .. }) in first.moved.baseline.tensors.iter().enumerate() {
        if evidence.updates.iter().all(|update| update.moved.baseline.tensors.get(i).is_some_and(is_still)) {
            found.push(format!("`{name}` never moves: say so in `loop.toml` if it is not trained"));
        }
    }
    for UpdateEvidence { from, to, moved } in &evidence.updates {
        let tensors = moved.baseline.tensors.iter().zip(&moved.candidate.tensors);
        let stopped = tensors.filter(|(baseline, candidate)| !is_still(baseline) && is_still(candidate));
        found.extend(stopped.map(|(_, tensor)| format!("`{}` does not move in steps {from} to {to}", tensor.name)));
    }
    Check::fails_if_any("zero_gradient", &found)
}

const NO_WEIGHTS: &str = "no weights were saved: `workload.weights` in `loop.toml` names them";

/// T0: no element moved differently, as far as the sums show.
fn same_bits(evidence: &Evidence) -> Check {
    if evidence.updates.is_empty() {
        return Check::unmeasured("updates_bits", NO_WEIGHTS);
    }
    let mut differing = Vec::new();
    for UpdateEvidence { from, to, moved } in &evidence.updates {
        let tensors = moved.baseline.tensors.iter().zip(&moved.candidate.tensors);
        differing.extend(
            tensors.filter(|(a, b)| a != b).map(|(tensor, _)| format!("`{}` in steps {from} to {to}", tensor.name)),
        );
    }
    Check::fails_if_any("updates_bits", &differing)
}

/// T1 and T2: distances within limits.
fn within_limits(evidence: &Evidence) -> [Check; 3] {
    let [mut projection, mut norm, mut dot] = [(); 3].map(|()| Worst::default());
    for UpdateEvidence { from, to, moved } in &evidence.updates {
        let found = compare(&moved.baseline, &moved.candidate);
        let is_alone = from + 1 == *to;
        let (limits, per_drift) = match (evidence.tier, is_alone) {
            (Tier::T2, _) => (T2, STEP_PER_DRIFT),
            (_, true) => (T1_STEP, STEP_PER_DRIFT),
            (_, false) => (T1_RUN, RUN_PER_DRIFT),
        };
        let flips = if is_alone { FLIPS } else { 0.0 };
        let drift = drift(evidence, *to);
        let allowed = |limit: f64, of: fn(&Distance) -> f64| {
            widened(limit, (FLOOR_FACTOR * of(&evidence.floor.updates)).max(drift * of(&per_drift)))
        };
        // A flip moves one element from one end of its range to the other.
        let limit = limits.projection.hypot(2.0 * (flips / found.elements).sqrt());
        projection.record(found.projection, allowed(limit, |d| d.projection), || format!("steps {from} to {to}"));
        for (tensor, distance) in &found.tensors {
            let place = || format!("`{}` in steps {from} to {to}", tensor.name);
            norm.record(distance.norm, allowed(limits.norm, |d| d.norm), place);
            dot.record(distance.dot, allowed(limits.dot + 2.0 * flips / tensor.len as f64, |d| d.dot), place);
        }
    }
    [
        projection.check("updates_projection", NO_WEIGHTS),
        norm.check("updates_norm", NO_WEIGHTS),
        dot.check("updates_dot", NO_WEIGHTS),
    ]
}

/// The result of [`compare`].
pub(super) struct Comparison<'a> {
    /// The distance of the projections of all tensors together.
    projection: f64,
    /// Number of elements in all tensors.
    elements: f64,
    /// The distances of each tensor; the projection of a single tensor says little.
    tensors: Vec<(&'a TensorUpdate, TensorDistance)>,
}

/// See [`Distance`].
struct TensorDistance {
    norm: f64,
    dot: f64,
}

impl Comparison<'_> {
    /// The distances that count.
    pub(super) fn largest(&self) -> Distance {
        let largest = |of: fn(&TensorDistance) -> f64| self.tensors.iter().map(|(_, d)| of(d)).fold(0.0, f64::max);
        Distance { projection: self.projection, norm: largest(|d| d.norm), dot: largest(|d| d.dot) }
    }
}

/// Compares two updates tensor by tensor, in the order that they have in common.
pub(super) fn compare<'a>(one: &'a UpdateCheck, other: &UpdateCheck) -> Comparison<'a> {
    let (mut apart, mut moved, mut elements) = (0.0, 0.0, 0.0);
    let mut tensors = Vec::new();
    for (a, b) in one.tensors.iter().zip(&other.tensors) {
        apart += (b.projection - a.projection).powi(2);
        moved += a.norm.powi(2);
        elements += a.len as f64;
        let dots_apart = (b.dot - a.dot).abs();
        // Biases begin at zero, and then both products are zero.
        let dot = if dots_apart == 0.0 { 0.0 } else { dots_apart / (a.norm * a.weight_norm) };
        tensors.push((a, TensorDistance { norm: relative_difference(a.norm, b.norm), dot }));
    }
    let projection = if apart == 0.0 { 0.0 } else { (apart / moved).sqrt() };
    Comparison { projection, elements, tensors }
}

//! Checks a recorded judgement: whether it has every required rule, and no rule allows more than it may. Records do not
//! hold what pairs showed, so measured values are taken as written.

use super::{
    Check, Parity, Tier,
    floor::WIDEST,
    losses::{self, MEAN_LIMIT, RANGES},
    updates,
};
use crate::config::LoopConfig;

/// What is wrong; empty for a judgement as this program makes it.
pub fn problems(parity: &Parity, config: &LoopConfig) -> Vec<String> {
    let mut problems: Vec<String> = asked(parity.tier, config)
        .into_iter()
        .filter(|name| !parity.checks.iter().any(|check| check.name == *name))
        .map(|name| format!("parity: `{name}` was not looked at"))
        .collect();
    for check in &parity.checks {
        let Check { name, found, allowed, .. } = check;
        let is_within = found.is_some_and(|found| found <= *allowed);
        if check.passed != is_within || !check.passed {
            problems.push(format!("parity: `{name}` does not hold"));
        }
        if most(name, parity.tier).is_some_and(|most| *allowed > most) {
            problems.push(format!("parity: `{name}` allows {allowed:.2e}, more than the rule does"));
        }
    }
    if parity.passed != parity.checks.iter().all(|check| check.passed) {
        problems.push("parity: the judgement is not that of its rules".to_owned());
    }
    problems
}

/// The rules that tier and configuration require.
fn asked(tier: Tier, config: &LoopConfig) -> Vec<String> {
    let workload = &config.workload;
    let mut names: Vec<String> = ["steps", "finite", "loss_moved"].map(String::from).to_vec();
    let mut add = |more: &[&str]| names.extend(more.iter().map(|name| (*name).to_owned()));
    let shows = workload.metrics.shows();
    if shows.data_hashes {
        add(&["tokens"]);
    }
    for quantity in losses::quantities(shows) {
        match tier {
            Tier::T0 => add(&[&format!("{}_bits", quantity.name)]),
            Tier::T1 => {
                for range in RANGES.iter().filter(|range| workload.steps >= range.first as u64) {
                    add(&[&format!("{}_{}", quantity.name, range.name)]);
                }
            }
            Tier::T2 => {}
        }
    }
    match tier {
        Tier::T0 => {}
        Tier::T1 => add(&["loss_fifths"]),
        Tier::T2 => add(&["loss_last_fifth"]),
    }
    if !shows.all_digits && tier != Tier::T2 {
        add(&[losses::DIGITS]);
    }
    if workload.eval.is_some() && workload.checkpoint.is_some() {
        add(&["held_out"]);
    }
    if workload.weights.is_some() {
        add(&["updates", "zero_gradient"]);
        match tier {
            Tier::T0 => add(&["updates_bits"]),
            Tier::T1 | Tier::T2 => add(&["updates_projection", "updates_norm", "updates_dot"]),
        }
    }
    if let Some(sampling) = &config.sampling {
        add(&["sampling_alive"]);
        if tier != Tier::T2 {
            add(&["sampling_greedy", "sampling_seeded"]);
        }
        if sampling.training.is_some() {
            add(&["sampling_training"]);
        }
    }
    names
}

/// The most that a rule can allow; none if that depends on sizes or on earlier steps.
fn most(name: &str, tier: Tier) -> Option<f64> {
    let of_steps = RANGES.iter().find_map(|range| {
        let (quantity, rest) = name.rsplit_once(range.name)?;
        let quantity = losses::QUANTITIES.iter().position(|known| quantity == format!("{}_", known.name))?;
        Some(range.limits?[quantity]).filter(|_| rest.is_empty())
    });
    match (name, tier) {
        (_, _) if of_steps.is_some() => of_steps.map(|limit| WIDEST * limit),
        ("loss_fifths" | "loss_last_fifth" | "anchor_last_fifth" | "anchor_held_out", _)
        | ("held_out", Tier::T1 | Tier::T2) => Some(MEAN_LIMIT),
        (losses::DIGITS, _) => Some(losses::MOST_DIGITS_LIMIT),
        ("updates_norm", Tier::T1) => Some(WIDEST * updates::T1_STEP.norm),
        ("updates_norm", Tier::T2) => Some(WIDEST * updates::T2.norm),
        (
            "held_out" | "steps" | "finite" | "loss_moved" | "tokens" | "loss_bits" | "grad_norm_bits" | "updates"
            | "zero_gradient" | "updates_bits" | "sampling_greedy" | "sampling_seeded" | "sampling_alive"
            | "sampling_training",
            _,
        ) => Some(0.0),
        _ => None,
    }
}

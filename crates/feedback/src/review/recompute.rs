//! Recomputes everything in an attempt from its rows: no derived number in a file is trusted.
//!
//! `commit` does this with the attempt on disk right before landing, and `verify` with records. The requirements come
//! from the configuration of the baseline's own commit: its guards, its rules of parity, the area. This finds edits
//! that are inconsistent; rows that were invented consistently are only found by measuring again.

use std::collections::{BTreeMap, BTreeSet};

use pairbench::{
    Arm,
    draws::Purpose,
    stats::sequential::Plan,
    verdict::{Estimate, Judgement, LOST_D, Verdict, judge},
};

use crate::{
    attempt::{
        Attempt, Confirmation, PairRow, RULES,
        bookkeeping::Series,
        confirmation::{fewest_pairs, level, outcome, went_on},
        gaming,
        layout::Needs,
        plain,
    },
    compare::guards,
    config::{LoopConfig, is_layout_varied},
    ledger::{Ledger, RecordId},
    parity,
    records::evidence::{self, AttemptRecord},
    trace::attribution::{Attribution, Finding},
};

/// Numbers are written with all their digits; sums in another order differ in the last digit.
const ROUNDING: f64 = 1e-9;
/// Begins the line of a message that says why a gain lies outside the declared area.
pub const WIDENED: &str = "Wider than declared: ";
/// The part of a gain that may lie outside the declared area.
const LET_THROUGH: f64 = 0.25;

/// How an attempt lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lands {
    /// With a percentage.
    Claim,
    /// Without a percentage, because counters fell.
    Leaner,
    /// Without a percentage.
    Plain,
}

impl Lands {
    /// How an attempt with this verdict lands.
    pub fn of(verdict: Option<Verdict>, claims: bool) -> Lands {
        match verdict {
            _ if claims => Lands::Claim,
            Some(Verdict::Leaner) => Lands::Leaner,
            _ => Lands::Plain,
        }
    }
}

/// The requirements for an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The configuration of the baseline's commit.
    pub config: &'a LoopConfig,
    /// How it lands.
    pub lands: Lands,
    /// Known earlier attempts on the same baseline; those with two chances count twice.
    pub earlier_attempts: usize,
    /// The commit's message, if there is one.
    pub message: Option<&'a str>,
}

/// What is missing or does not follow from the attempt's rows; empty if everything holds. Records from before a rule
/// are not checked for what they could not hold.
pub fn problems(attempt: &Attempt, asked: &Asked<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let is_older = attempt.rules == 0;
    if attempt.rules > RULES {
        problems.push(format!("it was judged by rules {} of a later program; this one knows {RULES}", attempt.rules));
    }
    problems.extend(of_instrument(attempt, asked.config));
    problems.extend(of_pairs(attempt));
    match attempt.plan.and_then(|plan| plan.looks()) {
        None => problems.push("the record has no plan".to_owned()),
        Some(looks) => problems.extend(of_verdict(attempt, looks, asked, is_older)),
    }
    match &attempt.parity {
        Some(found) if found.passed && found.tier == attempt.tier => {
            problems.extend(parity::problems(found, asked.config));
        }
        _ => problems.push("parity is not shown".to_owned()),
    }
    if asked.lands != Lands::Plain {
        problems.extend(of_guards(attempt, asked.config, is_older));
        problems.extend(of_gaming(attempt));
    }
    if asked.lands == Lands::Claim {
        problems.extend(of_confirmation(attempt, asked.config, asked.earlier_attempts));
        if !is_older {
            problems.extend(of_plain_runs(attempt, asked.config));
        }
        problems.extend(of_attribution(attempt, asked));
    }
    problems
}

/// Checks that it ran the configured workload.
fn of_instrument(attempt: &Attempt, config: &LoopConfig) -> Vec<String> {
    let (manifest, workload) = (&attempt.manifest, &config.workload);
    let steps = attempt.plan.map(|plan| plan.blocks.steps);
    let mut problems = Vec::new();
    if manifest.command != workload.command
        || manifest.tokens != workload.steps.saturating_mul(workload.tokens_per_step)
        || steps.is_some_and(|steps| steps != workload.steps)
    {
        problems.push("it did not run the workload of its `loop.toml`".to_owned());
    }
    if let Some(area) = attempt.area.as_ref().filter(|area| !config.areas.contains_key(*area)) {
        problems.push(format!("its area `{area}` is not in its `loop.toml`"));
    }
    problems
}

/// Checks order, draws and seeds, and that no pair is missing: pairs are numbered without gaps.
fn of_pairs(attempt: &Attempt) -> Vec<String> {
    let mut problems = Vec::new();
    let confirmation = attempt.confirmation.as_ref();
    let fresh: &[PairRow] = confirmation.map_or(&[], |confirmation| &confirmation.pairs);
    let mut used = BTreeSet::new();
    for pair in attempt.pairs.iter().chain(fresh) {
        let number = pair.number;
        if !used.insert(number) {
            problems.push(format!("pair {number} stands in it twice"));
        }
        if pair.baseline_first != attempt.draws.coin(Purpose::Pair, number, 0) {
            problems.push(format!("pair {number} did not follow its coin"));
        }
        if attempt.rules > 0 && pair.seed != attempt.draws.below(1 << 31, Purpose::TrainingSeed, number, 0) {
            problems.push(format!("pair {number} did not have its seed"));
        }
        if !(pair.log_ratio.is_finite() && pair.run_log_ratio.is_finite()) {
            problems.push(format!("pair {number} has no finite number"));
        }
    }
    let void = attempt.voids.iter().chain(confirmation.map_or(&[][..], |confirmation| &confirmation.voids));
    for void in void {
        // A pair that the candidate spoiled is lost and has a row; in older records it did not count and has none.
        let is_new = used.insert(void.number);
        if void.arm == Arm::Baseline && !is_new {
            problems.push(format!("pair {} stands in it twice", void.number));
        }
    }
    used.extend(attempt.bookkeeping.interrupted.iter().map(|pair| pair.number));
    if let Some(gap) = (0..used.len() as u64).find(|number| !used.contains(number)) {
        problems.push(format!("pair {gap} is missing"));
    }
    let last = attempt.pairs.iter().map(|pair| pair.number).max();
    if fresh.iter().any(|pair| last.is_some_and(|last| pair.number <= last)) {
        problems.push("pairs of the confirmation come before the last of the comparison".to_owned());
    }
    problems
}

/// Checks the comparison's verdict and estimate.
fn of_verdict(attempt: &Attempt, looks: Plan, asked: &Asked<'_>, is_older: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let epsilon_pct = attempt.epsilon_pct;
    if epsilon_pct < asked.config.epsilon_pct && asked.lands == Lands::Claim {
        problems.push(format!("ε is {epsilon_pct} %, `loop.toml` says {} %", asked.config.epsilon_pct));
    }
    let d = attempt.d();
    let judged = judge(&d, looks, epsilon_pct.max(asked.config.epsilon_pct));
    let found = judged.verdict.map_or("no answer", Verdict::name);
    let estimate = last_estimate(&d, looks, epsilon_pct);
    if asked.lands == Lands::Claim && !is_older && (attempt.floors.is_none() || attempt.layout_needs() == Needs::More) {
        problems.push("its gain is not shown to be more than luck of layout".to_owned());
    }
    if attempt.floors.is_some_and(|floors| floors != floors.again(asked.config)) {
        problems.push("its floor for luck of layout does not follow from what was measured".to_owned());
    }
    match asked.lands {
        Lands::Claim if attempt.verdict != Some(Verdict::Faster) || judged.verdict != Some(Verdict::Faster) => {
            problems.push(format!("its pairs give {found}, not FASTER"));
        }
        Lands::Leaner => {
            let again = Attempt { estimate, ..attempt.clone() };
            if attempt.verdict != Some(Verdict::Leaner) || judged.verdict == Some(Verdict::Slower) || !again.is_leaner()
            {
                problems.push(format!("its pairs and counters do not give LEANER: {found}"));
            }
            if !is_older && asked.config.trace.is_some() && attempt.leaner.is_none() {
                problems.push("no trace was asked whether the counters are true".to_owned());
            }
        }
        Lands::Plain if judged.verdict == Some(Verdict::Slower) => problems.push("its pairs give SLOWER".to_owned()),
        Lands::Plain if matches!(attempt.verdict, None | Some(Verdict::Slower | Verdict::Refused)) => {
            problems.push(format!("its verdict is {}", attempt.verdict.map_or("none", Verdict::name)));
        }
        Lands::Claim | Lands::Plain => {}
    }
    let near = |a: f64, b: f64| (a - b).abs() <= ROUNDING * (1.0 + b.abs());
    let is_same = match (attempt.estimate, estimate) {
        (Some(said), Some(found)) => near(said.speedup_pct, found.speedup_pct) && said.pairs == found.pairs,
        (said, found) => said.is_none() == found.is_none(),
    };
    if !is_older && !is_same {
        problems.push("the comparison's estimate is not that of its pairs".to_owned());
    }
    problems
}

/// The estimate of the last look.
fn last_estimate(d: &[f64], looks: Plan, epsilon_pct: f64) -> Option<Estimate> {
    let at = |pairs: usize| -> Judgement { judge(&d[..pairs], looks, epsilon_pct) };
    (0..=d.len()).rev().find_map(|pairs| at(pairs).estimate)
}

/// Checks the confirmation: a fixed number of fresh pairs, at a level that the earlier attempts allow.
fn of_confirmation(attempt: &Attempt, config: &LoopConfig, earlier_attempts: usize) -> Vec<String> {
    let Some(confirmation) = &attempt.confirmation else { return vec!["there is no confirmation".to_owned()] };
    let Confirmation { planned, pairs, level: used, p, accepted, refusal, .. } = confirmation;
    let mut problems = Vec::new();
    let attempts = earlier_attempts.max(confirmation.attempts);
    let allowed = level(attempts, attempt);
    // Written so that NaN does not pass.
    let is_allowed = *used <= allowed * (1.0 + ROUNDING);
    if !is_allowed {
        problems.push(format!("its confirmation was judged at {used}, allowed is {allowed} after {attempts} attempts"));
    }
    let lost = attempt.lost_in(&Series::Confirmation);
    if pairs.len() != *planned || pairs.len() < attempt.pairs.len().max(fewest_pairs(*used, lost)) {
        problems.push(format!("the confirmation has {} pairs, not the {planned} planned", pairs.len()));
    }
    let again = outcome(confirmation);
    if attempt.layout_needs() == Needs::OtherLayouts && is_layout_varied(config) && !confirmation.over_layouts {
        problems.push("it was not confirmed over several layouts, which may differ by as much as it claims".to_owned());
    }
    if !again.confirmed {
        problems.push(format!("its confirmation does not pass (p = {:.4})", again.p));
    }
    if p.is_none_or(|p| (p - again.p).abs() > ROUNDING) {
        problems.push("the confirmation's p is not that of its pairs".to_owned());
    }
    if let Some(why) = refusal {
        problems.push(format!("its confirmation was refused: {why}"));
    } else if *accepted != Some(true) {
        problems.push("its confirmation was not accepted".to_owned());
    }
    if let Some(finding) = gaming::voids(&confirmation.voids) {
        problems.push(finding.to_string());
    }
    problems
}

/// Checks that the plain runs show the gain without the turn protocol.
fn of_plain_runs(attempt: &Attempt, config: &LoopConfig) -> Vec<String> {
    let Some(plain) = &attempt.plain else { return vec!["there are no plain runs".to_owned()] };
    let mut problems: Vec<String> =
        plain.refusal.iter().map(|why| format!("its plain runs were refused: {why}")).collect();
    if plain.steps != plain::steps(config.workload.steps, plain.draws) {
        problems.push("its plain runs did not have the steps that were drawn".to_owned());
    }
    let mut used = BTreeSet::new();
    for row in plain.slices.iter().chain(&plain.whole) {
        if !used.insert(row.number) || row.baseline_first != plain.draws.coin(Purpose::Pair, row.number, 0) {
            problems.push(format!("plain pair {} did not follow its draws, or stands in it twice", row.number));
        }
        if row.log_ratio > LOST_D && (row.log_ratio - (row.ms[0] / row.ms[1]).ln()).abs() > plain::ROUNDING_OF_TIMES {
            problems.push(format!("plain pair {} has another ratio than its times", row.number));
        }
    }
    let confirmed = attempt.confirmation.as_ref().map_or(0.0, |found| outcome(found).estimate);
    if let Some(why) = plain::finding(attempt, confirmed) {
        problems.push(why);
    }
    problems
}

/// Recomputes every configured guard from its own numbers.
fn of_guards(attempt: &Attempt, config: &LoopConfig, is_older: bool) -> Vec<String> {
    let memory = attempt.memory_d();
    let mut problems = Vec::new();
    for (name, guard) in &config.guards {
        let mut found = attempt.guards.iter().filter(|result| result.name == *name);
        let (Some(result), None) = (found.next(), found.next()) else {
            problems.push(format!("guard {name} of its `loop.toml` was not measured, or twice"));
            continue;
        };
        if (result.margin_pct - guard.margin_pct()).abs() > ROUNDING {
            let (said, asked) = (result.margin_pct, guard.margin_pct());
            problems.push(format!("guard {name} let {said} % through, its `loop.toml` says {asked} %"));
        }
        if !result.holds {
            problems.push(format!("guard {name} does not hold"));
        }
        let own = attempt.guard_d.get(name).map_or(&[][..], Vec::as_slice);
        // The first records did not keep the guards' measurements.
        if is_older && own.is_empty() && !matches!(guard, crate::config::Guard::PeakMemory { .. }) {
            continue;
        }
        match guards::again(name, guard, own, &memory) {
            Some(again) if again.holds && (again.p - result.p).abs() <= ROUNDING && again.pairs == result.pairs => {}
            Some(again) if !again.holds => {
                problems.push(format!("guard {name} does not hold in its pairs (p = {:.4})", again.p));
            }
            _ => problems.push(format!("guard {name} does not follow from its pairs")),
        }
    }
    problems
}

/// Checks the rows for gaming.
fn of_gaming(attempt: &Attempt) -> Vec<String> {
    let moved = gaming::moved_work(attempt).filter(|_| attempt.verdict == Some(Verdict::Faster));
    let findings = [gaming::voids(&attempt.voids), moved, gaming::disturbed_baseline(attempt)];
    findings.into_iter().flatten().map(|finding| finding.to_string()).collect()
}

/// Checks that the gain was attributed to the declared area, where the configuration has traces.
fn of_attribution(attempt: &Attempt, asked: &Asked<'_>) -> Vec<String> {
    if asked.config.trace.is_none() {
        return Vec::new();
    }
    let Some(attribution) = &attempt.attribution else { return vec!["its gain was not attributed".to_owned()] };
    let mut problems = Vec::new();
    if attempt.area.as_ref().and_then(|area| asked.config.areas.get(area)).is_some_and(|area| {
        let globs = area.kernels();
        attribution.kernels.iter().any(|kernel| {
            let label = kernel.change.name.as_str();
            let name = label.split_once('/').map_or(label, |(_, name)| name);
            kernel.is_in_area != (globs.is_match(label) || globs.is_match(name))
        })
    }) {
        problems.push("its attribution is not to the area of its `loop.toml`".to_owned());
    }
    let is_outside = attribution.finding == Finding::Outside || is_seen_outside(attempt, attribution);
    let is_widened = asked.message.is_none_or(|message| message.contains(WIDENED));
    if is_outside && !is_widened {
        problems.push("its gain lies outside the declared area, and no reason is given".to_owned());
    }
    problems
}

/// Whether more of the gain lies outside the area than is allowed, by the figures of the attribution.
fn is_seen_outside(attempt: &Attempt, attribution: &Attribution) -> bool {
    let (Some(step), Some(outside)) = (&attribution.step, &attribution.outside) else { return false };
    let gain_pct = attempt.estimate.map_or(0.0, |estimate| estimate.speedup_pct);
    let gain_ms = (step.baseline_ms * gain_pct / (100.0 + gain_pct)).max(0.0);
    outside.interval_ms.0 > 0.0 && outside.saved_ms > LET_THROUGH * gain_ms + ROUNDING
}

/// Attempts on the same baseline that the ledger had when this one was first recorded, this one included; one that
/// continued after its plan had two chances.
pub fn earlier_attempts(ledger: &Ledger, attempt: &Attempt) -> usize {
    let records = ledger.records().iter().filter(|record| record.kind == evidence::KIND);
    // This program cannot read attempts of another format.
    let bodies: Vec<(RecordId, Attempt)> =
        records.filter_map(|record| Some((record.id, record.body::<AttemptRecord>().ok()?.attempt))).collect();
    let Some((first, _)) = bodies.iter().find(|(_, known)| known.key == attempt.key) else { return 0 };
    let (before, _) = ledger.before(*first);
    let is_on = |known: &Attempt| !known.is_identical && known.baseline.measured_tree == attempt.baseline.measured_tree;
    let mut chances: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, known) in &bodies {
        if (before.contains(id) || id == first) && is_on(known) {
            chances.insert(&known.key, if went_on(known) { 2 } else { 1 });
        }
    }
    chances.values().sum()
}

/// Where an attempt on disk departs from its record in the ledger: rows may be added but not changed, and a verdict
/// stays.
pub fn departures(attempt: &Attempt, recorded: &Attempt) -> Vec<String> {
    let mut problems = Vec::new();
    let stays = !matches!(recorded.verdict, None | Some(Verdict::Undecided | Verdict::Same));
    if stays && attempt.verdict != recorded.verdict {
        let [said, was] = [attempt, recorded].map(|attempt| attempt.verdict.map_or("none", Verdict::name));
        problems.push(format!("its verdict is {said}, the ledger's record of it says {was}"));
    }
    let fresh =
        |attempt: &Attempt| attempt.confirmation.clone().map_or_else(Vec::new, |confirmation| confirmation.pairs);
    let is_changed = !attempt.pairs.starts_with(&recorded.pairs)
        || !attempt.voids.starts_with(&recorded.voids)
        || !fresh(attempt).starts_with(&fresh(recorded))
        || (attempt.draws, attempt.plan, attempt.tier) != (recorded.draws, recorded.plan, recorded.tier);
    if is_changed {
        problems.push("its pairs are not those that the ledger's record of it has".to_owned());
    }
    for (name, d) in &recorded.guard_d {
        if !attempt.guard_d.get(name).is_some_and(|now| now.starts_with(d)) {
            problems.push(format!("guard {name} has other pairs than in the ledger's record of it"));
        }
    }
    problems
}

#[cfg(test)]
mod tests;

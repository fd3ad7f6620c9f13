//! Which attempt a comparison continues: two programs are compared once under one configuration.

use pairbench::draws::Randomization;

use crate::{
    LoopError,
    attempt::{Attempt, RULES},
    compare::built_arms::BuiltArms,
    parity::Tier,
    store::{session::Session, state::Cycle},
};

/// The attempt at these two programs, open or ended, if there is one. It may have been of other trees that build the
/// same programs; it now gets these trees and the open cycle.
pub fn known(session: &Session, built_arms: &BuiltArms) -> Result<Option<Attempt>, LoopError> {
    let cycle = session.state.cycle()?;
    let tiers = match &cycle {
        Some(cycle) => vec![cycle.tier],
        None => vec![Tier::T0, Tier::T1, Tier::T2],
    };
    for tier in tiers {
        if let Some(known) = by_key(session, &key(session, built_arms, tier, None))? {
            let [baseline, candidate] = built_arms.revisions.clone();
            return Ok(Some(Attempt { baseline, candidate, ..for_cycle(known, cycle.as_ref()) }));
        }
    }
    Ok(None)
}

/// An attempt as one of the open cycle: if another area was declared meanwhile, attribution is computed again.
pub(super) fn for_cycle(known: Attempt, cycle: Option<&Cycle>) -> Attempt {
    let Some(cycle) = cycle else { return known };
    let is_of_area = known.area == cycle.area;
    Attempt {
        hypothesis: Some(cycle.hypothesis.clone()),
        area: cycle.area.clone(),
        attribution: known.attribution.clone().filter(|_| is_of_area),
        ..known
    }
}

/// The last attempt of a cycle: the newest against its baseline.
pub fn last(session: &Session, cycle: Option<&Cycle>) -> Result<Option<Attempt>, LoopError> {
    let Some(cycle) = cycle else { return Ok(None) };
    let newest = session.attempts().newest()?;
    Ok(newest.filter(|attempt| attempt.baseline.commit == cycle.baseline && !attempt.is_identical))
}

pub(super) fn by_key(session: &Session, key: &str) -> Result<Option<Attempt>, LoopError> {
    let Some(known) = session.attempts().load(key)? else {
        return Ok(crate::records::evidence::find(session, key)?.map(|known| {
            // Without the state folder, the evidence of its pairs is gone too.
            let is_gone = !session.attempts().pair_log(key).exists();
            Attempt { evidence: if is_gone { String::new() } else { known.evidence.clone() }, ..known }
        }));
    };
    // The key covers the workload's steps: a plan with other steps was not made by the loop.
    match known.plan.filter(|plan| plan.blocks.steps != session.config.workload.steps) {
        None => Ok(Some(known)),
        Some(plan) => Err(LoopError::failed(format!(
            "the attempt `{key}` cannot be right: its plan is of {} steps, the workload has {}",
            plan.blocks.steps, session.config.workload.steps
        ))
        .hint("move its file away to begin the comparison again, which counts as another attempt")),
    }
}

/// What identifies a comparison: programs, inputs, machine and rules. ε is not part of it: another ε is not a reason to
/// start over.
pub(super) fn key(session: &Session, built_arms: &BuiltArms, tier: Tier, anew: Option<Randomization>) -> String {
    let workload = &session.config.workload;
    let mut parts = built_arms.revisions.each_ref().map(|revision| revision.binary.clone()).to_vec();
    parts.extend([workload.command.clone(), workload.steps.to_string(), session.machine.fingerprint()]);
    parts.extend([built_arms.inputs.clone(), session.config_hash(), tier.to_string(), format!("rules {RULES}")]);
    // Two targets may run the same command with other guards, and trainers may read environment variables.
    parts.push(format!("target {:?}", session.config.target));
    parts.extend(built_arms.data.iter().map(|(name, hash)| format!("data {name} {hash}")));
    parts.extend(workload_environment(session));
    parts.extend(anew.map(|draws| draws.seed.to_string()));
    blake3::hash(parts.join("\n").as_bytes()).to_hex()[..32].to_owned()
}

/// The variables that trainers get, with their values.
fn workload_environment(session: &Session) -> impl Iterator<Item = String> + '_ {
    session.config.environment.iter().map(|name| format!("{name}={:?}", std::env::var_os(name)))
}

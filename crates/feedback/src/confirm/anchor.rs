//! A change of precision may change learning a little, but such changes must not add up commit by commit: a T2 is also
//! judged against the anchor, the commit before the first T2 of the workload. One limit holds for all T2s together.
//!
//! A T0 or T1 in between does not move the anchor, because it learns what its parent learns.

use pairbench::{
    draws::Randomization,
    pair::{plan, schedule::Script},
};

use crate::{
    ErrorKind, LoopError, Progress,
    attempt::{Attempt, Manifest, gaming::MAX_VOIDS},
    compare::{
        PairRunner,
        built_arms::{self, BuiltArms},
        same_training::SameTraining,
    },
    parity::{self, Tier},
    records::{claim, evidence::AttemptRecord},
    store::session::Session,
    visible::short,
};

/// Seeds that both are trained with.
const SEEDS: usize = 6;
/// Ancestors that are searched.
const MOST_COMMITS: usize = 100_000;

/// The anchor of a T2 on top of `parent`; none where the parent is the anchor.
pub fn find(session: &Session, parent: &str, manifest: &Manifest) -> Result<Option<String>, LoopError> {
    let mut anchor = None;
    for entry in session.repository.ancestors(parent, MOST_COMMITS)? {
        let name = entry.trailers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(claim::RECORD));
        let record = name.and_then(|(_, id)| session.ledger.get(id).ok()?.body::<AttemptRecord>().ok());
        let Some(record) = record.filter(|record| record.attempt.manifest.target == manifest.target) else {
            continue;
        };
        if record.attempt.manifest.command != manifest.command {
            break; // another workload has another anchor
        }
        if record.attempt.tier == Tier::T2 {
            anchor = entry.parents.first().cloned();
        }
    }
    Ok(anchor)
}

/// Judges a T2 against the anchor; returns a refusal if all T2s together change learning.
pub fn judge(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<Option<String>, LoopError> {
    let is_judged = attempt.parity.as_ref().is_some_and(parity::is_judged_beside_anchor);
    if attempt.tier != Tier::T2 || is_judged {
        return Ok(None);
    }
    let Some(anchor) = find(session, &built_arms.revisions[0].commit, &attempt.manifest)? else { return Ok(None) };
    progress.note(&format!("T2 beside `{}`, the commit before the first T2", short(&anchor)));
    let shown = trained(session, &anchor, &built_arms.revisions[1].commit, progress).map_err(|error| match error.kind {
        ErrorKind::Failed | ErrorKind::Usage => {
            LoopError::refused(format!("T2 cannot be judged beside the commit before the first, `{}`: {}", short(&anchor), error.message))
                .hint("all T2s together cannot be judged without it; a change of the workload in `loop.toml`, a commit of the instrument, starts over")
        }
        _ => error,
    })?;
    let checks = parity::beside_anchor(&shown, session.config.workload.eval.is_some());
    let Some(found) = attempt.parity.take() else { return Ok(Some("parity was not shown".into())) };
    let found = found.with(checks);
    let refusal = found.failures().next().map(|check| format!("parity: {check}"));
    attempt.parity = Some(found);
    session.attempts().save(attempt)?;
    Ok(refusal)
}

/// Trains both with several seeds.
fn trained(
    session: &Session,
    anchor: &str,
    candidate: &str,
    progress: &dyn Progress,
) -> Result<Vec<parity::PairEvidence>, LoopError> {
    let built_arms = built_arms::of_commits(session, anchor, candidate, progress)?;
    let runner = PairRunner::new(session, &built_arms, Randomization::fresh())?;
    let plan = plan::plan(&runner.request(0, &Script::default()), std::time::Duration::ZERO, progress)?;
    let script = plan.blocks.script();
    let (mut shown, mut voids, mut number) = (Vec::new(), 0, 0);
    while shown.len() < SEEDS {
        number += 1;
        let run = runner.run(number, &script, progress)?;
        if let Some(void) = &run.void {
            voids += 1;
            if voids >= MAX_VOIDS {
                return Err(LoopError::refused(format!("the {} {}", void.arm.name(), void.why)));
            }
            continue;
        }
        shown.push(SameTraining::learned(session, &built_arms, &run, progress)?);
    }
    Ok(shown)
}

/// Problems with the anchor of a T2; `parent` is the commit that it was measured against.
pub fn problems(session: &Session, attempt: &Attempt, parent: &str) -> Result<Vec<String>, LoopError> {
    let is_judged = attempt.parity.as_ref().is_some_and(parity::is_judged_beside_anchor);
    if attempt.tier != Tier::T2 || is_judged {
        return Ok(Vec::new());
    }
    let anchor = find(session, parent, &attempt.manifest)?;
    Ok(anchor
        .map(|anchor| format!("T2 was not judged beside `{}`, the commit before the first T2", short(&anchor)))
        .into_iter()
        .collect())
}

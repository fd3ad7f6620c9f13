//! Another precision may learn a little otherwise, but not a little more with each commit: a T2 is judged beside the anchor
//! too, the commit before the first T2 of the workload. One limit holds for all of them together.
//!
//! A T0 or T1 in between does not move the anchor: it learns what its parent learns.

use pairbench::{
    draws::Randomization,
    pair::{plan, schedule::Script},
};

use crate::{
    LoopError, Watch,
    attempt::{Attempt, Manifest, gaming::MAX_VOIDS},
    compare::{
        PairRunner,
        same_training::SameTraining,
        sides::{self, Contest},
    },
    parity::{self, Tier},
    records::{claim, evidence::AttemptRecord},
    store::session::Session,
    visible::short,
};

/// Seeds that are trained by both.
const SEEDS: usize = 6;
/// Ancestors that are looked at.
const MOST_COMMITS: usize = 100_000;

/// The commit that a T2 on top of `parent` is judged beside; none where the parent is that one.
pub fn find(session: &Session, parent: &str, manifest: &Manifest) -> Result<Option<String>, LoopError> {
    let mut anchor = None;
    for entry in session.repository.ancestors(parent, MOST_COMMITS)? {
        let name = entry.trailers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(claim::RECORD));
        let record = name.and_then(|(_, id)| session.ledger.get(id).ok()?.body::<AttemptRecord>().ok());
        let Some(record) = record.filter(|record| record.attempt.manifest.target == manifest.target) else {
            continue;
        };
        if record.attempt.manifest.command != manifest.command {
            break; // another workload learns something else
        }
        if record.attempt.tier == Tier::T2 {
            anchor = entry.parents.first().cloned();
        }
    }
    Ok(anchor)
}

/// Judges a T2 beside the anchor; the refusal, if all T2s together learn otherwise.
pub fn judge(
    session: &Session,
    contest: &Contest,
    attempt: &mut Attempt,
    watch: &dyn Watch,
) -> Result<Option<String>, LoopError> {
    let is_judged = attempt.parity.as_ref().is_some_and(parity::is_judged_beside_anchor);
    if attempt.tier != Tier::T2 || is_judged {
        return Ok(None);
    }
    let Some(anchor) = find(session, &contest.sides[0].commit, &attempt.manifest)? else { return Ok(None) };
    watch.note(&format!("T2 beside `{}`, the commit before the first T2", short(&anchor)));
    let shown = trained(session, &anchor, &contest.sides[1].commit, watch).map_err(|error| match error {
        LoopError::Failed(what) | LoopError::Usage(what) => {
            LoopError::Refused(format!("T2 cannot be judged beside the commit before the first, `{}`: {what}", short(&anchor)))
                .hint("without it nobody knows what all of them do together; a change of the workload in `loop.toml`, a commit of the instrument, starts over")
        }
        other => other,
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
    watch: &dyn Watch,
) -> Result<Vec<parity::PairEvidence>, LoopError> {
    let contest = sides::of_commits(session, anchor, candidate, watch)?;
    let runner = PairRunner::new(session, &contest, Randomization::fresh())?;
    let plan = plan::plan(&runner.request(0, &Script::default()), std::time::Duration::ZERO, watch)?;
    let script = plan.blocks.script();
    let (mut shown, mut voids, mut number) = (Vec::new(), 0, 0);
    while shown.len() < SEEDS {
        number += 1;
        let run = runner.run(number, &script, watch)?;
        if let Some(void) = &run.void {
            voids += 1;
            if voids >= MAX_VOIDS {
                return Err(LoopError::Refused(format!("the {} {}", void.arm.name(), void.why)));
            }
            continue;
        }
        shown.push(SameTraining::learned(session, &contest, &run, watch)?);
    }
    Ok(shown)
}

/// What does not fit of a T2's anchor: `parent` is the commit that it was measured beside.
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

//! A gain counts against the best accepted commit, not only against the last commit: compares a claim's parent with the
//! last accepted claim, the reference.
//!
//! Ordinary commits between the two may have made the parent slower than the reference, and a gain over the parent may
//! only take that back. So parent and reference are measured against each other, in turns; if the parent is slower by
//! more than ε, the candidate is measured against the reference too, and the smaller gain is the claim. If no gain is
//! left, the commit says that it takes back a slowdown, without a percentage.

use std::time::Duration;

use pairbench::verdict::Verdict;

use crate::{
    ErrorKind, LoopError, Progress,
    attempt::{
        Attempt,
        reference::{Beside, Reference},
    },
    compare::built_arms::{self, BuiltArms},
    git::LogEntry,
    ledger::Record,
    records::{claim::Claim, evidence::AttemptRecord},
    review::measure::{self, Measurement, Question},
    store::session::Session,
    visible::short,
};

/// Commits that are searched for a claim.
const WINDOW: usize = 10_000;
/// Without a claim, the reference is the oldest of this many commits that has a loop.
const WITHOUT_A_CLAIM: usize = 30;
/// Time limit of a comparison with it, builds aside.
const BUDGET: Duration = Duration::from_secs(60);
/// The purpose of its measurements.
const PURPOSE: &str = "reference";

/// The commit to measure against besides the parent: the last claim of the target among its ancestors, else the oldest
/// of the last `WITHOUT_A_CLAIM` with a `loop.toml`. None where it has the parent's measured tree: nothing came
/// between.
pub fn find(session: &Session, parent: &str, target: Option<&str>) -> Result<Option<String>, LoopError> {
    let repository = &session.repository;
    let unmeasured = session.config.unmeasured();
    let ancestors = repository.ancestors(parent, WINDOW)?;
    let measured = |commit: &str| repository.measured_tree(&repository.tree_of(commit)?, &unmeasured);
    let mut found = None;
    for entry in &ancestors {
        // Only a commit with the measured tree is a reference, not a cherry-pick or one that merely names a record.
        if let Some(tree) = claimed_tree(session, entry, target)
            && tree == measured(&entry.id)?
        {
            found = Some(entry);
            break;
        }
    }
    if found.is_none() {
        for entry in ancestors.iter().take(WITHOUT_A_CLAIM).rev() {
            if repository.read_file(&repository.tree_of(&entry.id)?, crate::config::FILE_NAME)?.is_some() {
                found = Some(entry);
                break;
            }
        }
    }
    let Some(found) = found else { return Ok(None) };
    Ok((measured(&found.id)? != measured(parent)?).then(|| found.id.clone()))
}

/// The measured tree of a commit's claim, if it claims a gain on this target.
fn claimed_tree(session: &Session, entry: &LogEntry, target: Option<&str>) -> Option<String> {
    let claim = Claim::parse(&entry.message()).filter(Claim::is_gain);
    let id = claim.and_then(|claim| claim.record);
    let record = id.and_then(|id| record_of(session, entry, &id)?.body::<AttemptRecord>().ok());
    let record = record.filter(|record| record.attempt.manifest.target.as_deref() == target)?;
    Some(record.candidate.measured_tree)
}

/// A claim's record: from the ledger, else from the claim's own commit, since a revert removes it from the tree but not
/// from the history.
fn record_of(session: &Session, entry: &LogEntry, id: &str) -> Option<Record> {
    if let Ok(record) = session.ledger.get(id) {
        return Some(record.clone());
    }
    let tree = session.repository.tree_of(&entry.id).ok()?;
    let name = session.config.ledger.join(format!("{id}.json"));
    let bytes = session.repository.read_file(&tree, &name.to_string_lossy()).ok()??;
    Record::decode(id.parse().ok()?, &bytes).ok()
}

/// Measures the reference, as far as a claim needs it, and notes the result in the attempt.
pub fn measure(
    session: &mut Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    let parent = built_arms.revisions[0].commit.clone();
    let Some(commit) = find(session, &parent, session.config.target.as_deref())? else {
        attempt.reference = None;
        return Ok(());
    };
    // A larger ε on the command line must not hide what was lost.
    let epsilon_pct = attempt.epsilon_pct.min(session.config.epsilon_pct);
    progress.note(&format!(
        "commits came between `{}`, the best accepted before, and the baseline: measuring the two",
        short(&commit)
    ));
    let mut reference = Reference { commit, parent: None, candidate: None, unmeasured: None };
    match beside(session, &reference.commit, &parent, epsilon_pct, progress) {
        Ok(parent) => reference.parent = parent,
        Err(error) => reference.unmeasured = Some(unmeasured(error)?),
    }
    if reference.parent.as_ref().is_some_and(|parent| parent.may_be_slower(epsilon_pct)) {
        // The reference has just run here, so an error is not a reason to go on without it.
        reference.candidate =
            match beside(session, &reference.commit, &built_arms.revisions[1].commit, epsilon_pct, progress)? {
                Some(candidate) => Some(candidate),
                // The candidate is the very program that was accepted.
                None => Some(Beside { record: String::new(), verdict: Verdict::Same, estimate: None }),
            };
    }
    attempt.reference = Some(reference);
    session.attempts().save(attempt)
}

/// Why today's instrument cannot measure an old tree; other errors stay errors.
fn unmeasured(error: LoopError) -> Result<String, LoopError> {
    match error.kind {
        ErrorKind::Failed | ErrorKind::Usage => {
            let line = error.message.lines().next().unwrap_or_default();
            Ok(line.chars().filter(|c| !c.is_control()).take(200).collect())
        }
        _ => Err(error),
    }
}

/// A commit against another, from the ledger or measured now. None where both build the same program.
fn beside(
    session: &mut Session,
    reference: &str,
    commit: &str,
    epsilon_pct: f64,
    progress: &dyn Progress,
) -> Result<Option<Beside>, LoopError> {
    let built_arms = built_arms::of_commits(session, reference, commit, progress)?;
    let binaries = built_arms.revisions.each_ref().map(|revision| revision.binary.clone());
    if binaries[0] == binaries[1] {
        return Ok(None);
    }
    if let Some(known) = known(session, &binaries, epsilon_pct) {
        return Ok(Some(known));
    }
    let question = Question { purpose: PURPOSE, budget: session.config.budget.min(BUDGET), epsilon_pct };
    let found = measure::run(session, &built_arms, &question, progress)?;
    let record = session.ledger.records().last().map_or_else(String::new, |record| record.id.to_string());
    Ok(Some(Beside { record, verdict: found.verdict, estimate: found.estimate }))
}

/// The ledger's last measurement of two programs on this machine.
fn known(session: &Session, binaries: &[String; 2], epsilon_pct: f64) -> Option<Beside> {
    session.ledger.records().iter().rev().filter(|record| record.kind == measure::KIND).find_map(|record| {
        let found = record.body::<Measurement>().ok()?;
        let is_same = found.purpose == PURPOSE
            && [found.baseline.binary, found.candidate.binary] == *binaries
            && found.fingerprint == session.machine.fingerprint()
            && found.command == session.config.workload.command
            && found.epsilon_pct.to_bits() == epsilon_pct.to_bits();
        is_same.then(|| Beside { record: record.id.to_string(), verdict: found.verdict, estimate: found.estimate })
    })
}

/// Problems with an attempt's reference; `parent` is the commit that it was measured against.
pub fn problems(session: &Session, attempt: &Attempt, parent: &str) -> Result<Vec<String>, LoopError> {
    let Some(commit) = find(session, parent, attempt.manifest.target.as_deref())? else {
        return Ok(Vec::new());
    };
    let name = short(&commit).to_owned();
    let Some(reference) = &attempt.reference else {
        return Ok(vec![format!("its parent was not measured against `{name}`, the best accepted before")]);
    };
    let mut problems = Vec::new();
    if reference.commit != commit {
        problems.push(format!("its reference is `{}`, the best accepted before is `{name}`", short(&reference.commit)));
    }
    let revisions = [(&reference.parent, &attempt.baseline), (&reference.candidate, &attempt.candidate)];
    for (beside, revision) in revisions {
        problems.extend(beside.as_ref().and_then(|beside| fault_of(session, beside, &revision.binary)));
    }
    let is_slower = reference.parent.as_ref().is_some_and(|parent| parent.may_be_slower(attempt.epsilon_pct));
    if is_slower && reference.candidate.is_none() {
        problems.push(format!("its parent is slower than `{name}`, and it was not measured against that"));
    }
    if reference.takes_back() {
        problems.push(format!("it takes back a slowdown since `{name}`: that is not a gain"));
    }
    if let Some(why) = &reference.unmeasured {
        problems.push(format!("it was not measured beside `{name}`, the best accepted before: {why}"));
    }
    Ok(problems)
}

/// Checks a measurement against its record; returns the problem.
fn fault_of(session: &Session, beside: &Beside, binary: &str) -> Option<String> {
    if beside.record.is_empty() && beside.verdict == Verdict::Same {
        return None;
    }
    let measurement = session.ledger.get(&beside.record).and_then(crate::ledger::Record::body::<Measurement>);
    let fits = measurement.is_ok_and(|found| {
        found.judged().is_some_and(|again| again.verdict.unwrap_or(Verdict::Undecided) == found.verdict)
            && (found.verdict, found.estimate) == (beside.verdict, beside.estimate)
            && (found.purpose.as_str(), found.candidate.binary.as_str()) == (PURPOSE, binary)
    });
    (!fits).then(|| "its measurement against the best accepted before does not follow from its pairs".to_owned())
}

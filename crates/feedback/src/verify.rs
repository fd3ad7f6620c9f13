//! What a claim is worth: recomputed from its record, or measured again.
//!
//! A record proves that the numbers follow from the data, not that the data are true: for that,
//! measure again.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use crate::{
    LoopError, Watch,
    claim::{self, Claim},
    coins::Purpose,
    contest::{self, short},
    evidence::{self, AttemptRecord},
    git::LogEntry,
    measure,
    session::Session,
    stats::confirmation::confirm,
    verdict::{Estimate, Verdict, judge},
};

/// Version of [`VerifyReport`].
pub const SCHEMA: &str = "alpha.loop.verify/1";
/// A claim has two decimals.
const ROUNDING_PCT: f64 = 0.0051;

/// What became of one claim.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The commit.
    pub commit: String,
    /// Its subject.
    pub subject: String,
    /// What it claims, in per cent of speed; none if it claims nothing.
    pub claim_pct: Option<f64>,
    /// The record, if there is one.
    pub record: Option<String>,
    /// The target of `loop.toml` that it was measured for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether this very tree was measured; a claim that was rebased or picked keeps its record by its patch.
    pub measured_here: bool,
    /// What does not fit; empty if the claim follows from its record.
    pub problems: Vec<String>,
    /// What measuring again said.
    pub rerun: Option<Rerun>,
}

/// What measuring again said.
#[derive(Clone, Debug, Serialize)]
pub struct Rerun {
    /// Whether it agrees.
    pub outcome: Agreement,
    /// In a sentence.
    pub reason: String,
    /// The new estimate.
    pub estimate: Option<Estimate>,
}

/// Whether a new measurement fits a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// The intervals overlap, and the new one lies above zero.
    Agrees,
    /// They do not.
    Disagrees,
    /// The new interval is too wide to tell.
    CannotResolve,
}

impl Agreement {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Agreement::Agrees => "agrees",
            Agreement::Disagrees => "disagrees",
            Agreement::CannotResolve => "cannot resolve",
        }
    }
}

/// What became of all claims that were asked for.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether every claim stands.
    pub holds: bool,
    /// One for each commit, the oldest first.
    pub claims: Vec<Verification>,
}

impl VerifyReport {
    /// Of these.
    pub fn new(claims: Vec<Verification>) -> VerifyReport {
        VerifyReport { schema: SCHEMA, holds: claims.iter().all(Verification::holds), claims }
    }
}

impl Verification {
    /// Whether the claim stands.
    pub fn holds(&self) -> bool {
        self.problems.is_empty() && self.rerun.as_ref().is_none_or(|rerun| rerun.outcome != Agreement::Disagrees)
    }
}

/// Checks the claims of a commit, or of all commits of `A..B`, the oldest first. Commits without a claim and without a
/// record are skipped in a range.
pub fn verify(session: &Session, what: &str) -> Result<Vec<Verification>, LoopError> {
    let is_range = what.contains("..");
    // `A^!` is A without its parents.
    let range = if is_range || what.ends_with("^!") { what.to_owned() } else { format!("{what}^!") };
    let mut entries = session.repository.log(&range)?;
    entries.reverse();
    all(session, &entries, is_range)
}

/// The claims of all of history.
pub fn verify_all(session: &Session) -> Result<Vec<Verification>, LoopError> {
    let mut entries = session.repository.log("HEAD")?;
    entries.reverse();
    all(session, &entries, true)
}

fn all(session: &Session, entries: &[LogEntry], is_range: bool) -> Result<Vec<Verification>, LoopError> {
    let mut found: Vec<Verification> = Vec::new();
    for entry in entries {
        let claim = Claim::parse(&entry.message());
        if claim.is_some() || record_of(entry).is_some() || !is_range {
            let mut verification = one(session, entry, claim.as_ref())?;
            let claimed_before =
                found.iter().find(|earlier| earlier.record.is_some() && earlier.record == verification.record);
            if let Some(earlier) = claimed_before {
                let what = format!("its record is that of `{}` already: one gain counts once", short(&earlier.commit));
                verification.problems.push(what);
            }
            found.push(verification);
        }
    }
    Ok(found)
}

fn one(session: &Session, entry: &LogEntry, claim: Option<&Claim>) -> Result<Verification, LoopError> {
    let mut verification = Verification {
        commit: entry.id.clone(),
        subject: entry.subject.clone(),
        claim_pct: claim.map(|claim| claim.speedup_pct),
        record: claim.and_then(|claim| claim.record.clone()).or_else(|| record_of(entry)),
        target: None,
        measured_here: false,
        problems: Vec::new(),
        rerun: None,
    };
    let Some(name) = &verification.record else {
        // Who claims nothing, or admits a loss, needs no evidence.
        if !claim.is_some_and(Claim::is_gain) {
            return Ok(verification);
        }
        verification.problems.push("the message names no record (`Alpha-Record: …`)".to_owned());
        return Ok(verification);
    };
    let body = match session.ledger.get(name) {
        // A change of the instrument, whose record is of both instruments.
        Ok(record) if claim.is_none() && record.kind != evidence::KIND => return Ok(verification),
        Ok(record) => record.body::<AttemptRecord>(),
        Err(error) => Err(error),
    };
    match body {
        Err(error) => verification.problems.push(error.to_string()),
        Ok(record) => {
            verification.target.clone_from(&record.attempt.manifest.target);
            verification.problems = match claim {
                Some(claim) => recompute(&record, claim.speedup_pct),
                None => without_a_claim(&record),
            };
            let Some(of_commit) = trees(session, entry)? else {
                let what = "it has no parent here: it is the first commit, or the clone is shallow";
                verification.problems.push(what.to_owned());
                return Ok(verification);
            };
            verification.measured_here = record.candidate.measured_tree == of_commit.measured_tree
                && record.baseline.measured_tree == of_commit.parent_measured_tree;
            let is_same_patch =
                !record.candidate.patch_id.is_empty() && record.candidate.patch_id == of_commit.patch_id;
            if !verification.measured_here && !is_same_patch {
                verification.problems.push("the commit holds neither the tree that was measured nor its patch".into());
            }
        }
    }
    Ok(verification)
}

/// The record that a message names.
fn record_of(entry: &LogEntry) -> Option<String> {
    entry.trailers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(claim::RECORD)).map(|(_, id)| id.clone())
}

/// What speaks against a commit without a percentage: it must have been the same training, and not slower.
fn without_a_claim(record: &AttemptRecord) -> Vec<String> {
    let mut problems = Vec::new();
    if record.attempt.parity.as_ref().is_none_or(|parity| !parity.passed) {
        problems.push("parity is not shown".to_owned());
    }
    if matches!(record.verdict, None | Some(Verdict::Slower | Verdict::Refused)) {
        problems.push(format!("its verdict is {}", record.verdict.map_or("none", Verdict::name)));
    }
    problems
}

struct Trees {
    measured_tree: String,
    parent_measured_tree: String,
    patch_id: String,
}

/// None of a commit without a parent.
fn trees(session: &Session, entry: &LogEntry) -> Result<Option<Trees>, LoopError> {
    let (repository, unmeasured) = (&session.repository, session.config.unmeasured());
    let tree = repository.tree_of(&entry.id)?;
    // In a shallow clone a commit can name a parent that is not there.
    let Some(parent) = entry.parents.first().and_then(|parent| repository.tree_of(parent).ok()) else {
        return Ok(None);
    };
    Ok(Some(Trees {
        measured_tree: repository.measured_tree(&tree, &unmeasured)?,
        parent_measured_tree: repository.measured_tree(&parent, &unmeasured)?,
        patch_id: repository.patch_id(&parent, &tree, &unmeasured)?.unwrap_or_default(),
    }))
}

/// Every number of the record again, from the pairs in it; says what does not follow.
pub fn recompute(record: &AttemptRecord, claim_pct: f64) -> Vec<String> {
    let mut problems = Vec::new();
    let attempt = &record.attempt;
    let Some(looks) = attempt.plan.and_then(|plan| plan.looks()) else {
        return vec!["the record has no plan".to_owned()];
    };
    let judged = judge(&attempt.d(), looks, attempt.epsilon_pct);
    if record.verdict != Some(Verdict::Faster) || judged.verdict != Some(Verdict::Faster) {
        let found = judged.verdict.map_or("no answer", Verdict::name);
        problems.push(format!("its pairs give {found}, not FASTER"));
    }
    let all = attempt.pairs.iter().chain(attempt.confirmation.iter().flat_map(|confirmation| &confirmation.pairs));
    let mut numbers = BTreeSet::new();
    for pair in all {
        if !numbers.insert(pair.number) {
            problems.push(format!("pair {} stands in it twice", pair.number));
        }
        if pair.baseline_first != attempt.coins.flip(Purpose::Pair, pair.number, 0) {
            problems.push(format!("pair {} did not follow its coin", pair.number));
        }
    }
    match &attempt.confirmation {
        None => problems.push("there is no confirmation".to_owned()),
        Some(confirmation) => {
            let d: Vec<f64> = confirmation.pairs.iter().map(|pair| pair.d).collect();
            let again = confirm(&d, confirmation.level);
            if d.len() != confirmation.planned || d.len() < attempt.pairs.len().max(10) {
                problems.push(format!(
                    "the confirmation has {} pairs, not the {} planned",
                    d.len(),
                    confirmation.planned
                ));
            }
            if !again.confirmed {
                problems.push(format!("its confirmation does not pass (p = {:.4})", again.p));
            }
            let pct = crate::verdict::pct_of_log(again.estimate);
            if (pct - claim_pct).abs() > ROUNDING_PCT {
                problems.push(format!("its confirmation gives {pct:+.2} %, the message says {claim_pct:+.2} %"));
            }
        }
    }
    if attempt.parity.as_ref().is_none_or(|parity| !parity.passed) {
        problems.push("parity is not shown".to_owned());
    }
    if let Some(guard) = attempt.guards.iter().find(|guard| !guard.holds) {
        problems.push(format!("guard {} does not hold", guard.name));
    }
    problems
}

/// Measures the commit against its parent again.
pub fn rerun(
    session: &mut Session,
    verification: &mut Verification,
    budget: Duration,
    watch: &dyn Watch,
) -> Result<(), LoopError> {
    if let Err(error) = session.retarget(verification.target.as_deref()) {
        verification.problems.push(format!("it cannot be measured again: {error}"));
        return Ok(());
    }
    let parent = format!("{}^", verification.commit);
    let contest = contest::of_commits(session, &parent, &verification.commit, watch)?;
    let epsilon_pct = session.config.epsilon_pct;
    let measured = measure::run(session, &contest, "rerun", budget, epsilon_pct, watch)?;
    let claimed = claimed_interval(session, verification);
    verification.rerun = Some(agreement(claimed, measured.estimate));
    Ok(())
}

/// The interval of the claim's confirmation, or the bare number.
pub fn claimed_interval(session: &Session, verification: &Verification) -> (f64, f64) {
    let record = verification.record.as_ref().and_then(|name| session.ledger.get(name).ok());
    let body = record.and_then(|record| record.body::<AttemptRecord>().ok());
    let estimate = body.and_then(|body| body.confirmation?.estimate);
    let bare = verification.claim_pct.unwrap_or(0.0);
    estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct)).unwrap_or((bare, bare))
}

/// Whether a new estimate fits a claimed interval, both in per cent.
pub fn agreement((claimed_low, claimed_high): (f64, f64), estimate: Option<Estimate>) -> Rerun {
    let ends = estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct));
    let (outcome, reason) = match ends {
        None => (Agreement::CannotResolve, "too few pairs for an interval".to_owned()),
        Some((low, high)) if high < claimed_low || low > claimed_high => {
            let what = format!("{low:+.2} to {high:+.2} % now, {claimed_low:+.2} to {claimed_high:+.2} % claimed");
            (Agreement::Disagrees, what)
        }
        Some((low, high)) if low > 0.0 => (Agreement::Agrees, format!("{low:+.2} to {high:+.2} % now")),
        Some((low, high)) => {
            (Agreement::CannotResolve, format!("{low:+.2} to {high:+.2} % now: neither zero nor the claim is excluded"))
        }
    };
    Rerun { outcome, reason, estimate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(low: f64, high: f64) -> Estimate {
        let middle = f64::midpoint(low, high);
        Estimate { speedup_pct: middle, ci_low_pct: Some(low), ci_high_pct: Some(high), pairs: 20 }
    }

    #[test]
    fn agreement_needs_overlap_and_a_gain() {
        let outcome = |found| agreement((1.0, 2.0), found).outcome;
        assert_eq!(outcome(Some(estimate(1.5, 2.5))), Agreement::Agrees);
        assert_eq!(outcome(Some(estimate(-0.5, 0.5))), Agreement::Disagrees);
        assert_eq!(outcome(Some(estimate(2.5, 3.5))), Agreement::Disagrees);
        assert_eq!(outcome(Some(estimate(-0.5, 3.0))), Agreement::CannotResolve);
        assert_eq!(outcome(None), Agreement::CannotResolve);
    }
}

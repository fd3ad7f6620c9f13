//! Verifies claims: recomputes them from their records, or measures them again.
//!
//! A record proves that the numbers follow from the data, not that the data are true; only a new measurement shows
//! that. Numbers are recomputed from the rows (see [`crate::review::recompute`]) under the `loop.toml` of the claim's
//! parent.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use pairbench::verdict::{Estimate, Verdict};
use serde::Serialize;

use crate::{
    LoopError, Progress,
    attempt::{Attempt, confirmation::claimed, corroboration::Corroboration},
    compare::built_arms,
    config::{FILE_NAME, LoopConfig},
    confirm::anchor,
    git::LogEntry,
    ledger::{Record, RecordId},
    records::{
        claim::{self, Claim},
        evidence::{self, AttemptRecord},
    },
    review::{
        measure::{self, Question},
        recompute::{self, Asked, Lands},
        reference, weakened,
    },
    store::session::Session,
    visible::short,
};

/// Version of [`VerifyReport`].
pub const SCHEMA: &str = "alpha.loop.verify/1";
/// A claim has two decimals.
const ROUNDING_PCT: f64 = 0.0051;

/// The result for one claim.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The commit.
    pub commit: String,
    /// Its subject.
    pub subject: String,
    /// The claimed gain, in per cent of speed; none if it claims nothing.
    pub claim_pct: Option<f64>,
    /// The record, if there is one: its full id if the ledger has it, else as the message names it.
    pub record: Option<String>,
    /// An earlier commit of the history with the same record: the gain belongs to that commit.
    pub repeats: Option<String>,
    /// The target of `loop.toml` that it was measured for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether this very tree was measured; a claim that was rebased or picked keeps its record by its patch.
    pub measured_here: bool,
    /// The problems; empty if the claim follows from its record.
    pub problems: Vec<String>,
    /// What a reader should know of a claim even if it holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The result of measuring again.
    pub rerun: Option<Rerun>,
}

/// The result of measuring again.
#[derive(Clone, Debug, Serialize)]
pub struct Rerun {
    /// Whether it agrees.
    pub outcome: Agreement,
    /// The outcome in a sentence.
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
    /// The intervals do not overlap.
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

/// The result for all requested claims.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whether every claim stands.
    pub holds: bool,
    /// One for each commit, the oldest first.
    pub claims: Vec<Verification>,
    /// Records that an earlier commit of this history held and that are now missing.
    pub dropped_records: Vec<String>,
}

impl VerifyReport {
    /// A report of these.
    pub fn new(claims: Vec<Verification>, dropped_records: Vec<String>) -> VerifyReport {
        let holds = dropped_records.is_empty() && claims.iter().all(Verification::holds);
        VerifyReport { schema: SCHEMA, holds, claims, dropped_records }
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
    let first = first_claims(session, entries)?;
    let mut found: Vec<Verification> = Vec::new();
    for entry in entries {
        let message = entry.message();
        let claim = Claim::parse(&message);
        let unclear = claim::unclear(&message);
        if claim.is_some() || unclear.is_some() || record_of(entry).is_some() || !is_range {
            let mut verification = one(session, entry, claim.as_ref())?;
            verification.problems.extend(unclear.map(|what| format!("its {what}")));
            verification.repeats = verification
                .record
                .as_ref()
                .and_then(|record| first.get(&attempt_of(session.ledger.get(record).ok()?)))
                .filter(|id| **id != entry.id)
                .cloned();
            if let Some(earlier) = &verification.repeats {
                let what = format!(
                    "its record is of the attempt that `{}` landed already: one gain counts once",
                    short(earlier)
                );
                verification.problems.push(what);
            }
            found.push(verification);
        }
    }
    Ok(found)
}

/// For each attempt, the first commit that names one of its records, in the history of the last of these commits and in
/// these commits themselves.
fn first_claims(session: &Session, entries: &[LogEntry]) -> Result<BTreeMap<String, String>, LoopError> {
    let Some(newest) = entries.last() else { return Ok(BTreeMap::new()) };
    let mut first = BTreeMap::new();
    let history = session.repository.log(&newest.id)?;
    for entry in history.iter().rev().chain(entries) {
        let name = Claim::parse(&entry.message()).and_then(|claim| claim.record).or_else(|| record_of(entry));
        if let Some(record) = name.and_then(|name| session.ledger.get(&name).ok()) {
            first.entry(attempt_of(record)).or_insert_with(|| entry.id.clone());
        }
    }
    Ok(first)
}

/// The attempt that a record is of: one attempt may have several records. Records of other kinds stand for themselves.
fn attempt_of(record: &Record) -> String {
    record.body::<AttemptRecord>().map_or_else(|_| record.id.to_string(), |body| body.attempt.key)
}

fn one(session: &Session, entry: &LogEntry, claim: Option<&Claim>) -> Result<Verification, LoopError> {
    let mut verification = Verification {
        commit: entry.id.clone(),
        subject: entry.subject.clone(),
        claim_pct: claim.map(|claim| claim.speedup_pct),
        record: claim.and_then(|claim| claim.record.clone()).or_else(|| record_of(entry)),
        repeats: None,
        target: None,
        measured_here: false,
        problems: Vec::new(),
        notes: Vec::new(),
        rerun: None,
    };
    let Some(name) = verification.record.clone() else {
        // A commit that claims nothing, or admits a loss, needs no evidence.
        if !claim.is_some_and(Claim::is_gain) {
            return Ok(verification);
        }
        verification.problems.push("the message names no record (`Alpha-Record: …`)".to_owned());
        return Ok(verification);
    };
    let (id, body) = match session.ledger.get(&name) {
        Ok(record) => {
            verification.record = Some(record.id.to_string());
            // The record of a change of the instrument is not one of an attempt.
            if claim.is_none() && record.kind != evidence::KIND {
                return Ok(verification);
            }
            (record.id, record.body::<AttemptRecord>())
        }
        Err(error) => {
            verification.problems.push(error.to_string());
            return Ok(verification);
        }
    };
    match body {
        Err(error) => verification.problems.push(error.to_string()),
        Ok(record) => against_record(session, entry, claim, &Recorded { id, record }, &mut verification)?,
    }
    Ok(verification)
}

/// An attempt's record, and its id.
struct Recorded {
    id: RecordId,
    record: AttemptRecord,
}

/// Checks a commit against the attempt that its record holds.
fn against_record(
    session: &Session,
    entry: &LogEntry,
    claim: Option<&Claim>,
    recorded: &Recorded,
    verification: &mut Verification,
) -> Result<(), LoopError> {
    let record = &recorded.record;
    verification.target.clone_from(&record.attempt.manifest.target);
    let Some(of_commit) = trees(session, entry)? else {
        let what = "it has no parent here: it is the first commit, or the clone is shallow";
        verification.problems.push(what.to_owned());
        return Ok(());
    };
    verification.measured_here = record.candidate.measured_tree == of_commit.measured_tree
        && record.baseline.measured_tree == of_commit.parent_measured_tree;
    let is_same_patch = !record.candidate.patch_id.is_empty() && record.candidate.patch_id == of_commit.patch_id;
    let parent_tree = verification.measured_here.then_some(of_commit.parent_tree.as_str());
    verification.problems = recompute(session, recorded, claim, &entry.message(), parent_tree);
    if !verification.measured_here && !is_same_patch {
        verification.problems.push("the commit holds neither the tree that was measured nor its patch".into());
    }
    let is_gain = claim.is_some_and(Claim::is_gain);
    if let Some(parent) = entry.parents.first().filter(|_| verification.measured_here) {
        verification.problems.extend(on_its_parent(session, entry, parent, &record.attempt, is_gain)?);
    }
    if record.attempt.rules == 0 && is_outdated(session, &of_commit.parent_tree)? {
        verification.problems.push("it has the form of older records, and newer ones came before it".into());
    }
    verification.notes = notes(session, entry, &record.attempt)?;
    Ok(())
}

/// The record that a message names.
fn record_of(entry: &LogEntry) -> Option<String> {
    entry.trailers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(claim::RECORD)).map(|(_, id)| id.clone())
}

/// What a reader should know of a claim that holds.
fn notes(session: &Session, entry: &LogEntry, attempt: &Attempt) -> Result<Vec<String>, LoopError> {
    let mut notes = Vec::new();
    if attempt.rules == 0 {
        notes.push("an older record: what it did not keep yet is not recomputed".to_owned());
    }
    if let Some(gap) = attempt.manifest.protection.gap().filter(|_| attempt.rules > 0) {
        notes.push(gap);
    }
    if attempt.verdict == Some(Verdict::Leaner) {
        let unasked = Corroboration::default();
        notes.push(format!("leaner by the trainer's own counters; {}", attempt.leaner.as_ref().unwrap_or(&unasked)));
    }
    notes.extend(attempt.reference.as_ref().map(ToString::to_string));
    if let Some(parent) = entry.parents.first() {
        let weaker = weakened::at(&session.repository, parent, attempt.manifest.target.as_deref())?;
        notes.extend(
            weaker.iter().map(|weakened| format!("the instrument was weaker than before: {}", weakened.line())),
        );
    }
    Ok(notes)
}

struct Trees {
    measured_tree: String,
    parent_tree: String,
    parent_measured_tree: String,
    patch_id: String,
}

/// None for a commit without a parent.
fn trees(session: &Session, entry: &LogEntry) -> Result<Option<Trees>, LoopError> {
    let (repository, unmeasured) = (&session.repository, session.config.unmeasured());
    let tree = repository.tree_of(&entry.id)?;
    // In a shallow clone the parent may be missing.
    let Some(parent) = entry.parents.first().and_then(|parent| repository.tree_of(parent).ok()) else {
        return Ok(None);
    };
    Ok(Some(Trees {
        measured_tree: repository.measured_tree(&tree, &unmeasured)?,
        parent_measured_tree: repository.measured_tree(&parent, &unmeasured)?,
        patch_id: repository.patch_id(&parent, &tree, &unmeasured)?.unwrap_or_default(),
        parent_tree: parent,
    }))
}

/// The configuration in a tree, for one of its targets.
///
/// # Errors
/// [`LoopError::refused`] where the tree has none.
pub fn config_at(session: &Session, tree: &str, target: Option<&str>) -> Result<LoopConfig, LoopError> {
    let text = config_text(session, tree)?;
    LoopConfig::parse(&text, target)
}

fn config_text(session: &Session, tree: &str) -> Result<String, LoopError> {
    match session.repository.read_file(tree, FILE_NAME)? {
        Some(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        None => Err(LoopError::refused(format!("the baseline's tree `{}` has no `{FILE_NAME}`", short(tree)))),
    }
}

/// The configuration that a record was measured under: its parent's, if the parent is the baseline, else the one in the
/// baseline's tree, if it has the recorded hash.
fn config_of(session: &Session, record: &AttemptRecord, parent: Option<&str>) -> Result<LoopConfig, LoopError> {
    let target = record.attempt.manifest.target.as_deref();
    let asked = &record.attempt.manifest.config;
    let trees = parent.into_iter().chain([record.baseline.tree.as_str()]);
    for tree in trees {
        let Ok(text) = config_text(session, tree) else { continue };
        if blake3::hash(text.as_bytes()).to_hex().as_str() == asked {
            return LoopConfig::parse(&text, target);
        }
        if parent == Some(tree) {
            return Err(LoopError::refused(format!("it was not measured under the `{FILE_NAME}` of its parent")));
        }
    }
    Err(LoopError::refused(format!("the `{FILE_NAME}` that it was measured under is not in this repository")))
}

fn first_line(error: &LoopError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Recomputes everything in a record from its rows; returns the problems.
fn recompute(
    session: &Session,
    Recorded { id, record }: &Recorded,
    claim: Option<&Claim>,
    message: &str,
    parent: Option<&str>,
) -> Vec<String> {
    let attempt = &record.attempt;
    let config = match config_of(session, record, parent) {
        Ok(config) => config,
        Err(error) => return vec![first_line(&error)],
    };
    let lands = Lands::of(record.verdict, claim.is_some_and(Claim::is_gain));
    let earlier_attempts = recompute::earlier_attempts(&session.ledger, attempt);
    let asked = Asked { config: &config, lands, earlier_attempts, message: Some(message) };
    let mut problems = recompute::problems(attempt, &asked);
    if record.verdict != attempt.verdict || record.baseline != attempt.baseline || record.candidate != attempt.candidate
    {
        problems.push("its summary is not that of its attempt".to_owned());
    }
    if let Some(claim) = claim.filter(|claim| claim.is_gain()) {
        let found = claimed(attempt).map(|estimate| estimate.speedup_pct);
        if found.is_none_or(|found| (found - claim.speedup_pct).abs() > ROUNDING_PCT) {
            let found = found.map_or("nothing".to_owned(), |pct| format!("{pct:+.2} %"));
            problems.push(format!("its pairs give {found}, the message says {:+.2} %", claim.speedup_pct));
        }
    }
    if let Some(gone) = session.ledger.before(*id).1.first() {
        problems.push(format!("a record before it is gone: `{}`; attempts may have gone with it", gone.short()));
    }
    problems
}

/// Checks that apply only if the commit's parent is the baseline that it was measured against; returns the problems.
fn on_its_parent(
    session: &Session,
    entry: &LogEntry,
    parent: &str,
    attempt: &Attempt,
    is_gain: bool,
) -> Result<Vec<String>, LoopError> {
    if attempt.rules == 0 {
        return Ok(Vec::new());
    }
    let mut problems = if is_gain { reference::problems(session, attempt, parent)? } else { Vec::new() };
    problems.extend(anchor::problems(session, attempt, parent)?);
    let message = entry.message();
    for weakened in weakened::at(&session.repository, parent, attempt.manifest.target.as_deref())? {
        if !message.contains(&weakened.text) {
            problems.push(format!("its message does not say what is weaker: {}", weakened.text));
        }
    }
    Ok(problems)
}

/// Whether a record is older than another that its parent's tree has: then it should have been made by later rules.
fn is_outdated(session: &Session, parent_tree: &str) -> Result<bool, LoopError> {
    let ledger = &session.config.ledger;
    let files = session.repository.files(parent_tree)?;
    Ok(files.iter().filter(|path| path.starts_with(ledger)).any(|path| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let record = session.ledger.get(&name).ok().filter(|record| record.kind == evidence::KIND);
        record.and_then(|record| record.body::<AttemptRecord>().ok()).is_some_and(|record| record.attempt.rules > 0)
    }))
}

/// Records that dropped out: held by a commit before, and not by the present tree or the folder.
pub fn dropped_records(session: &Session) -> Result<Vec<String>, LoopError> {
    let (repository, ledger) = (&session.repository, &session.config.ledger);
    let mut held: BTreeSet<PathBuf> = repository.taken_away("HEAD", ledger)?.into_iter().collect();
    held.extend(repository.files(&repository.head()?.tree)?.into_iter().filter(|path| path.starts_with(ledger)));
    let there: BTreeSet<PathBuf> = session.ledger.files().map(|name| ledger.join(name)).collect();
    let gone = held.into_iter().filter(|path| path.extension().is_some_and(|is| is == "json") && !there.contains(path));
    Ok(gone.map(|path| path.display().to_string()).collect())
}

/// Measures the commit against its parent again.
pub fn rerun(
    session: &mut Session,
    verification: &mut Verification,
    budget: Duration,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    if let Err(error) = session.retarget(verification.target.as_deref()) {
        verification.problems.push(format!("it cannot be measured again: {error}"));
        return Ok(());
    }
    let parent = format!("{}^", verification.commit);
    let built_arms = built_arms::of_commits(session, &parent, &verification.commit, progress)?;
    let question = Question { purpose: "rerun", budget, epsilon_pct: session.config.epsilon_pct };
    let measured = measure::run(session, &built_arms, &question, progress)?;
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

//! Where a cycle stands, and the next command to type.

use std::path::PathBuf;

use pairbench::verdict::Verdict;
use serde::Serialize;

use crate::{
    LoopError,
    attempt::{Attempt, confirmation::expected_false_commits},
    compare::{self, built_arms, selftest},
    git::LogEntry,
    records::{claim, registry::Registry},
    review::weakened::{self, Weakened},
    store::{session::Session, state::Cycle},
};

/// Version of [`Status`].
pub const SCHEMA: &str = "alpha.loop.status/1";

/// The state of a cycle.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The open cycle, if there is one.
    pub cycle: Option<Cycle>,
    /// The process of another command that works in this repository now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// How the working tree differs from the baseline.
    pub working_tree: WorkingTree,
    /// The outcome of the last comparison, if there was one.
    pub attempt: Option<String>,
    /// The newest commit of this branch that came through the gate.
    pub accepted: Option<Accepted>,
    /// Attempts on this target so far, over all baselines; one that continued after its plan counts twice.
    pub attempts: usize,
    /// A warning, where a record counts more attempts than are known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_missing: Option<String>,
    /// False commits to expect among them, if none had an effect.
    pub expected_false_commits: f64,
    /// What a gain must exceed because of luck of layout; none before the first self-test.
    pub layout: Option<String>,
    /// Files of the ledger that cannot be read.
    pub ledger_problems: Vec<String>,
    /// Rules of the instrument that are weaker at the baseline than they once were.
    pub weaker: Vec<Weakened>,
    /// The next command to type.
    pub next: String,
}

/// The working tree beside the baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WorkingTree {
    /// Nothing that is measured differs.
    Unchanged,
    /// It is a candidate.
    Changed {
        /// Measured files in which it differs.
        files: Vec<PathBuf>,
        /// The output of its last build, if that failed or was stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        failed_build: Option<PathBuf>,
    },
    /// It cannot be a candidate now.
    Unusable {
        /// The reason, and what to do.
        why: String,
    },
}

/// A commit that came through the gate.
#[derive(Clone, Debug, Serialize)]
pub struct Accepted {
    /// Its name.
    pub commit: String,
    /// Whether its build is cached, so that a comparison with it starts at once.
    pub built: bool,
}

/// The state of the cycle. Builds nothing.
pub fn status(session: &Session) -> Result<Status, LoopError> {
    let cycle = session.state.cycle()?;
    let baseline = built_arms::baseline_commit(session, None)?;
    let known = Registry::read(session)?;
    let attempts = known.attempts(session);
    let running = session.state.other_holder()?;
    let last = compare::identity::last(session, cycle.as_ref())?;
    let (working_tree, measured_tree) = working_tree(session, &baseline, running.is_some());
    let is_of_this_tree =
        last.as_ref().is_some_and(|last| Some(&last.candidate.measured_tree) == measured_tree.as_ref());
    let next = match &cycle {
        _ if running.is_some() => "alpha loop status, when the other command has ended".to_owned(),
        None => {
            let target = session.config.target.as_ref().map_or(String::new(), |target| format!(" --target={target}"));
            format!("alpha loop start \"<hypothesis>\" --area=<area>{target}")
        }
        Some(_) => next(&working_tree, last.as_ref().filter(|_| is_of_this_tree)),
    };
    Ok(Status {
        schema: SCHEMA,
        attempt: last.map(|attempt| outcome(&attempt, is_of_this_tree)),
        accepted: accepted(session)?,
        weaker: weakened::at(&session.repository, &baseline, session.config.target.as_deref())?,
        cycle,
        running,
        working_tree,
        attempts,
        attempts_missing: known.missing(session),
        expected_false_commits: expected_false_commits(attempts, 0.025),
        layout: selftest::cached(session)?.map(|proof| proof.floors(&session.config).to_string()),
        ledger_problems: session.ledger.problems().iter().map(ToString::to_string).collect(),
        next,
    })
}

/// The working tree, and the hash of what is measured of it.
fn working_tree(session: &Session, baseline: &str, is_running: bool) -> (WorkingTree, Option<String>) {
    let (repository, unmeasured) = (&session.repository, session.config.unmeasured());
    let read = || -> Result<(WorkingTree, Option<String>), LoopError> {
        let tree = repository.snapshot(&unmeasured)?.tree;
        let measured_tree = repository.measured_tree(&tree, &unmeasured)?;
        let mut files = repository.changed_files(&repository.tree_of(baseline)?, &tree)?;
        files.retain(|path| !unmeasured.is_match(path));
        if files.is_empty() {
            return Ok((WorkingTree::Unchanged, Some(measured_tree)));
        }
        let failed_build = session.builds.log_without_build(repository, &tree, &session.config)?;
        let failed_build = failed_build.filter(|_| !is_running);
        Ok((WorkingTree::Changed { files, failed_build }, Some(measured_tree)))
    };
    read().unwrap_or_else(|error| {
        let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        (WorkingTree::Unusable { why: format!("{}{hint}", error.message) }, None)
    })
}

/// What to type in an open cycle, given the last attempt at the candidate as it is.
fn next(working_tree: &WorkingTree, attempt: Option<&Attempt>) -> String {
    const RUN: &str = "alpha loop run -m \"<summary>\"";
    match (working_tree, attempt.map(|attempt| attempt.verdict)) {
        (WorkingTree::Unusable { .. }, _) => "alpha loop status, when the working tree can be read".to_owned(),
        (WorkingTree::Unchanged, _) => format!("change the trainer, then {RUN}"),
        (WorkingTree::Changed { failed_build: Some(_), .. }, None) => format!("mend what its build says, then {RUN}"),
        (WorkingTree::Changed { .. }, None | Some(None)) => {
            format!("{RUN}, which does smoke, compare and commit; alpha loop compare for the verdict alone")
        }
        (_, Some(Some(Verdict::Faster | Verdict::Leaner))) => "alpha loop commit -m \"<summary>\"".to_owned(),
        (_, Some(Some(Verdict::Undecided))) => {
            "alpha loop compare --budget=…, which goes on, or alpha loop drop".to_owned()
        }
        (_, Some(Some(Verdict::Slower | Verdict::Same | Verdict::Refused))) => {
            format!("change the trainer, then {RUN}; or alpha loop drop \"<reason>\"")
        }
    }
}

/// An attempt in a line.
fn outcome(attempt: &Attempt, is_of_this_tree: bool) -> String {
    let outcome = match attempt.verdict {
        Some(verdict) => format!("{}: {}", verdict.name(), attempt.reason),
        None => format!("not ended: {} pairs; `alpha loop compare` goes on", attempt.pairs.len()),
    };
    if is_of_this_tree { outcome } else { format!("{outcome} (of an earlier edit)") }
}

/// The newest commit whose message names a record.
fn accepted(session: &Session) -> Result<Option<Accepted>, LoopError> {
    let log = session.repository.log("HEAD")?;
    let has_record =
        |entry: &&LogEntry| entry.trailers.iter().any(|(name, _)| name.eq_ignore_ascii_case(claim::RECORD));
    let Some(entry) = log.iter().find(has_record) else { return Ok(None) };
    let tree = session.repository.tree_of(&entry.id)?;
    let built = session.builds.has(&session.repository, &tree, &session.config)?;
    Ok(Some(Accepted { commit: entry.id.clone(), built }))
}

//! The open cycle: its hypothesis, its state, and the next command to type.

use pairbench::verdict::Verdict;
use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    attempt::confirmation::expected_false_commits,
    compare::{self, built_arms, selftest},
    git::LogEntry,
    parity::Tier,
    records::{claim, evidence, registry::Registry},
    review::weakened::{self, Weakened},
    store::{session::Session, state::Cycle},
    visible,
};

/// Version of [`Status`].
pub const STATUS_SCHEMA: &str = "alpha.loop.status/1";
/// Version of [`Dropped`].
pub const DROP_SCHEMA: &str = "alpha.loop.drop/1";
/// The kind of the records of cycles that were dropped.
pub const DROP_KIND: &str = "drop";

/// The state of a cycle.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// [`STATUS_SCHEMA`].
    pub schema: &'static str,
    /// The open cycle, if there is one.
    pub cycle: Option<Cycle>,
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

/// A commit that came through the gate.
#[derive(Clone, Debug, Serialize)]
pub struct Accepted {
    /// Its name.
    pub commit: String,
    /// Whether its build is cached, so that a comparison with it starts at once.
    pub built: bool,
}

/// A cycle that ended without a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dropped {
    /// [`DROP_SCHEMA`].
    pub schema: String,
    /// Its hypothesis.
    pub hypothesis: String,
    /// Why it ended.
    pub reason: Option<String>,
    /// Its declared area.
    pub area: Option<String>,
    /// Id of its record.
    #[serde(default)]
    pub record: String,
}

/// Opens a cycle.
pub fn start(
    session: &Session,
    hypothesis: &str,
    area: Option<&str>,
    tier: Tier,
    baseline: Option<&str>,
) -> Result<(), LoopError> {
    if hypothesis.trim().is_empty() {
        return Err(LoopError::usage("the hypothesis is empty")
            .hint("say what is to be shown: `alpha loop start \"fusing gelu saves a pass\"`"));
    }
    visible::check_length("the hypothesis", hypothesis)?;
    if let Some(cycle) = session.state.cycle()? {
        return Err(LoopError::usage(format!("a cycle is open: {}", visible::line(&cycle.hypothesis)))
            .hint("`alpha loop drop` ends it; `alpha loop status` says where it stands"));
    }
    if let Some(area) = area.filter(|area| !session.config.areas.contains_key(*area)) {
        let known: Vec<&str> = session.config.areas.keys().map(String::as_str).collect();
        return Err(LoopError::usage(format!("`{area}` is not an area of `loop.toml`"))
            .hint(format!("it has: {}", known.join(", "))));
    }
    let baseline = match baseline {
        Some(revision) => session.repository.resolve(revision)?,
        None => session.repository.head()?.commit,
    };
    let target = session.config.target.clone();
    session.state.open_cycle(&Cycle { target, ..Cycle::new(hypothesis.trim(), area, tier, &baseline) })
}

/// The state of the cycle. Builds nothing.
pub fn status(session: &Session) -> Result<Status, LoopError> {
    let cycle = session.state.cycle()?;
    let baseline = built_arms::baseline_commit(session, None)?;
    let known = Registry::read(session)?;
    let attempts = known.attempts(session);
    let last = compare::identity::last(session, cycle.as_ref())?;
    let target = session.config.target.as_ref().map_or(String::new(), |target| format!(" --target={target}"));
    let start = format!("alpha loop start \"<hypothesis>\" --area=<area>{target}");
    let next = match (&cycle, last.as_ref().and_then(|attempt| attempt.verdict)) {
        (None, _) => start.as_str(),
        (Some(_), None) => "change the trainer, then `alpha loop smoke` and `alpha loop compare`",
        (Some(_), Some(Verdict::Faster | Verdict::Leaner)) => "alpha loop commit -m \"<summary>\"",
        (Some(_), Some(Verdict::Undecided)) => "alpha loop compare --budget=…, which goes on, or alpha loop drop",
        (Some(_), Some(Verdict::Slower | Verdict::Same | Verdict::Refused)) => {
            "change the trainer and `alpha loop compare`, or `alpha loop drop`"
        }
    };
    Ok(Status {
        schema: STATUS_SCHEMA,
        attempt: last.map(|attempt| match attempt.verdict {
            Some(verdict) => format!("{}: {}", verdict.name(), attempt.reason),
            None => format!("not ended: {} pairs; `alpha loop compare` goes on", attempt.pairs.len()),
        }),
        accepted: accepted(session)?,
        weaker: weakened::at(&session.repository, &baseline, session.config.target.as_deref())?,
        cycle,
        attempts,
        attempts_missing: known.missing(session),
        expected_false_commits: expected_false_commits(attempts, 0.025),
        layout: selftest::cached(session)?.map(|proof| proof.floors(&session.config).to_string()),
        ledger_problems: session.ledger.problems().iter().map(ToString::to_string).collect(),
        next: next.to_owned(),
    })
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

/// Ends the cycle and records why. The working tree is not touched.
pub fn drop(session: &mut Session, reason: Option<&str>) -> Result<Dropped, LoopError> {
    if let Some(reason) = reason {
        visible::check_length("the reason", reason)?;
    }
    let Some(cycle) = session.state.cycle()? else {
        return Err(LoopError::usage("no cycle is open").hint("`alpha loop start` opens one"));
    };
    // An attempt without an answer is recorded too, if it has pairs.
    if let Some(mut open) = compare::identity::last(session, Some(&cycle))?.filter(|open| open.verdict.is_none()) {
        open.settle();
        if !open.pairs.is_empty() {
            session.attempts().save(&open)?;
            evidence::record(session, &open)?;
        }
    }
    let mut dropped = Dropped {
        schema: DROP_SCHEMA.to_owned(),
        hypothesis: cycle.hypothesis.clone(),
        reason: reason.map(str::to_owned),
        area: cycle.area.clone(),
        record: String::new(),
    };
    dropped.record = session.ledger.append(DROP_KIND, &dropped, None)?.to_string();
    session.state.close_cycle()?;
    Ok(dropped)
}

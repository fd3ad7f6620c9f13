//! Opening and ending a cycle.

use serde::{Deserialize, Serialize};

use crate::{
    LoopError, compare,
    parity::Tier,
    records::evidence,
    store::{session::Session, state::Cycle},
    visible,
};

/// Version of [`Dropped`].
pub const DROP_SCHEMA: &str = "alpha.loop.drop/1";
/// The kind of the records of cycles that were dropped.
pub const DROP_KIND: &str = "drop";

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

//! `alpha loop history`: all attempts, the accepted gains, and the benchmark's speed over time.

use std::fmt;

use pairbench::verdict::Verdict;
use serde::Serialize;

use crate::{
    LoopError,
    advise::import::{self, Levels},
    git::LogEntry,
    land::cycle::{self, Dropped},
    records::{claim::Claim, evidence},
    store::session::Session,
    visible::{self, short},
};

/// Version of [`History`].
pub const SCHEMA: &str = "alpha.loop.history/1";
/// The benchmark's rows, beside the ledger's folder.
const BENCHMARK: &str = "compiled-loop-history.csv";

/// The history in the ledger and the benchmark's file.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Attempts, the oldest first.
    pub attempts: Vec<Entry>,
    /// Cycles that ended without a commit, the oldest first.
    pub dropped: Vec<Dropped>,
    /// Product of the confirmed gains of one target, as a factor.
    pub accepted_product: f64,
    /// The benchmark's series, one for each configuration, with the levels between its change points.
    pub series: Vec<Levels>,
    /// Unusable parts of the benchmark's file.
    pub notes: Vec<String>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Id of its record.
    pub record: String,
    /// Its hypothesis.
    pub hypothesis: Option<String>,
    /// Its declared area.
    pub area: Option<String>,
    /// Its target of `loop.toml`, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its verdict.
    pub verdict: Option<Verdict>,
    /// The comparison's estimate, per cent.
    pub speedup_pct: Option<f64>,
    /// The confirmed gain, per cent.
    pub confirmed_pct: Option<f64>,
    /// Pairs, confirmation included.
    pub pairs: usize,
    /// Subject of the commit of this branch that claims it.
    pub subject: Option<String>,
}

/// Reads the ledger and the benchmark's file.
pub fn tell(session: &Session) -> Result<History, LoopError> {
    let log = session.repository.log("HEAD")?;
    let subject_of = |id: &str| {
        let claims =
            |entry: &&LogEntry| Claim::parse(&entry.message()).and_then(|claim| claim.record).as_deref() == Some(id);
        log.iter().find(claims).map(|entry| entry.subject.clone())
    };
    let attempts: Vec<Entry> = evidence::attempts(session)
        .into_iter()
        .map(|(id, record)| {
            let confirmed = record.confirmation.filter(|confirmation| confirmation.accepted);
            Entry {
                subject: subject_of(&id.to_string()),
                record: id.to_string(),
                hypothesis: record.attempt.hypothesis.clone(),
                area: record.attempt.area.clone(),
                target: record.attempt.manifest.target.clone(),
                verdict: record.verdict,
                speedup_pct: record.estimate.map(|estimate| estimate.speedup_pct),
                confirmed_pct: confirmed.and_then(|confirmed| confirmed.estimate).map(|estimate| estimate.speedup_pct),
                pairs: record.attempt.pairs.len() + record.confirmation.map_or(0, |confirmation| confirmation.pairs),
            }
        })
        .collect();
    let of_target = |entry: &&Entry| entry.target == session.config.target;
    let accepted_product = attempts
        .iter()
        .filter(of_target)
        .filter_map(|entry| entry.confirmed_pct)
        .map(|pct| 1.0 + pct / 100.0)
        .product();
    let ledger = session.repository.root().join(&session.config.ledger);
    let benchmark = ledger.parent().map(|folder| folder.join(BENCHMARK)).filter(|path| path.exists());
    let (series, notes) = match benchmark {
        None => (Vec::new(), Vec::new()),
        Some(path) => {
            let report = import::import(&import::Request { history: &path, claims: None, columns: None })?;
            (report.series, report.notes)
        }
    };
    let records = session.ledger.records().iter().filter(|record| record.kind == cycle::DROP_KIND);
    let dropped = records.filter_map(|record| record.body().ok()).collect();
    Ok(History { schema: SCHEMA, attempts, dropped, accepted_product, series, notes })
}

/// For a terminal.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.attempts {
            let verdict = entry.verdict.map_or("open", Verdict::name);
            let gain = match (entry.confirmed_pct, entry.speedup_pct) {
                (Some(pct), _) => format!("{pct:+.2} % confirmed"),
                (None, Some(pct)) => format!("{pct:+.2} %"),
                (None, None) => String::new(),
            };
            let what = entry.subject.as_deref().or(entry.hypothesis.as_deref()).unwrap_or("no cycle");
            let target = entry.target.as_ref().map_or(String::new(), |target| format!("{target}: "));
            let (record, pairs) = (short(&entry.record), entry.pairs);
            writeln!(f, "{record} {verdict:<9} {gain:<20} {pairs:>3} pairs  {target}{}", visible::line(what))?;
        }
        for dropped in &self.dropped {
            let reason = dropped.reason.as_deref().unwrap_or("no reason given");
            writeln!(f, "dropped      {}", visible::line(&format!("{}: {reason}", dropped.hypothesis)))?;
        }
        writeln!(f, "{} attempts, accepted gains multiply to x{:.4}", self.attempts.len(), self.accepted_product)?;
        for series in &self.series {
            let of = &series.configuration;
            writeln!(
                f,
                "benchmark {} {} ({} rows), as ratios to its beginning:",
                of.backend, of.workload, series.rows
            )?;
            for level in &series.levels {
                let change = level.change_pct.map_or_else(String::new, |pct| format!("  {pct:+.1} %"));
                writeln!(
                    f,
                    "  from {} ({}): x{:.3} over {} rows{change}",
                    level.time, level.commit, level.ratio, level.points
                )?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

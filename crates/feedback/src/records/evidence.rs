//! Attempts in the ledger.

use pairbench::verdict::{Estimate, Verdict};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    attempt::{Attempt, Revision},
    ledger::RecordId,
    records::fitting,
    store::session::Session,
};

/// The kind of an attempt's records.
pub const KIND: &str = "attempt";

/// The body of an attempt's record: its outcome in a few words first, then all of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The verdict; none if it was ended before there was one.
    pub verdict: Option<Verdict>,
    /// The verdict's reason, in a sentence.
    pub reason: String,
    /// Estimate of the comparison.
    pub estimate: Option<Estimate>,
    /// Result of the fresh pairs, if there were any.
    pub confirmation: Option<ConfirmationOutcome>,
    /// The claim of its commit, if it was confirmed. The first records lack it: there it is the confirmation's
    /// estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Estimate>,
    /// The baseline.
    pub baseline: Revision,
    /// The candidate.
    pub candidate: Revision,
    /// The whole attempt.
    pub attempt: Attempt,
}

/// Result of the fresh pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfirmationOutcome {
    /// Number of pairs.
    pub pairs: usize,
    /// Estimate of the gain.
    pub estimate: Option<Estimate>,
    /// Exact, one-sided.
    pub p: f64,
    /// Whether the gain is confirmed.
    pub accepted: bool,
}

impl AttemptRecord {
    /// The record of an attempt as it stands. Texts that do not fit are cut.
    pub fn of(attempt: &Attempt) -> AttemptRecord {
        fitting::fitted(attempt)
    }

    /// The same, whatever its size.
    pub(crate) fn whole(attempt: &Attempt) -> AttemptRecord {
        let confirmation = attempt.confirmation.as_ref().and_then(|confirmation| {
            Some(ConfirmationOutcome {
                pairs: confirmation.pairs.len(),
                estimate: confirmation.estimate,
                p: confirmation.p?,
                accepted: confirmation.accepted?,
            })
        });
        AttemptRecord {
            verdict: attempt.verdict,
            reason: attempt.reason.clone(),
            estimate: attempt.estimate,
            confirmation,
            claim: crate::attempt::confirmation::claimed(attempt).filter(|_| attempt.is_confirmed()),
            baseline: attempt.baseline.clone(),
            candidate: attempt.candidate.clone(),
            attempt: attempt.clone(),
        }
    }
}

/// Writes the attempt to the ledger, with its bulk data.
pub fn record(session: &mut Session, attempt: &Attempt) -> Result<RecordId, LoopError> {
    let path = session.attempts().bulk_path(&attempt.key);
    let bulk = match std::fs::read(&path) {
        Ok(bulk) => Some(bulk),
        // An attempt without pairs has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(LoopError::io("read", &path, &error)),
    };
    session.ledger.append(KIND, &AttemptRecord::of(attempt), bulk.as_deref())
}

/// The kind of the records of benchmark runs.
pub const BENCHMARK_KIND: &str = "benchmark";

/// A benchmark run that was recorded.
#[derive(Clone, Debug, Serialize)]
pub struct BenchmarkRecorded {
    /// Version of this object.
    pub schema: &'static str,
    /// The record.
    pub record: String,
}

/// Records a row of the benchmark's history, given as a line of names and a line of values.
pub fn record_benchmark(session: &mut Session, text: &str) -> Result<BenchmarkRecorded, LoopError> {
    let wrong = |what: &str| {
        LoopError::usage(format!("not a row of a benchmark: {what}"))
            .hint("a line of column names and a line of values, as `perf/compiled-loop-history.csv` has them")
    };
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
    let names = reader.headers().map_err(|error| wrong(&error.to_string()))?.clone();
    let row = reader.records().next().ok_or_else(|| wrong("there is one line, not two"))?;
    let row = row.map_err(|error| wrong(&error.to_string()))?;
    if !names.iter().any(|name| name == "status") {
        return Err(wrong("there is no column `status`"));
    }
    let body: std::collections::BTreeMap<&str, &str> = names.iter().zip(&row).collect();
    let record = session.ledger.append(BENCHMARK_KIND, &body, None)?.to_string();
    Ok(BenchmarkRecorded { schema: "alpha.loop.record-benchmark/1", record })
}

/// All attempts of the ledger, the oldest first; of several records of an attempt, the last.
pub fn attempts(session: &Session) -> Vec<(RecordId, AttemptRecord)> {
    let mut found: Vec<(RecordId, AttemptRecord)> = Vec::new();
    for record in session.ledger.records().iter().filter(|record| record.kind == KIND) {
        // This program cannot read attempts of another format; `verify` names them.
        let Ok(body) = record.body::<AttemptRecord>() else { continue };
        match found.iter_mut().find(|(_, known)| known.attempt.key == body.attempt.key) {
            Some(known) => *known = (record.id, body),
            None => found.push((record.id, body)),
        }
    }
    found
}

/// The attempt with this key, if the ledger has one.
pub fn find(session: &Session, key: &str) -> Result<Option<Attempt>, LoopError> {
    Ok(attempts(session).into_iter().map(|(_, record)| record.attempt).find(|attempt| attempt.key == key))
}

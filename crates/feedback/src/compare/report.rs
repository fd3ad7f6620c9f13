//! Reports for scripts: objects with a versioned schema (docs/loop-json.md).

use pairbench::verdict::Verdict;
use serde::Serialize;

use crate::{
    attempt::{Attempt, CounterRow, Revision, guard::GuardResult},
    parity::Parity,
    records::evidence,
    store::session::Session,
};

/// Version of [`CompareReport`].
pub const COMPARE_SCHEMA: &str = "alpha.loop.compare/1";

/// The outcome of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// [`COMPARE_SCHEMA`].
    pub schema: &'static str,
    /// `FASTER`, `LEANER`, `SLOWER`, `SAME`, `UNDECIDED`, `REFUSED`.
    pub verdict: Verdict,
    /// The verdict's reason, in a sentence.
    pub reason: String,
    /// Whether both arms were the same program on purpose.
    pub identical: bool,
    /// Gain in tok/s, per cent; none before the first look.
    pub speedup_pct: Option<f64>,
    /// Lower end of its interval.
    pub ci_low_pct: Option<f64>,
    /// Upper end.
    pub ci_high_pct: Option<f64>,
    /// Pairs that count.
    pub pairs: usize,
    /// Void pairs.
    pub voids: usize,
    /// Of the pairs that count, those that were lost: they have no measurement and count against the candidate.
    pub lost: usize,
    /// Standard deviation of a pair, per cent.
    pub pair_sd_pct: Option<f64>,
    /// Wall time of planning, pairs, parity and guards.
    pub seconds: f64,
    /// The part of it that is the loop's own work: neither trainers nor builds.
    pub own_seconds: f64,
    /// Whether both arms train the same.
    pub parity: Option<Parity>,
    /// Exact counters that differ.
    pub counters: Vec<CounterRow>,
    /// Results of the guards.
    pub guards: Vec<GuardResult>,
    /// The baseline.
    pub baseline: Revision,
    /// The candidate.
    pub candidate: Revision,
    /// Id of the ledger's record.
    pub record: Option<String>,
}

impl CompareReport {
    /// Reports an attempt as it stands.
    pub fn of(session: &Session, attempt: &Attempt) -> CompareReport {
        let record = evidence::attempts(session)
            .into_iter()
            .find(|(_, record)| record.attempt.key == attempt.key)
            .map(|(id, _)| id.to_string());
        let estimate = attempt.estimate;
        let seconds = &attempt.seconds;
        CompareReport {
            schema: COMPARE_SCHEMA,
            verdict: attempt.verdict.unwrap_or(Verdict::Undecided),
            reason: attempt.reason.clone(),
            identical: attempt.is_identical,
            speedup_pct: estimate.map(|estimate| estimate.speedup_pct),
            ci_low_pct: estimate.and_then(|estimate| estimate.ci_low_pct),
            ci_high_pct: estimate.and_then(|estimate| estimate.ci_high_pct),
            pairs: attempt.pairs.len(),
            voids: attempt.voids.len(),
            lost: attempt.pairs.iter().filter(|pair| pair.is_lost()).count(),
            pair_sd_pct: (attempt.pairs.len() > 2).then(|| {
                let sd = pairbench::stats::robust::mad_sd(&attempt.d());
                pairbench::verdict::pct_of_log(sd)
            }),
            seconds: seconds.of_comparison() + seconds.own,
            own_seconds: seconds.own,
            parity: attempt.parity.clone(),
            counters: attempt.counters.clone(),
            guards: attempt.guards.clone(),
            baseline: attempt.baseline.clone(),
            candidate: attempt.candidate.clone(),
            record,
        }
    }
}

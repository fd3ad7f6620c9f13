//! Judges a guard's numbers.

use std::fmt;

use pairbench::{
    stats::{equivalence::noninferiority_p, signed_rank::WalshAverages},
    verdict::{log_of_pct, pct_of_log},
};
use serde::{Deserialize, Serialize};

/// Pair numbers of guards begin here, away from those of the comparison.
pub(crate) const FIRST_NUMBER: u64 = 1_000_000;

/// What a guard found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardResult {
    /// Its name in `loop.toml`.
    pub name: String,
    /// How much worse is allowed.
    pub margin_pct: f64,
    /// How much worse the candidate is, by Hodges–Lehmann; negative is better.
    pub worse_pct: f64,
    /// Exact p against the margin.
    pub p: f64,
    /// Pairs that it rests on.
    pub pairs: usize,
    /// Whether it is shown to be within the margin.
    pub holds: bool,
}

/// `memory: 0.30 % worse where 5 % worse is let through (p = 0.0010, 10 pairs)`.
impl fmt::Display for GuardResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GuardResult { name, margin_pct, worse_pct, p, pairs, .. } = self;
        let (by, side) = (worse_pct.abs(), if *worse_pct > 0.0 { "worse" } else { "better" });
        write!(f, "{name}: {by:.2} % {side} where {margin_pct} % worse is let through (p = {p:.4}, {pairs} pairs)")
    }
}

/// Judges a guard's numbers at a one-sided level.
pub fn judge(name: &str, margin_pct: f64, d: &[f64], level: f64) -> GuardResult {
    let p = if d.is_empty() { 1.0 } else { noninferiority_p(d, log_of_pct(margin_pct)) };
    let centre = if d.is_empty() { 0.0 } else { WalshAverages::of(d).estimate() };
    GuardResult {
        name: name.to_owned(),
        margin_pct,
        worse_pct: pct_of_log(-centre),
        p,
        pairs: d.len(),
        holds: p <= level,
    }
}

//! What the loop reports while it works, to a terminal, a log or a test. Nothing in this crate prints.

/// Receives what a step of the loop reports while it works. Methods take `&self`: an implementation that has state
/// keeps it in a cell.
pub trait Progress {
    /// A line for the reader, such as what begins or what was found.
    fn note(&self, line: &str);

    /// How far a comparison is, after each pair.
    fn pairs(&self, _progress: &PairProgress) {}

    /// Whether the user asked to stop; polled between turns.
    fn is_stop_requested(&self) -> bool {
        false
    }
}

/// How far a comparison is.
#[derive(Clone, Debug, PartialEq)]
pub struct PairProgress {
    /// `compare`, `confirm`, `guard w2`, …
    pub stage: String,
    /// Pairs that count.
    pub pairs: usize,
    /// Pairs that were fixed beforehand.
    pub planned: usize,
    /// Estimate of the gain in per cent, positive where the candidate is faster; none before the first pairs.
    pub estimate_pct: Option<f64>,
    /// Its interval.
    pub interval_pct: Option<(f64, f64)>,
    /// Time since the comparison began.
    pub elapsed_s: f64,
    /// Time until the last planned pair, at the pace so far.
    pub left_s: f64,
    /// What is still missing for an answer, in words.
    pub needs: String,
}

/// Reports nothing. For tests, and for callers that only want the result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn note(&self, _line: &str) {}
}

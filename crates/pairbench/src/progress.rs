//! Who watches the loop at work: the terminal, a log, a test. Nothing in this crate prints.

/// What a step of the loop tells while it works. Takes `&self`: whoever needs to remember keeps a cell.
pub trait Progress {
    /// A line for the reader: what begins, what was found.
    fn note(&self, line: &str);

    /// Where a comparison stands, after each pair.
    fn pairs(&self, _progress: &PairProgress) {}

    /// Whether the user asked to stop; polled between turns.
    fn is_stop_requested(&self) -> bool {
        false
    }
}

/// Where a comparison stands.
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
    /// Since the comparison began.
    pub elapsed_s: f64,
    /// Until the last planned pair, at the pace so far.
    pub left_s: f64,
    /// What an answer still needs, in words.
    pub needs: String,
}

/// Drops every word. For tests, and for callers that only want the result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn note(&self, _line: &str) {}
}

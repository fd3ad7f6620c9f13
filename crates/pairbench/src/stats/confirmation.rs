//! Confirmation: fresh pairs, a number fixed beforehand, one look, one side.
//!
//! It is independent of the comparison before it, so its level and the comparison's multiply. Its plain estimate was
//! not selected by the comparison. It is selected by this test: a number that is published only where the test passes
//! is too large on average, the more so the lower the power. [`conditional`](super::conditional) corrects for that.

use super::{
    Interval,
    signed_rank::{WalshAverages, critical_value, p_greater},
};

/// The result of fresh pairs of a candidate that was found faster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confirmation {
    /// Exact one-sided p of the signed-rank test.
    pub p: f64,
    /// Whether `p` is at most the level.
    pub confirmed: bool,
    /// Plain Hodges–Lehmann estimate, not corrected for having passed.
    pub estimate: f64,
    /// Each end is at the level: 95 % in all at the usual 2.5 %.
    pub interval: Interval,
}

/// The verdict of `d`, whose number of pairs was fixed before the first, at a one-sided `level` such as 0.025.
pub fn confirm(d: &[f64], level: f64) -> Confirmation {
    let p = p_greater(d);
    let averages = WalshAverages::of(d);
    let interval = critical_value(d.len(), level).map_or(Interval::UNBOUNDED, |critical| averages.interval(critical));
    Confirmation { p, confirmed: p <= level, estimate: averages.estimate(), interval }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn ten_pairs_confirm_when_nearly_all_agree() {
        // T = 8 is the published critical value of 10 pairs at 2.5 %; ranks 8, and 1 and 8, are negative.
        let mut d: Vec<f64> = (1..=10).map(f64::from).collect();
        d[7] = -8.0;
        let confirmation = confirm(&d, 0.025);
        assert!(confirmation.confirmed && confirmation.interval.is_above(0.0), "{confirmation:?}");
        // Subsets of 1..10 with a sum of at most 8: 25 of 1024.
        assert_eq!(confirmation.p, 25.0 / 1024.0);
        assert!(!confirm(&d, 0.0125).confirmed);
        d[0] = -1.0;
        let confirmation = confirm(&d, 0.025);
        assert!(!confirmation.confirmed && confirmation.interval.contains(0.0), "{confirmation:?}");
    }

    #[test]
    fn too_few_pairs_confirm_nothing() {
        let confirmation = confirm(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.025);
        assert!(!confirmation.confirmed && confirmation.interval == Interval::UNBOUNDED);
        assert!(!confirm(&[], 0.025).confirmed);
    }
}

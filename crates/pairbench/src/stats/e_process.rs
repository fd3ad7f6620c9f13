//! Evidence that may be looked at after every pair and never ends: a test by betting on the signs.
//!
//! Under no difference, the sign of d is a fair coin given |d| and all that came before. A bet of strength λ multiplies
//! its stake by 2e^{λd/s} / (e^{λd/s} + e^{−λd/s}), which on average is 1; s is the median |d| of the pairs before, so
//! it is known when the bet is made. The stake is spread evenly over λ = ¼, ½, 1, 2. The grown stake, e, ever exceeds
//! 1/α with probability at most α (Ville's inequality; Ramdas, Grünwald, Vovk and Shafer, Statistical Science 38
//! (2023), §2 and 4). With two sides a side's threshold is 2/α.
//!
//! No bet is made while there is no scale: on the first pair, and while the median of those before is zero.

use std::f64::consts::LN_2;

use super::{Interval, robust::quantile_of_sorted};

const STRENGTHS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// The bets on a series of pairs.
#[derive(Debug, Clone)]
pub struct EProcess {
    /// Difference and scale of each pair with a bet.
    bets: Vec<(f64, f64)>,
}

impl EProcess {
    /// Bets on all pairs, in the order in which they were measured.
    pub fn of(d: &[f64]) -> EProcess {
        let mut before: Vec<f64> = Vec::with_capacity(d.len());
        let mut bets = Vec::with_capacity(d.len());
        for &d in d {
            let scale = quantile_of_sorted(&before, 0.5);
            if scale > 0.0 {
                bets.push((d, scale));
            }
            before.insert(before.partition_point(|other| *other < d.abs()), d.abs());
        }
        EProcess { bets }
    }

    /// ln e against "the difference is at most `theta`".
    pub fn ln_e_above(&self, theta: f64) -> f64 {
        self.ln_e(|d| d - theta)
    }

    /// ln e against "the difference is at least `theta`".
    pub fn ln_e_below(&self, theta: f64) -> f64 {
        self.ln_e(|d| theta - d)
    }

    /// The differences that neither side's bets reject at the two-sided level `alpha`: with probability 1 − `alpha` the
    /// true one is in it after every pair, if the noise is symmetric.
    pub fn interval(&self, alpha: f64) -> Interval {
        let threshold = (2.0 / alpha).ln();
        if self.bets.len() as f64 * LN_2 <= threshold {
            return Interval::UNBOUNDED;
        }
        let differences = || self.bets.iter().map(|(d, _)| *d);
        let lowest = differences().fold(f64::INFINITY, f64::min);
        let highest = differences().fold(f64::NEG_INFINITY, f64::max);
        Interval {
            low: -first_at_least(threshold, -highest, |theta| self.ln_e_above(-theta)),
            high: first_at_least(threshold, lowest, |theta| self.ln_e_below(theta)),
        }
    }

    /// `gain` says how far a pair lies on the side of the bet.
    fn ln_e(&self, gain: impl Fn(f64) -> f64) -> f64 {
        let ln_stake = |strength: f64| -> f64 {
            self.bets.iter().map(|&(d, scale)| LN_2 - softplus(-2.0 * strength * gain(d) / scale)).sum()
        };
        let stakes = STRENGTHS.map(ln_stake);
        let largest = stakes.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = stakes.iter().map(|stake| (stake - largest).exp()).sum();
        largest + (sum / STRENGTHS.len() as f64).ln()
    }
}

/// ln(1 + eˣ) for any x.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Where the ascending `function`, which is less at `start`, reaches `threshold`.
fn first_at_least(threshold: f64, start: f64, function: impl Fn(f64) -> f64) -> f64 {
    let mut width = f64::MIN_POSITIVE;
    while function(start + width) < threshold {
        width *= 2.0;
    }
    let (mut below, mut reached) = (start, start + width);
    loop {
        let middle = below.midpoint(reached);
        if middle <= below || middle >= reached {
            return reached;
        }
        if function(middle) < threshold {
            below = middle;
        } else {
            reached = middle;
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    fn signed(magnitudes: &[f64], signs: u32) -> Vec<f64> {
        magnitudes.iter().enumerate().map(|(i, m)| if signs >> i & 1 == 1 { *m } else { -m }).collect()
    }

    /// This makes it a test: over all assignments of signs to given magnitudes, e is 1 on average.
    #[test]
    fn the_bets_are_fair() {
        for magnitudes in
            [[0.3, 0.1, 2.0, 0.7, 0.2, 9.0, 0.4, 0.5, 1.1, 0.6], [0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 5.0, 1.0, 0.1, 1e-9]]
        {
            let e = |signs| EProcess::of(&signed(&magnitudes, signs)).ln_e_above(0.0).exp();
            let mean = (0..1 << 10).map(e).sum::<f64>() / 1024.0;
            assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        }
    }

    #[test]
    fn one_bet_by_hand() {
        // The second pair is bet on with s = 2: factors 2/(1 + e^(−λ)), since 2λd/s = λ.
        let expected = STRENGTHS.map(|strength| 2.0 / (1.0 + (-strength).exp())).iter().sum::<f64>() / 4.0;
        let e = EProcess::of(&[-2.0, 1.0]);
        assert!((e.ln_e_above(0.0) - expected.ln()).abs() < 1e-15);
        assert_eq!(EProcess::of(&[5.0]).ln_e_above(0.0), 0.0);
        assert_eq!(EProcess::of(&[]).interval(0.05), Interval::UNBOUNDED);
    }

    #[test]
    fn huge_differences_stay_finite() {
        let d: Vec<f64> = iter_alternating(400).map(|sign| sign * 1e300).chain([1e-300; 100]).collect();
        let e = EProcess::of(&d);
        assert!(e.ln_e_above(0.0).is_finite() && e.ln_e_below(0.0).is_finite());
    }

    /// Ville: of 1000 series without a difference, looked at after each of 60 pairs, at most 2.5 % ever cross.
    #[test]
    fn it_rarely_crosses_without_a_difference() {
        let mut rng = fastrand::Rng::with_seed(1);
        let crosses = |_: &i32| {
            let d: Vec<f64> = (0..60).map(|_| (rng.f64() - 0.5) / (rng.f64() + 0.01)).collect();
            (1..=60).any(|pairs| EProcess::of(&d[..pairs]).ln_e_above(0.0) >= 40_f64.ln())
        };
        let crossed = (0..1000).filter(crosses).count();
        assert!(crossed <= 25 + 4 * 5, "{crossed}");
        assert!(crossed > 0, "the test would pass without a test");
    }

    #[test]
    fn the_interval_ends_where_the_bets_begin_to_win() {
        let mut rng = fastrand::Rng::with_seed(2);
        let d: Vec<f64> = (0..60).map(|_| 0.3 + rng.f64()).collect();
        let e = EProcess::of(&d);
        let interval = e.interval(0.05);
        let threshold = 40_f64.ln();
        assert!(e.ln_e_above(interval.low - 1e-9) >= threshold && e.ln_e_above(interval.low + 1e-9) < threshold);
        assert!(e.ln_e_below(interval.high + 1e-9) >= threshold && e.ln_e_below(interval.high - 1e-9) < threshold);
        assert!(interval.contains(0.8) && interval.is_above(0.3) && interval.is_below(1.3), "{interval:?}");
    }

    fn iter_alternating(count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(|index| if index % 2 == 0 { 1.0 } else { -1.0 })
    }
}

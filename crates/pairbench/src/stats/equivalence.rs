//! Tests that two things are the same, or one not worse, within a margin that was fixed beforehand.
//!
//! "No difference found" proves nothing here: the test must reject the difference, so few values or much noise give
//! "not shown". Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987): two one-sided t-tests.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Interval, signed_rank::p_greater};

/// Outcome of [`equivalence`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equivalence {
    /// Mean difference.
    pub mean: f64,
    /// The larger p of both tests: that the mean is −margin or less, and that it is margin or more.
    pub p: f64,
    /// Interval for the mean with coverage 1 − 2 level: inside ±margin exactly where both tests reject.
    pub interval: Interval,
    /// Whether both tests reject.
    pub equivalent: bool,
}

/// Whether the mean of `differences` (normal, or many) lies inside ±`margin`, each side at `level`, such as 0.05.
///
/// Fewer than two differences show nothing: p is 1.
pub fn equivalence(differences: &[f64], margin: f64, level: f64) -> Equivalence {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let Ok(student) = StudentsT::new(0.0, 1.0, n - 1.0) else {
        return Equivalence { mean, p: 1.0, interval: Interval::UNBOUNDED, equivalent: false };
    };
    let variance = differences.iter().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let standard_error = (variance / n).sqrt();
    // Differences that are all equal leave no doubt: t is infinite, or 0/0 on the margin itself, where nothing is shown.
    let t = (margin - mean.abs()) / standard_error;
    let p = if t.is_nan() { 1.0 } else { student.sf(t) };
    let half_width = standard_error * student.inverse_cdf(1.0 - level);
    let interval = Interval { low: mean - half_width, high: mean + half_width };
    Equivalence { mean, p, interval, equivalent: p <= level }
}

/// Exact p of the signed-rank test of "slower by `margin` or more": small where the candidate is not inferior.
///
/// `d` as everywhere (positive: faster) and `margin` a positive logarithm; assumes `d` symmetric about its centre.
pub fn noninferiority_p(d: &[f64], margin: f64) -> f64 {
    p_greater(&d.iter().map(|d| d + margin).collect::<Vec<_>>())
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn no_data_and_no_spread() {
        assert!(!equivalence(&[], 1.0, 0.05).equivalent);
        assert!(!equivalence(&[0.0], 1.0, 0.05).equivalent);
        assert!(equivalence(&[0.5, 0.5], 1.0, 0.05).equivalent);
        assert!(!equivalence(&[1.5, 1.5], 1.0, 0.05).equivalent);
        assert!(!equivalence(&[1.0, 1.0], 1.0, 0.05).equivalent);
        assert!(!equivalence(&[0.0, f64::NAN], 1.0, 0.05).equivalent);
    }

    /// Two differences: t with one degree of freedom is Cauchy, whose tail is ½ − atan(t)/π.
    #[test]
    fn two_differences_follow_cauchy() {
        let Equivalence { mean, p, interval, .. } = equivalence(&[-1.0, 2.0], 4.0, 0.05);
        let standard_error = 1.5;
        assert!((mean - 0.5).abs() < 1e-15);
        assert!((p - (0.5 - (3.5_f64 / standard_error).atan() / std::f64::consts::PI)).abs() < 1e-12, "{p}");
        let half_width = standard_error * (0.45 * std::f64::consts::PI).tan();
        assert!((interval.high - mean - half_width).abs() < 1e-8 && (mean - interval.low - half_width).abs() < 1e-8);
    }

    #[test]
    fn not_inferior_by_hand() {
        // With a margin of 2 every difference is positive: p = 1/2⁵.
        assert_eq!(noninferiority_p(&[-1.5, 0.0, 0.3, -1.0, 1.0], 2.0), 1.0 / 32.0);
        assert!(noninferiority_p(&[-1.5, 0.0, 0.3, -1.0, 1.0], 0.0) > 0.5);
    }
}

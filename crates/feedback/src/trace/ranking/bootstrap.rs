//! Interval of a kernel's share by block bootstrap: a block is a process, because steps of one process
//! are not independent.
//!
//! Percentile interval of a ratio of sums (Davison and Hinkley, 1997, section 5.3); seeded, so that
//! equal traces give equal reports.

use pairbench::stats::bootstrap::percentile_interval;

const RESAMPLES: usize = 1000;

/// 95 % interval of Σ part ÷ Σ whole over processes, given as `(part, whole)`; none for one process.
pub(super) fn share_interval(processes: &[(f64, f64)]) -> Option<(f64, f64)> {
    let share = |drawn: &[&(f64, f64)]| {
        let (part, whole) = drawn.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        part / whole
    };
    let interval = percentile_interval(processes, 0.95, RESAMPLES, 0, share);
    (interval.low.is_finite() && interval.high.is_finite()).then_some((interval.low, interval.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_processes_leave_no_doubt_and_one_leaves_all() {
        assert_eq!(share_interval(&[(1.0, 4.0)]), None);
        assert_eq!(share_interval(&[(1.0, 4.0); 3]), Some((0.25, 0.25)));
        // Two processes: both drawn once, or either twice, which is a quarter each.
        assert_eq!(share_interval(&[(1.0, 4.0), (3.0, 4.0)]), Some((0.25, 0.75)));
    }

    #[test]
    fn the_interval_covers_the_true_share() {
        // Normal parts, so that the standard error is known: 0.02 / √25 about 0.3.
        let mut random = fastrand::Rng::with_seed(7);
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let (mut covered, mut width) = (0, 0.0);
        for _ in 0..200 {
            let processes: Vec<(f64, f64)> = (0..25).map(|_| (0.3 + 0.02 * normal(), 1.0)).collect();
            let (low, high) = share_interval(&processes).unwrap();
            covered += usize::from(low <= 0.3 && 0.3 <= high);
            width += (high - low) / 200.0;
        }
        // 95 % of 200 is 190, standard error 3; percentile intervals of 25 are a little short.
        assert!((175..=199).contains(&covered), "{covered}");
        let normal_width = 2.0 * 1.96 * 0.02 / 5.0;
        assert!((width / normal_width - 1.0).abs() < 0.1, "{width}");
    }
}

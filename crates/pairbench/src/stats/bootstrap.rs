//! Intervals by resampling whole blocks, such as everything that one process measured.
//!
//! Values within a block depend on each other, so a block is never divided; blocks are drawn with replacement, as many
//! as there are. Efron and Tibshirani, An Introduction to the Bootstrap (1993), §13.3 (percentile interval); Davison
//! and Hinkley, Bootstrap Methods and their Application (1997), §3.8 (resampling the top level alone).

use super::{Interval, robust::quantile_of_sorted};

/// Percentile interval of `statistic` with the given `coverage`, such as 0.95, from `resamples` draws of the blocks.
///
/// A draw whose statistic is NaN, for instance 0/0, is left out. The interval is unbounded where no draw is left, and
/// with fewer than two blocks, which do not show how much blocks differ.
pub fn percentile_interval<B>(
    blocks: &[B],
    coverage: f64,
    resamples: usize,
    seed: u64,
    statistic: impl Fn(&[&B]) -> f64,
) -> Interval {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut draw = || -> Vec<&B> { (0..blocks.len()).map(|_| &blocks[rng.usize(..blocks.len())]).collect() };
    if blocks.len() < 2 {
        return Interval::UNBOUNDED;
    }
    let mut values: Vec<f64> = (0..resamples).map(|_| statistic(&draw())).filter(|value| !value.is_nan()).collect();
    if values.is_empty() {
        return Interval::UNBOUNDED;
    }
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - coverage) / 2.0;
    Interval { low: quantile_of_sorted(&values, tail), high: quantile_of_sorted(&values, 1.0 - tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(draw: &[&Vec<f64>]) -> f64 {
        let values = draw.iter().flat_map(|block| block.iter());
        values.clone().sum::<f64>() / values.count() as f64
    }

    /// Two blocks: a mean of 0, ½ or 1 with probabilities ¼, ½, ¼, however many values a block has.
    #[test]
    fn blocks_stay_whole() {
        let blocks = [vec![0.0; 10], vec![1.0; 10]];
        let interval = |coverage| percentile_interval(&blocks, coverage, 20_000, 7, mean);
        assert_eq!(interval(0.9), Interval { low: 0.0, high: 1.0 });
        assert_eq!(interval(0.4), Interval { low: 0.5, high: 0.5 });
    }

    /// The mean of n draws from n values v has variance Σ(v − v̄)²/n², and is nearly normal.
    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_it_should_be() {
        let blocks: Vec<Vec<f64>> = (0..40).map(|value| vec![f64::from(value)]).collect();
        let interval = percentile_interval(&blocks, 0.95, 20_000, 1, mean);
        let variance = blocks.iter().map(|block| (block[0] - 19.5).powi(2)).sum::<f64>() / 1600.0;
        let half_width = 1.96 * variance.sqrt();
        assert!(((interval.high - interval.low) / (2.0 * half_width) - 1.0).abs() < 0.04, "{interval:?} {half_width}");
        assert_eq!(interval, percentile_interval(&blocks, 0.95, 20_000, 1, mean));
    }

    #[test]
    fn too_little_bounds_nothing() {
        assert_eq!(percentile_interval(&[vec![1.0]], 0.95, 100, 0, mean), Interval::UNBOUNDED);
        assert_eq!(percentile_interval(&[vec![], vec![]], 0.95, 100, 0, mean), Interval::UNBOUNDED);
    }
}

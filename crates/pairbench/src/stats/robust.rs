//! Location, spread and ranks that a few outliers do not change.
//!
//! Without values every statistic is NaN, which no comparison accepts.

/// The factor from the median absolute deviation of normal noise to its standard deviation.
const MAD_TO_SD: f64 = 1.482_602_218_505_602;

/// The middle value; of an even number, the mean of the middle two.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Standard deviation of normal noise with the same median absolute deviation from the median.
pub fn mad_sd(values: &[f64]) -> f64 {
    let centre = median(values);
    let deviations: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    MAD_TO_SD * median(&deviations)
}

/// The value below which a `fraction` (0 to 1) of the values lie, by linear interpolation between order statistics:
/// type 7 of Hyndman and Fan, Sample quantiles in statistical packages, The American Statistician 50 (1996), which is
/// what numpy and R do.
pub fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile_of_sorted(&sorted, fraction)
}

/// [`quantile`] of sorted values.
pub(super) fn quantile_of_sorted(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = last as f64 * fraction.clamp(0.0, 1.0);
    let below = position as usize;
    let above = (below + 1).min(last);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// Rank of each value, from 1 for the smallest; equal values share the mean of their ranks.
pub fn mid_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    // In ascending order, values that are not less are equal.
    for equal in order.chunk_by(|&a, &b| values[a] >= values[b]) {
        for &index in equal {
            ranks[index] = below as f64 + (equal.len() + 1) as f64 / 2.0;
        }
        below += equal.len();
    }
    ranks
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_statistics_by_hand() {
        assert_eq!(median(&[3.0, -1.0, 7.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), 3.0);
        // R: quantile(c(1, 2, 4, 8), 0.3, type = 7)
        assert!((quantile(&[8.0, 1.0, 4.0, 2.0], 0.3) - 1.9).abs() < 1e-15);
        assert_eq!((quantile(&[5.0, 6.0], -1.0), quantile(&[5.0, 6.0], 2.0)), (5.0, 6.0));
        assert!(median(&[]).is_nan() && mad_sd(&[]).is_nan());
    }

    #[test]
    fn mad_sd_ignores_one_wild_value() {
        // Deviations from 3 are 2, 1, 0, 1, 997: their median is 1.
        assert_eq!(mad_sd(&[1.0, 2.0, 3.0, 4.0, 1000.0]), MAD_TO_SD);
    }

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(mid_ranks(&[2.0, 1.0, 2.0, 0.0, 2.0]), [4.0, 2.0, 4.0, 1.0, 4.0]);
        assert_eq!(mid_ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    }

    proptest! {
        /// Definition: one half, plus the values below, plus half of those that are equal (itself included).
        #[test]
        fn mid_ranks_are_what_counting_gives(values in prop::collection::vec(-5_i32..5, 0..30)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            for (rank, value) in mid_ranks(&values).iter().zip(&values) {
                let below = values.iter().filter(|other| *other < value).count() as f64;
                let equal = values.iter().filter(|other| *other == value).count() as f64;
                prop_assert_eq!(*rank, below + equal.midpoint(1.0));
            }
        }
    }
}

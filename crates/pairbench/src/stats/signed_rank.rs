//! Wilcoxon's signed-rank test of paired differences, exact, with the estimate and the interval that belong to it.
//!
//! W⁺ is the sum of the ranks of |d| over the positive differences. Equal |d| share the mean of their ranks; a zero has a
//! rank like any other and gives half of it to each side. P-values are of the signs alone, with the magnitudes |d| given:
//! every non-zero difference is positive with probability ½. They are therefore exact with ties and zeros too, and for
//! any distribution of |d|, provided that the sign of each difference is a fair coin.
//!
//! Estimate and interval rest on the Walsh averages (dᵢ + dⱼ)/2, i ≤ j: without ties and zeros, W⁺ is the number of
//! those above zero. With them, the number of those *strictly* above zero is W⁺ with every tie broken against the
//! positive side and zeros counted as negative: the smallest W⁺ that breaking ties at random could give. So "the
//! interval lies above zero" is never easier to reach than the test with all ties broken by fair draws.
//!
//! Wilcoxon, Biometrics Bulletin 1 (1945); Pratt, JASA 54 (1959) for ranking zeros; Hodges and Lehmann, Annals of
//! Mathematical Statistics 34 (1963); Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (2014), §3.1–3.3.

use super::{
    Interval,
    robust::{mid_ranks, quantile_of_sorted},
};

/// The sum of the ranks of the positive differences, each zero giving half of its rank.
/// The other side has n(n + 1)/2 less this.
pub fn w_plus(d: &[f64]) -> f64 {
    let share = |d: f64| if d > 0.0 { 1.0 } else { f64::from(d == 0.0) / 2.0 };
    ranks_of_magnitudes(d).iter().zip(d).map(|(rank, &d)| rank * share(d)).sum()
}

/// Number of Walsh averages above zero, which is W⁺ with ties and zeros against the positive side.
pub fn walsh_above_zero(d: &[f64]) -> u32 {
    let mut by_magnitude = d.to_vec();
    by_magnitude.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()).then(b.total_cmp(a)));
    by_magnitude.iter().zip(1..).map(|(&d, rank)| if d > 0.0 { rank } else { 0 }).sum()
}

/// Probability of a W⁺ at least as large as this one, if all signs were fair draws.
pub fn p_greater(d: &[f64]) -> f64 {
    // Twice a mid-rank is an integer. Zeros add the same to every outcome and so do not matter.
    let doubled: Vec<(usize, bool)> = ranks_of_magnitudes(d)
        .iter()
        .zip(d)
        .filter(|(_, d)| **d != 0.0)
        .map(|(rank, &d)| ((2.0 * rank) as usize, d > 0.0))
        .collect();
    let observed: usize = doubled.iter().filter(|(_, positive)| *positive).map(|(rank, _)| rank).sum();
    let mass = null_distribution(doubled.iter().map(|(rank, _)| *rank));
    mass[observed..].iter().rev().sum::<f64>().min(1.0)
}

/// Probability of a W⁺ at least this far from its middle on either side: twice the smaller tail.
pub fn p_two_sided(d: &[f64]) -> f64 {
    let negated: Vec<f64> = d.iter().map(|d| -d).collect();
    (2.0 * p_greater(d).min(p_greater(&negated))).min(1.0)
}

/// The smallest c with P(W⁺ ≥ c) ≤ `level` for `pairs` differences without ties; none if even the largest W⁺ is more
/// probable.
pub fn critical_value(pairs: usize, level: f64) -> Option<u32> {
    critical_value_of(&null_distribution(1..=pairs), level)
}

/// [`critical_value`] for 1, 2, 3 … pairs.
pub fn critical_values(level: f64) -> impl Iterator<Item = Option<u32>> {
    let mut mass = vec![1.0];
    (1..).map(move |rank| {
        add_rank(&mut mass, rank);
        critical_value_of(&mass, level)
    })
}

fn critical_value_of(mass: &[f64], level: f64) -> Option<u32> {
    let mut tail = 0.0;
    let rejected = mass.iter().rev().take_while(|&&mass| {
        tail += mass;
        tail <= level
    });
    match rejected.count() {
        0 => None,
        count => Some((mass.len() - count) as u32),
    }
}

/// The means of all pairs of differences, including each with itself, in ascending order.
#[derive(Debug, Clone)]
pub struct WalshAverages(Vec<f64>);

impl WalshAverages {
    /// Computes all n(n + 1)/2 averages of n differences.
    pub fn of(d: &[f64]) -> WalshAverages {
        let mut averages = Vec::with_capacity(d.len() * (d.len() + 1) / 2);
        for (index, a) in d.iter().enumerate() {
            averages.extend(d[..=index].iter().map(|b| a.midpoint(*b)));
        }
        averages.sort_unstable_by(f64::total_cmp);
        WalshAverages(averages)
    }

    /// The estimate of Hodges and Lehmann: their median. NaN of no differences.
    pub fn estimate(&self) -> f64 {
        quantile_of_sorted(&self.0, 0.5)
    }

    /// The values θ at which neither side of d − θ has a W of `critical` or more.
    ///
    /// Coverage is 1 − 2 P(W⁺ ≥ `critical`) if the differences are symmetric about their centre.
    pub fn interval(&self, critical: u32) -> Interval {
        let critical = critical.max(1) as usize;
        match self.0.len().checked_sub(critical) {
            // Below even odds the ends would cross.
            Some(low) if low < critical => Interval { low: self.0[low], high: self.0[critical - 1] },
            Some(_) => Interval { low: self.estimate(), high: self.estimate() },
            None => Interval::UNBOUNDED,
        }
    }
}

fn ranks_of_magnitudes(d: &[f64]) -> Vec<f64> {
    mid_ranks(&d.iter().map(|d| d.abs()).collect::<Vec<_>>())
}

/// Probability of each sum of `ranks` when every rank is in it with probability ½. Computed one rank after the other.
fn null_distribution(ranks: impl Iterator<Item = usize>) -> Vec<f64> {
    let mut mass = vec![1.0];
    ranks.for_each(|rank| add_rank(&mut mass, rank));
    mass
}

/// The distribution with one more rank.
fn add_rank(mass: &mut Vec<f64>, rank: usize) {
    mass.resize(mass.len() + rank, 0.0);
    // From above, so that the sums below are still those without the rank.
    for sum in (0..mass.len()).rev() {
        let without = mass[sum];
        let with = sum.checked_sub(rank).map_or(0.0, |rest| mass[rest]);
        mass[sum] = without / 2.0 + with / 2.0;
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every assignment of signs: the share of those whose W⁺ is at least that of `d`.
    fn p_by_enumeration(d: &[f64]) -> f64 {
        let signed = |signs: u32| -> Vec<f64> {
            let sign = |index: usize| if signs >> index & 1 == 1 { 1.0 } else { -1.0 };
            d.iter().enumerate().map(|(index, d)| sign(index) * d.abs()).collect()
        };
        let outcomes = 1 << d.len();
        let extreme = (0..outcomes).filter(|&signs| w_plus(&signed(signs)) >= w_plus(d)).count();
        extreme as f64 / f64::from(outcomes)
    }

    fn distinct() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-1.0_f64..1.0, 1..25)
    }

    #[test]
    fn by_hand() {
        // |d| ranks: 0 → 1, 1 and 1 → 2.5, 3 → 4, 5 → 5.
        let d = [1.0, -1.0, 0.0, 5.0, -3.0];
        assert_eq!(w_plus(&d), 0.5 + 2.5 + 5.0);
        // Ties and zeros against the positive side: only the ranks 2 and 5 are left.
        assert_eq!(walsh_above_zero(&d), 7);
        assert_eq!(p_greater(&[1.0, 2.0, 3.0]), 0.125);
        assert_eq!(p_two_sided(&[-1.0, -2.0, -3.0]), 0.25);
        assert_eq!(p_greater(&[0.0, 0.0]), 1.0);
        assert_eq!((p_greater(&[]), w_plus(&[])), (1.0, 0.0));
    }

    proptest! {
        #[test]
        fn p_is_that_of_all_assignments_of_signs(values in prop::collection::vec(-4_i32..5, 0..11)) {
            let d: Vec<f64> = values.into_iter().map(f64::from).collect();
            prop_assert!((p_greater(&d) - p_by_enumeration(&d)).abs() < 1e-12);
        }

        #[test]
        fn without_ties_the_rank_sum_counts_walsh_averages(d in distinct()) {
            let above = WalshAverages::of(&d).0.iter().filter(|average| **average > 0.0).count() as u32;
            prop_assert_eq!(above, walsh_above_zero(&d));
            prop_assert_eq!(f64::from(above), w_plus(&d));
        }

        #[test]
        fn ties_and_zeros_never_help(values in prop::collection::vec(-3_i32..4, 0..25)) {
            let d: Vec<f64> = values.into_iter().map(f64::from).collect();
            let above = WalshAverages::of(&d).0.iter().filter(|average| **average > 0.0).count() as u32;
            prop_assert_eq!(above, walsh_above_zero(&d));
            prop_assert!(f64::from(above) <= w_plus(&d));
        }

        /// Just inside an end of the interval the test does not reject, just outside it does.
        #[test]
        fn the_interval_ends_where_the_test_begins_to_reject(d in distinct(), share in 0.6_f64..1.0) {
            let critical = ((d.len() * (d.len() + 1) / 2) as f64 * share).ceil() as u32;
            let interval = WalshAverages::of(&d).interval(critical);
            let rejects_above = |theta: f64| walsh_above_zero(&d.iter().map(|d| d - theta).collect::<Vec<_>>()) >= critical;
            let rejects_below = |theta: f64| walsh_above_zero(&d.iter().map(|d| theta - d).collect::<Vec<_>>()) >= critical;
            prop_assert!(rejects_above(interval.low - 1e-9) && !rejects_above(interval.low + 1e-9));
            prop_assert!(rejects_below(interval.high + 1e-9) && !rejects_below(interval.high - 1e-9));
            let estimate = WalshAverages::of(&d).estimate();
            prop_assert!(interval.contains(estimate), "{:?} {}", interval, estimate);
        }
    }

    /// Largest T, the smaller rank sum, that rejects at 2.5 % one-sided, for n = 6, 7, …: OEIS A226330, after Mitic,
    /// The Mathematica Journal 6 (1996).
    const PUBLISHED: [u32; 45] = [
        0, 2, 3, 5, 8, 10, 13, 17, 21, 25, 29, 34, 40, 46, 52, 58, 65, 73, 81, 89, 98, 107, 116, 126, 137, 147, 159,
        170, 182, 195, 208, 221, 235, 249, 264, 279, 294, 310, 327, 343, 361, 378, 396, 415, 434,
    ];

    #[test]
    fn critical_values_are_those_of_the_published_table() {
        for (published, pairs) in PUBLISHED.into_iter().zip(6_u32..) {
            let expected = pairs * (pairs + 1) / 2 - published;
            assert_eq!(critical_value(pairs as usize, 0.025), Some(expected), "n = {pairs}");
            assert_eq!(critical_values(0.025).nth(pairs as usize - 1), Some(Some(expected)), "n = {pairs}");
        }
        assert_eq!(critical_value(5, 0.025), None);
    }

    /// n = 200 has 20 100 sums: mean n(n + 1)/4 and variance n(n + 1)(2n + 1)/24 of the distribution are exact.
    #[test]
    fn the_distribution_of_many_pairs_has_its_moments() {
        let mass = null_distribution(1..=200);
        let total: f64 = mass.iter().sum();
        let mean: f64 = mass.iter().enumerate().map(|(sum, mass)| sum as f64 * mass).sum();
        let variance: f64 = mass.iter().enumerate().map(|(sum, mass)| (sum as f64 - mean).powi(2) * mass).sum();
        assert!((total - 1.0).abs() < 1e-12 && (mean - 10_050.0).abs() < 1e-7, "{total} {mean}");
        assert!((variance / 671_675.0 - 1.0).abs() < 1e-11, "{variance}");
    }

    #[test]
    fn too_few_pairs_bound_nothing() {
        assert_eq!(WalshAverages::of(&[1.0, 2.0]).interval(4), Interval::UNBOUNDED);
        assert!(WalshAverages::of(&[]).estimate().is_nan());
    }
}

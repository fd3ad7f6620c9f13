//! Where the level of a noisy series changes, found afterwards in the whole series.
//!
//! The segmentation that minimises Σ |x − median of its segment| plus a penalty for each change, over all segmentations
//! (optimal partitioning: Jackson et al., IEEE Signal Processing Letters 12 (2005)). Deviations are absolute, so that
//! an outlier costs the same in any segment and cannot form its own. The penalty is 3 ln n (the modified BIC of Zhang
//! and Siegmund, Biometrics 63 (2007)) in units of the noise: least absolute deviations of normal noise gain a quarter
//! of χ²/f(0) from a needless change, f being the density, where least squares gain χ².
//!
//! The noise of benchmarks drifts, and drift looks like changes. Taken as AR(1), its correlation is ρ = γ₂/γ₁ − 1,
//! where γ is the variance of differences at lag 1 and at lag 2, estimated robustly and so blind to rare changes
//! (Chakar, Lebarbier, Lévy-Leduc and Robin, Bernoulli 23 (2017)). The error of that estimate, about 1/√n, is added to
//! it, and the penalty grows as the variance of means does, by (1 + ρ)/(1 − ρ). Drift much slower than lag 2 escapes
//! this: a change found in a wandering series shows where it went, not why.

use std::f64::consts::PI;

use super::robust::mad_sd;

/// Shortest accepted level: fewer values could be a burst of other load.
pub const SHORTEST: usize = 5;

/// Beyond this correlation, noise and changes cannot be told apart within a few hundred values.
const LARGEST_CORRELATION: f64 = 0.95;

/// Indices at which a new level begins, ascending; none where the whole series is one level.
///
/// For a speed, give logarithms. Takes time n² log n and is meant for up to a few thousand values.
pub fn change_points(series: &[f64]) -> Vec<usize> {
    let n = series.len();
    if n < 2 * SHORTEST {
        return Vec::new();
    }
    let penalty = penalty(series);
    // best[i]: cost of the first i values, and the start of their last segment. Every segment adds the penalty.
    let mut best = vec![(f64::INFINITY, 0); n + 1];
    best[0].0 = 0.0;
    for start in 0..=n - SHORTEST {
        let before = best[start].0;
        if before.is_finite() {
            for (length, cost) in deviations(&series[start..]).enumerate().skip(SHORTEST - 1) {
                let total = before + cost + penalty;
                let end = start + length + 1;
                if total < best[end].0 {
                    best[end] = (total, start);
                }
            }
        }
    }
    let mut begins = Vec::new();
    let mut end = best[n].1;
    while end > 0 {
        begins.push(end);
        end = best[end].1;
    }
    begins.reverse();
    begins
}

/// How much a change must reduce the sum of absolute deviations.
fn penalty(series: &[f64]) -> f64 {
    let spread =
        |lag: usize| mad_sd(&series.windows(lag + 1).map(|window| window[lag] - window[0]).collect::<Vec<_>>());
    let (lag_1, lag_2) = (spread(1), spread(2));
    // Without noise any difference is a change, except rounding.
    let largest = series.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if lag_1 <= 1e-12 * largest {
        return 1e-9 * largest;
    }
    let error = 1.0 / (series.len() as f64).sqrt();
    let correlation = (((lag_2 / lag_1).powi(2) - 1.0).max(0.0) + error).min(LARGEST_CORRELATION);
    let sd = lag_1 / (2.0 * (1.0 - correlation)).sqrt();
    let quarter_of_inverse_density = sd * (2.0 * PI).sqrt() / 4.0;
    3.0 * (series.len() as f64).ln() * quarter_of_inverse_density * (1.0 + correlation) / (1.0 - correlation)
}

/// Sum of absolute deviations from the median of the first value, the first two, and so on.
fn deviations(values: &[f64]) -> impl Iterator<Item = f64> {
    let mut sorted: Vec<f64> = Vec::with_capacity(values.len());
    let mut sum = 0.0;
    values.iter().map(move |&value| {
        // Every point between the middle two is a median, also after one more value: the new value adds its distance
        // from there.
        if let Some(last) = sorted.len().checked_sub(1) {
            sum += (sorted[last / 2] - value).max(value - sorted[sorted.len() / 2]).max(0.0);
        }
        sorted.insert(sorted.partition_point(|other| *other < value), value);
        sum
    })
}

#[cfg(test)]
mod tests {
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::*;

    /// AR(1) noise with unit variance.
    fn noise(rng: &mut fastrand::Rng, correlation: f64, count: usize) -> Vec<f64> {
        let normal = Normal::standard();
        let mut draw = || normal.inverse_cdf(rng.f64());
        let mut value = draw();
        let mut step = || {
            let now = value;
            value = correlation * value + (1.0 - correlation * correlation).sqrt() * draw();
            now
        };
        (0..count).map(|_| step()).collect()
    }

    #[test]
    fn deviations_are_those_from_the_median() {
        let values = noise(&mut fastrand::Rng::with_seed(1), 0.0, 40);
        for (count, cost) in (1..).zip(deviations(&values)) {
            let median = super::super::robust::median(&values[..count]);
            let expected: f64 = values[..count].iter().map(|value| (value - median).abs()).sum();
            assert!((cost - expected).abs() < 1e-12, "{count}: {cost} {expected}");
        }
    }

    #[test]
    fn steps_without_noise_are_found_exactly() {
        let series: Vec<f64> =
            [(8, 1.0), (6, 1.5), (20, 1.25), (5, 0.1)].iter().flat_map(|&(n, x)| vec![x; n]).collect();
        assert_eq!(change_points(&series), [8, 14, 34]);
        assert!(change_points(&[3.0; 50]).is_empty() && change_points(&[0.0; 50]).is_empty());
        assert!(change_points(&[1.0, 2.0, 3.0]).is_empty() && change_points(&[]).is_empty());
    }

    #[test]
    fn noise_alone_is_one_level() {
        let mut rng = fastrand::Rng::with_seed(4);
        for (correlation, allowed) in [(0.0, 1), (0.3, 2), (0.6, 3), (0.8, 9)] {
            let split = (0..60).filter(|_| !change_points(&noise(&mut rng, correlation, 200)).is_empty()).count();
            assert!(split <= allowed, "correlation {correlation}: {split} of 60 split");
        }
    }

    #[test]
    fn changes_are_found_near_their_place_among_wild_values() {
        let mut rng = fastrand::Rng::with_seed(6);
        let mut found = 0;
        for _ in 0..40 {
            let mut series = noise(&mut rng, 0.0, 300);
            for (index, value) in series.iter_mut().enumerate() {
                *value += if (100..180).contains(&index) { 2.0 } else { 0.0 };
                *value *= if rng.u32(..20) == 0 { 10.0 } else { 1.0 };
            }
            let changes = change_points(&series);
            found += usize::from(matches!(changes[..], [a, b] if a.abs_diff(100) <= 6 && b.abs_diff(180) <= 6));
        }
        assert!(found >= 32, "{found} of 40");
    }
}

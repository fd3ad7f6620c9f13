//! How much the layouts of one source differ in speed, from comparisons of each with every other.
//!
//! ln t of a run is modelled as a constant, an effect of its layout (variance σ²) and noise. In a full round robin of m
//! layouts, with pairs of variance s², the least-squares estimate of an effect is the mean of the layout's d over all
//! of them, itself included; its variance is σ² + s²/m. Two unknown layouts differ by √2 σ times a Student's t of m − 1
//! degrees of freedom. A gain is called faster if it exceeds that at 5 %, by the estimate of σ: it is then confirmed
//! over other layouts, so a floor that is a little low costs only a confirmation. A gain is accepted without other
//! layouts if it exceeds that at 0.05 % by σ² + s²/m, noise included: a noisy self-test demands more.

use pairbench::verdict::{log_of_pct, pct_of_log};
use serde::{Deserialize, Serialize};

/// Fewest layouts that show how much layouts differ.
pub const FEWEST: u32 = 5;
/// Most that the self-test builds.
pub const MOST: u32 = 12;

/// The most noise of a layout's mean, in per cent: with more, the floors would depend on noise rather than layouts.
const MOST_NOISE_PCT: f64 = 0.5;

/// One-sided quantiles of Student's t for 4 to 11 degrees of freedom, at 5 and at 0.05 %.
const T_5_PCT: [f64; 8] = [2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796];
const T_0_05_PCT: [f64; 8] = [8.610, 6.869, 5.959, 5.408, 5.041, 4.781, 4.587, 4.437];

/// How much speed changes between layouts of the same source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayoutNoise {
    /// Layouts that ran, without the written one, whose order is not random and may be better.
    pub layouts: u32,
    /// Standard deviation of log time between layouts, in per cent, without the pairs' noise.
    pub sd_pct: f64,
    /// The same with the noise in each layout's mean.
    pub spread_pct: f64,
    /// Standard deviation of a pair, without the effect of layouts.
    pub pair_sd_pct: f64,
    /// Seconds of pairs.
    pub seconds: f64,
    /// Seconds of builds that were not stored.
    pub build_s: f64,
}

impl LayoutNoise {
    /// From d of each pair of layouts, `d[i][j]` for i < j: positive where j is the faster one.
    pub fn of_round_robin(d: &[Vec<f64>], seconds: f64, build_s: f64) -> LayoutNoise {
        let count = d.len();
        let of = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => d[i][j],
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -d[j][i],
        };
        let layouts = count as f64;
        // Its log time, less the mean of all.
        let effects: Vec<f64> = (0..count).map(|i| (0..count).map(|j| of(i, j)).sum::<f64>() / layouts).collect();
        let spread = effects.iter().map(|effect| effect * effect).sum::<f64>() / (layouts - 1.0);
        let residuals = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
        let rest: f64 = residuals.map(|(i, j)| (of(i, j) - effects[i] + effects[j]).powi(2)).sum();
        let pair = rest / ((layouts - 1.0) * (layouts - 2.0) / 2.0);
        LayoutNoise {
            layouts: count as u32,
            sd_pct: 100.0 * (spread - pair / layouts).max(0.0).sqrt(),
            spread_pct: 100.0 * spread.sqrt(),
            pair_sd_pct: 100.0 * pair.sqrt(),
            seconds,
            build_s,
        }
    }

    /// Whether the hour was quiet enough to see how much layouts differ.
    pub fn is_resolved(&self) -> bool {
        self.pair_sd_pct / f64::from(self.layouts).sqrt() <= MOST_NOISE_PCT
    }

    /// The difference that two layouts exceed by luck once in twenty times: a smaller gain is not called faster.
    pub fn faster_floor_pct(&self) -> f64 {
        self.floor_pct(self.sd_pct, &T_5_PCT)
    }

    /// The difference that they exceed once in two thousand times: a larger gain needs no other layouts.
    pub fn sure_floor_pct(&self) -> f64 {
        self.floor_pct(self.spread_pct, &T_0_05_PCT)
    }

    fn floor_pct(&self, sd_pct: f64, quantiles: &[f64; 8]) -> f64 {
        let degrees = (self.layouts.clamp(FEWEST, MOST) - 1) as usize;
        let log_ratio = quantiles[degrees - 4] * 2.0_f64.sqrt() * sd_pct / 100.0;
        pct_of_log(log_ratio)
    }
}

/// How many layouts can all be compared with each other within a time; none if too few to show anything.
pub fn layouts_within(seconds: f64, seconds_per_pair: f64) -> Option<u32> {
    let fits = |layouts: &u32| f64::from(layouts * (layouts - 1) / 2) * seconds_per_pair <= seconds;
    (FEWEST..=MOST).rev().find(fits)
}

/// A floor in per cent as a log ratio, as estimates are.
pub fn log_floor(pct: f64) -> f64 {
    log_of_pct(pct)
}

#[cfg(test)]
mod tests {
    use pairbench::stats::confirmation::confirm;

    use super::*;

    /// Box and Muller.
    fn normal(rng: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    }

    fn round_robin(rng: &mut fastrand::Rng, layouts: usize, sd: f64, pair_sd: f64) -> LayoutNoise {
        let effects: Vec<f64> = (0..layouts).map(|_| sd * normal(rng)).collect();
        let d = |i: usize, j: usize| effects[i] - effects[j] + pair_sd * normal(rng);
        let mut d = d;
        let rows: Vec<Vec<f64>> =
            (0..layouts).map(|i| (0..layouts).map(|j| if i < j { d(i, j) } else { 0.0 }).collect()).collect();
        LayoutNoise::of_round_robin(&rows, 0.0, 0.0)
    }

    #[test]
    fn layouts_that_differ_by_known_amounts() {
        // ln t of layouts is 0, 1, 2, 3, 4 % and nothing is noisy: the variance of 0 to 4 is 2.5.
        let d: Vec<Vec<f64>> =
            (0..5).map(|i| (0..5).map(|j| (f64::from(i) - f64::from(j)) / 100.0).collect()).collect();
        let noise = LayoutNoise::of_round_robin(&d, 0.0, 0.0);
        assert!((noise.sd_pct - 2.5_f64.sqrt()).abs() < 1e-9 && noise.pair_sd_pct < 1e-9, "{noise:?}");
    }

    #[test]
    fn variances_are_estimated_without_bias() {
        let mut rng = fastrand::Rng::with_seed(3);
        let many: Vec<LayoutNoise> = (0..4000).map(|_| round_robin(&mut rng, 8, 0.004, 0.006)).collect();
        let mean = |of: fn(&LayoutNoise) -> f64| many.iter().map(of).sum::<f64>() / many.len() as f64;
        // Layouts: 0.4 %; a layout's mean of eight pairs of 0.6 % adds 0.6²/8.
        let spread = 0.16 + 0.36 / 8.0;
        assert!((mean(|noise| noise.spread_pct.powi(2)) / spread - 1.0).abs() < 0.03);
        assert!((mean(|noise| noise.pair_sd_pct.powi(2)) / 0.36 - 1.0).abs() < 0.03);
    }

    /// Quantiles against the integral of the density of t.
    #[test]
    fn quantiles_are_those_of_student() {
        for (index, degrees) in (4..=11).map(f64::from).enumerate() {
            for (quantile, tail) in [(T_5_PCT[index], 0.05), (T_0_05_PCT[index], 0.0005)] {
                let density = |x: f64| (1.0 + x * x / degrees).powf(-f64::midpoint(degrees, 1.0));
                let area = |from: f64, to: f64| {
                    let step = (to - from) / 100_000.0;
                    (0..100_000).map(|i| density(from + (f64::from(i) + 0.5) * step) * step).sum::<f64>()
                };
                let beyond = area(quantile, 400.0) / (2.0 * area(0.0, 400.0));
                assert!((beyond / tail - 1.0).abs() < 0.01, "{degrees}: {beyond}");
            }
        }
    }

    /// Changes without effect, of which each side has one layout in the comparison: how many exceed ε and the floor, and how
    /// many land, by being beyond doubt or over ten other layouts of both sides. Every comparison counts as significant.
    #[test]
    fn luck_of_layout_is_seldom_called_faster_and_hardly_ever_lands() {
        let mut rng = fastrand::Rng::with_seed(12);
        let (attempts, epsilon) = (20_000, 0.005);
        for (sd, pair_sd) in [(0.0, 0.01), (0.0018, 0.01), (0.002, 0.005), (0.003, 0.01), (0.007, 0.005), (0.007, 0.01)]
        {
            let (mut faster, mut landed) = (0, 0);
            for _ in 0..attempts {
                let noise = round_robin(&mut rng, 9, sd, pair_sd);
                let luck = sd * normal(&mut rng) - sd * normal(&mut rng);
                let estimate = luck + pair_sd / 20.0_f64.sqrt() * normal(&mut rng);
                if estimate < epsilon || estimate <= log_floor(noise.faster_floor_pct()) {
                    continue;
                }
                faster += 1;
                let other_layouts: Vec<f64> = (0..10)
                    .map(|_| sd * (normal(&mut rng) - normal(&mut rng)) + pair_sd / 2.0_f64.sqrt() * normal(&mut rng))
                    .collect();
                let is_sure = estimate > log_floor(noise.sure_floor_pct());
                landed += u32::from(is_sure || confirm(&other_layouts, 0.025).confirmed);
            }
            let share = |count: u32| f64::from(count) / f64::from(attempts);
            // 1.0, 4.7, 3.6, 7.6, 5.5 and 6.3 % are called faster: most where layouts differ by less than noise lets the
            // self-test see. What lands is what counts, 0.03 to 0.23 %: four standard deviations of 20 000 are 0.13 points.
            assert!(share(faster) < 0.09, "{sd} {pair_sd}: {}", share(faster));
            assert!(share(landed) < 0.0035, "{sd} {pair_sd}: {}", share(landed));
        }
    }

    #[test]
    fn as_many_layouts_as_the_time_allows() {
        assert_eq!(layouts_within(60.0, 0.1), Some(12));
        assert_eq!(layouts_within(60.0, 1.5), Some(9));
        assert_eq!(layouts_within(60.0, 6.0), Some(5));
        assert_eq!(layouts_within(60.0, 6.1), None);
    }
}

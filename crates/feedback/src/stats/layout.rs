//! Luck of layout: the same program, laid out elsewhere in memory, is a little faster or slower every time.
//!
//! It is not noise: fresh pairs of the same two builds agree about it (Mytkowicz, Diwan, Hauswirth and Sweeney, Producing wrong data without
//! doing anything obviously wrong, ASPLOS 2009; Curtsinger and Berger, Stabilizer, ASPLOS 2013). Here it is a random effect: the log time of
//! a build is the program's plus a draw with standard deviation σ of its layout, so that two builds of programs that do not
//! differ, differ by √2 σ. A comparison over k pairs of layouts, each with its own of the baseline and of the candidate, has √(2/k) σ of it left.
//!
//! Two rules are sound, and are one: the interval is widened by [`floor`] (k), where k is the number of pairs of layouts in it;
//! where every pair of runs has its own two layouts, their spread is already in d and nothing is widened. In both cases the
//! confirmation must have *layouts that the comparison did not have*: in the same builds the same luck is confirmed.
//!
//! Simulated with ε = 0.5 %, 20 + 20 pairs with an sd of 0.5 %, a self-test of 8 layouts with 8 pairs each (20 000 attempts; a
//! floor of 2.5 % a side): per cent that is called FASTER / lands, for no effect, +1 % and +3 %:
//!
//! | layouts (compared + confirmed) | σ 0.2 % | σ 0.4 % | σ 0.7 % | σ 1 % |
//! | --- | --- | --- | --- | --- |
//! | 1 + the same, no floor: no effect | 4.9 / 4.8 | 19 / 19 | 31 / 31 | 36 / 36 |
//! | 1 + the same, floor: no effect | 0.8 / 0.5 | 1.9 / 1.4 | 2.2 / 1.9 | 2.3 / 2.1 |
//! | … +1 % | 61 / 55 | 27 / 24 | 13 / 12 | 8 / 8 |
//! | 1 + 4 others, floor: no effect | 0.7 / 0.02 | 1.7 / 0.07 | 2.4 / 0.16 | 2.5 / 0.18 |
//! | … +1 % | 61 / 61 | 26 / 23 | 13 / 7 | 9 / 3 |
//! | … +3 % | 100 / 100 | 99 / 99 | 71 / 71 | 44 / 43 |
//! | 4 + 4 others, floor: no effect | 0.2 / 0.00 | 1.4 / 0.03 | 2.0 / 0.09 | 2.3 / 0.12 |
//! | … +1 % | 99 / 98 | 76 / 61 | 37 / 18 | 22 / 7 |
//! | … +3 % | 100 / 100 | 100 / 100 | 100 / 100 | 95 / 90 |
//! | 20 + 20, each pair its own: no effect | 0.00 / 0.00 | 0.2 / 0.01 | 1.6 / 0.03 | 1.6 / 0.03 |
//! | … +1 % | 100 / 100 | 100 / 100 | 98 / 96 | 81 / 68 |
//! | … +3 % | 100 / 100 | 100 / 100 | 100 / 100 | 100 / 100 |
//!
//! What landed above 0.1 % did so because one estimate of σ serves both stages; so the floor has a level of 2 % instead.
//! Layouts of each pair its own are best wherever builds are cheap; four a side are the least that finds +1 % at σ = 0.2 %.

use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};

use super::{Interval, robust::mad_sd, signed_rank::WalshAverages};

/// One-sided level of the floor.
const LEVEL: f64 = 0.02;
/// Of the upper bound on the standard deviation.
const COVERAGE: f64 = 0.95;

/// How much speed changes between layouts of the same program, as measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayoutSd {
    /// Standard deviation of log time between layouts, the noise of measuring it taken out.
    pub sd: f64,
    /// The same with that noise in it: what a floor rests on, since too little noise would be taken out as often as too much.
    pub spread: f64,
    /// Upper bound on the standard deviation, one-sided 95 %.
    pub high: f64,
    /// Layouts it rests on.
    pub layouts: usize,
}

/// From the pairs of each layout beside one and the same build; none of fewer than two layouts, or of one without pairs.
pub fn sd_from_layouts(d_of_layouts: &[Vec<f64>]) -> Option<LayoutSd> {
    let layouts = d_of_layouts.len();
    if layouts < 2 || d_of_layouts.iter().any(Vec::is_empty) {
        return None;
    }
    let degrees = layouts as f64 - 1.0;
    let centres: Vec<f64> = d_of_layouts.iter().map(|d| WalshAverages::of(d).estimate()).collect();
    let mean = centres.iter().sum::<f64>() / layouts as f64;
    let squares: f64 = centres.iter().map(|centre| (centre - mean).powi(2)).sum();
    let noise = d_of_layouts.iter().map(|d| mad_sd(d).powi(2) / d.len() as f64).sum::<f64>() / layouts as f64;
    let least = ChiSquared::new(degrees).ok()?.inverse_cdf(1.0 - COVERAGE);
    Some(LayoutSd {
        sd: (squares / degrees - noise).max(0.0).sqrt(),
        spread: (squares / degrees).sqrt(),
        high: (squares / least - noise).max(0.0).sqrt(),
        layouts,
    })
}

/// What luck alone can make of two programs that do not differ, over `layout_pairs` pairs of layouts; as a logarithm.
///
/// One-sided 2 %, Student's t because the standard deviation is itself an estimate.
pub fn floor(measured: &LayoutSd, layout_pairs: usize) -> f64 {
    let quantile =
        StudentsT::new(0.0, 1.0, measured.layouts as f64 - 1.0).map(|student| student.inverse_cdf(1.0 - LEVEL));
    quantile.map_or(f64::INFINITY, |t| t * measured.spread * (2.0 / layout_pairs.max(1) as f64).sqrt())
}

/// An interval for what the programs do, layout aside: each end's distance from the estimate and the floor add as independent errors do.
pub fn widened(estimate: f64, interval: Interval, floor: f64) -> Interval {
    Interval {
        low: estimate - (estimate - interval.low).hypot(floor),
        high: estimate + (interval.high - estimate).hypot(floor),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use statrs::distribution::Normal;

    use super::*;

    fn normal(rng: &mut fastrand::Rng) -> f64 {
        Normal::standard().inverse_cdf((f64::from(rng.u32(..)) + 0.5) / 2.0_f64.powi(32))
    }

    #[test]
    fn the_spread_of_layouts_by_hand() {
        let found = sd_from_layouts(&[vec![-1.0; 3], vec![0.0; 3], vec![1.0; 3]]).unwrap();
        assert_eq!((found.sd, found.spread, found.layouts), (1.0, 1.0, 3));
        // The 5 % quantile of χ² with two degrees of freedom is −2 ln 0.95.
        assert!((found.high - (2.0 / (-2.0 * 0.95_f64.ln())).sqrt()).abs() < 1e-6, "{found:?}");
        assert_eq!(sd_from_layouts(&[vec![1.0]]), None);
        assert_eq!(sd_from_layouts(&[vec![1.0], vec![]]), None);
        // Pairs that differ as much as the layouts leave nothing for these.
        let noisy = [vec![-1.0, 0.0, 1.0], vec![-0.9, 0.1, 1.1]];
        assert_eq!(sd_from_layouts(&noisy).unwrap().sd, 0.0);
    }

    #[test]
    fn a_floor_falls_with_layouts_and_widens_both_ends() {
        let measured = LayoutSd { sd: 0.002, spread: 0.002, high: 0.004, layouts: 9 };
        assert!((floor(&measured, 1) / floor(&measured, 4) - 2.0).abs() < 1e-12);
        // R: qt(0.98, 8) = 2.448985
        assert!((floor(&measured, 2) - 2.448_985 * 0.002).abs() < 1e-7);
        let interval = widened(0.01, Interval { low: 0.007, high: 0.014 }, 0.004);
        assert!(
            (interval.low - 0.005).abs() < 1e-15 && (interval.high - (0.01 + 0.004 * 2.0_f64.sqrt())).abs() < 1e-15
        );
        assert_eq!(widened(0.01, Interval::UNBOUNDED, 0.004), Interval::UNBOUNDED);
    }

    /// Changes without effect, judged with the floor in `layouts` pairs of layouts and confirmed in as many others.
    fn rates(layouts: usize, sd: f64, of_self_test: usize, effect: f64) -> (f64, f64) {
        let mut rng = fastrand::Rng::with_seed(7);
        let (attempts, pair_sd, pairs) = (20_000, 0.005, 20.0_f64);
        let half_width = 1.96 * pair_sd / pairs.sqrt();
        let (mut faster, mut landed) = (0, 0);
        for _ in 0..attempts {
            let self_test: Vec<Vec<f64>> = (0..of_self_test)
                .map(|_| vec![sd * normal(&mut rng) + pair_sd / 8.0_f64.sqrt() * normal(&mut rng)])
                .collect();
            let floor = floor(&sd_from_layouts(&self_test).unwrap(), layouts);
            let mut passes = || {
                let luck: f64 = (0..2 * layouts).map(|_| sd * normal(&mut rng)).sum::<f64>() / layouts as f64;
                let estimate = effect + luck + pair_sd / pairs.sqrt() * normal(&mut rng);
                let plain = Interval { low: estimate - half_width, high: estimate + half_width };
                estimate >= 0.005 && widened(estimate, plain, floor).is_above(0.0)
            };
            if passes() {
                faster += 1;
                landed += i32::from(passes());
            }
        }
        (f64::from(faster) / f64::from(attempts), f64::from(landed) / f64::from(attempts))
    }

    #[test]
    fn luck_of_layout_does_not_land() {
        for sd in [0.001, 0.004, 0.01] {
            for (layouts, of_self_test) in [(1, 8), (4, 8), (4, 12)] {
                let (faster, landed) = rates(layouts, sd, of_self_test, 0.0);
                let what = format!("{layouts} layouts, sd {sd}, self-test of {of_self_test}: {faster} {landed}");
                assert!(faster < 0.025 && landed < 0.0015, "{what}");
            }
        }
        assert!(rates(4, 0.002, 8, 0.01).1 > 0.9);
    }
}

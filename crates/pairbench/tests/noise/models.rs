//! Noise for simulations: that of `pairs.csv`, measured by this repository's loop, and models of what machines do to
//! it.
//!
//! `pairs.csv` has a row for each pair that a record of `perf/ledger` holds: its d less the median of its series.
//! Everything is seeded: the same file gives the same numbers.

use pairbench::stats::{
    confirmation::{Confirmation, confirm},
    sequential::Plan,
    signed_rank::{WalshAverages, critical_value, walsh_above_zero},
};
use statrs::distribution::{ContinuousCDF, Normal};

/// Standard deviation of a pair in the models, in between what is measured in turns (0.5 %) and one after the other (2
/// %).
const PAIR_SD: f64 = 0.01;
/// One-sided level of a confirmation.
pub(crate) const CONFIRMATION_LEVEL: f64 = 0.025;
/// Correlation of a run with the run before it, where a level drifts: a pair's two runs are closer than runs that are
/// far apart.
const CORRELATION: f64 = 0.9;

/// Residuals of measured pairs, each series in units of its own spread, so that wide and narrow ones can be mixed.
pub(crate) fn measured(text: &str) -> Vec<f64> {
    let row = |row: &str| row.split_once(',').and_then(|(series, d)| Some((series.to_owned(), d.parse().ok()?)));
    let rows: Vec<(String, f64)> = text.lines().filter_map(row).collect();
    let in_units_of_spread = |series: &[(String, f64)]| {
        let spread = (series.iter().map(|(_, d)| d * d).sum::<f64>() / series.len() as f64).sqrt();
        series.iter().map(|(_, d)| d / spread).collect::<Vec<f64>>()
    };
    rows.chunk_by(|a, b| a.0 == b.0).flat_map(in_units_of_spread).collect()
}

/// The noise of a machine in two runs of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// Measured pairs, drawn independently.
    Measured,
    /// A level that drifts as AR(1), with the same innovations for both arms.
    Drift,
    /// The drift, and on top measured noise that is five times as wide during bursts of other load, which last ten runs
    /// on average and begin every fiftieth.
    Bursts,
    /// Student's t with two degrees of freedom: no variance.
    HeavyTails,
    /// Measured pairs, ten times as wide at the 80th pair as at the first.
    Growing,
}

impl Model {
    /// Each.
    pub(crate) const ALL: [Model; 5] =
        [Model::Measured, Model::Drift, Model::Bursts, Model::HeavyTails, Model::Growing];
}

/// Pairs of runs of one program after each other.
pub(crate) struct Pairs<'a> {
    model: Model,
    measured: &'a [f64],
    rng: fastrand::Rng,
    level: f64,
    is_burst: bool,
    count: i32,
}

impl<'a> Pairs<'a> {
    /// Of this model; equal seeds give equal pairs.
    pub(crate) fn new(model: Model, measured: &'a [f64], seed: u64) -> Pairs<'a> {
        Pairs { model, measured, rng: fastrand::Rng::with_seed(seed), level: 0.0, is_burst: false, count: 0 }
    }

    /// A new comparison begins somewhere else in the series.
    pub(crate) fn begin(&mut self) {
        self.count = 0;
        self.level = normal(&mut self.rng);
        self.is_burst = self.rng.f64() < 1.0 / 6.0;
    }

    /// d of the next pair; a coin says which of its runs is the candidate's.
    pub(crate) fn next_d(&mut self) -> f64 {
        self.count += 1;
        let d = match self.model {
            Model::Measured => self.residual(),
            Model::Growing => self.residual() * 10.0_f64.powf(f64::from(self.count) / 80.0),
            Model::HeavyTails => {
                let square = -self.rng.f64().max(f64::MIN_POSITIVE).ln();
                normal(&mut self.rng) / square.sqrt()
            }
            Model::Drift | Model::Bursts => self.run() - self.run(),
        };
        PAIR_SD * if self.rng.bool() { d } else { -d }
    }

    /// Within a thousandth of a measured one, so that drawing it twice makes no tie.
    fn residual(&mut self) -> f64 {
        self.measured[self.rng.usize(..self.measured.len())] * (1.0 + self.rng.f64() / 1000.0)
    }

    fn run(&mut self) -> f64 {
        self.level = CORRELATION * self.level + (1.0 - CORRELATION * CORRELATION).sqrt() * normal(&mut self.rng);
        if self.model == Model::Drift {
            return self.level;
        }
        if self.rng.f64() < if self.is_burst { 0.1 } else { 0.02 } {
            self.is_burst = !self.is_burst;
        }
        self.level + self.residual() * if self.is_burst { 5.0 } else { 1.0 }
    }
}

/// A draw of the standard normal distribution.
pub(crate) fn normal(rng: &mut fastrand::Rng) -> f64 {
    // Never 0 or 1, where the quantile is infinite.
    Normal::standard().inverse_cdf((f64::from(rng.u32(..)) + 0.5) / 2.0_f64.powi(32))
}

/// A plan, with the W⁺ that each of its looks, including later ones, must reach before the plan's own and slower bound
/// is worth computing.
pub(crate) struct Looks {
    /// The plan.
    pub(crate) plan: Plan,
    looks: Vec<(usize, u32)>,
}

impl Looks {
    /// Of this plan.
    pub(crate) fn of(plan: Plan) -> Looks {
        let mut looks: Vec<(usize, u32)> = plan.looks().iter().map(|look| (look.pairs, look.bound)).collect();
        let after = std::iter::successors(plan.next_look(plan.pairs()), |pairs| plan.next_look(*pairs));
        // Of all assignments of signs at most 2.5 % are rejected up to any look.
        looks.extend(after.map(|pairs| (pairs, critical_value(pairs, 0.03).unwrap_or(u32::MAX))));
        Looks { plan, looks }
    }

    /// A whole comparison, with all the pairs that it may have. SAME and SLOWER do not end it, so the rates of FASTER
    /// are a little too high, never too low.
    pub(crate) fn compare(&self, mut next_d: impl FnMut() -> f64, goes_on: bool, epsilon: f64) -> Comparison {
        let looks = || self.looks.iter().filter(|(pairs, _)| goes_on || *pairs <= self.plan.pairs());
        let most = looks().map(|(pairs, _)| *pairs).next_back().unwrap_or(0);
        let d: Vec<f64> = (0..most).map(|_| next_d()).collect();
        let negated: Vec<f64> = d.iter().map(|d| -d).collect();
        let sides = [&d, &negated];
        let reaches = |side: &[f64], pairs: usize, bound: u32| walsh_above_zero(&side[..pairs]) >= bound;
        if !looks().any(|(pairs, bound)| sides.iter().any(|side| reaches(side, *pairs, *bound))) {
            return Comparison { rejected_after: None, faster_after: None };
        }
        let bounds = self.plan.bounds_for(&d);
        let judged = || looks().zip(&bounds).map(|((pairs, _), bound)| (*pairs, *bound));
        let is_faster = |&(pairs, bound): &(usize, u32)| {
            reaches(&d, pairs, bound) && WalshAverages::of(&d[..pairs]).estimate() >= epsilon
        };
        Comparison {
            rejected_after: judged()
                .find(|(pairs, bound)| sides.iter().any(|side| reaches(side, *pairs, *bound)))
                .map(|(pairs, _)| pairs),
            faster_after: judged().find(is_faster).map(|(pairs, _)| pairs),
        }
    }
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Pairs after which "no difference" was rejected.
    pub(crate) rejected_after: Option<usize>,
    /// Pairs after which it was called faster.
    pub(crate) faster_after: Option<usize>,
}

/// The confirmation of a comparison that was called faster after so many pairs.
pub(crate) fn confirmation(next_d: impl FnMut() -> f64, faster_after: usize) -> Confirmation {
    let fresh: Vec<f64> = std::iter::repeat_with(next_d).take(faster_after.max(10)).collect();
    confirm(&fresh, CONFIRMATION_LEVEL)
}

//! Judges a gain by the times of plain runs alone.

use pairbench::{
    draws::{Purpose, Randomization},
    pair::plain::PlainMode,
    stats::{
        robust::median,
        signed_rank::{WalshAverages, critical_value, p_greater},
    },
    verdict::{Estimate, LOST_D, pct_of_log},
};
use serde::{Deserialize, Serialize};

use super::{Attempt, VoidPair};

/// Pairs in slices at each look: at the last one a gain that is not shown is refused.
pub const LOOKS: [usize; 3] = [10, 20, 40];

/// One-sided level of "there is a gain", divided among the looks.
const SHOWN_LEVEL: f64 = 0.025 / LOOKS.len() as f64;

/// One-sided level at which a gain as large as the confirmed one is excluded, divided among the looks.
const EXCLUDED_LEVEL: f64 = 0.01 / LOOKS.len() as f64;

/// Level of each end of the estimate's interval.
const INTERVAL_LEVEL: f64 = 0.025;

/// Pairs one after the other. Six that all lie below a value have a chance of 1 in 64 if it is their median.
pub const WHOLE_PAIRS: usize = 6;

/// Times are stored to a microsecond, ratios to a millionth: the difference that this can cause for the shortest runs.
pub const ROUNDING_OF_TIMES: f64 = 1e-3;

/// A gain is refused if plain runs do not show even this share of it; between that and all of it, the part they show is
/// claimed.
const LEAST_SHARE: f64 = 0.5;

/// The plain runs of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlainRuns {
    /// Seeded when the confirmation had ended.
    #[serde(rename = "coins")]
    pub draws: Randomization,
    /// Steps of each run: more than the workload has.
    pub steps: u64,
    /// Pairs in slices.
    pub slices: Vec<PlainRow>,
    /// Pairs one after the other.
    pub whole: Vec<PlainRow>,
    /// Spoiled pairs, and by whom; those that the candidate spoiled are among the rows as lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voids: Vec<VoidPair>,
    /// Whether the gain is shown; none while pairs are missing.
    pub accepted: Option<bool>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// A pair of plain runs. Arrays are baseline, candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlainRow {
    /// Its number; its draws depend on it.
    pub number: u64,
    /// Whether the baseline started first.
    pub baseline_first: bool,
    /// Time of the whole process.
    pub ms: [f64; 2],
    /// `ln(t_baseline / t_candidate)`.
    #[serde(rename = "d")]
    pub log_ratio: f64,
}

impl PlainRow {
    /// A pair that counts against the candidate without a measured number.
    pub fn lost(draws: Randomization, number: u64) -> PlainRow {
        PlainRow { number, baseline_first: draws.coin(Purpose::Pair, number, 0), ms: [0.0; 2], log_ratio: LOST_D }
    }
}

impl PlainRuns {
    /// No runs yet, with a fresh seed.
    pub fn new(workload_steps: u64) -> PlainRuns {
        let draws = Randomization::fresh();
        PlainRuns {
            draws,
            steps: steps(workload_steps, draws),
            slices: Vec::new(),
            whole: Vec::new(),
            voids: Vec::new(),
            accepted: None,
            refusal: None,
        }
    }

    /// The rows of a series.
    pub fn rows(&self, mode: PlainMode) -> &Vec<PlainRow> {
        match mode {
            PlainMode::Slices => &self.slices,
            PlainMode::Whole => &self.whole,
        }
    }

    /// The same, to add to.
    pub fn rows_mut(&mut self, mode: PlainMode) -> &mut Vec<PlainRow> {
        match mode {
            PlainMode::Slices => &mut self.slices,
            PlainMode::Whole => &mut self.whole,
        }
    }
}

/// More steps than a workload has: a tenth to six tenths more.
pub fn steps(workload_steps: u64, draws: Randomization) -> u64 {
    workload_steps + workload_steps.div_ceil(10) + draws.below(workload_steps.div_ceil(2), Purpose::PlainSteps, 0, 0)
}

/// What the slices show so far about a gain of `confirmed` (a log ratio) of which `steps_share` shows in whole runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is a gain.
    Shown,
    /// Not even half of it is there.
    NotThere,
    /// More pairs are needed.
    Open,
}

/// Judges the numbers of pairs in slices at a look.
pub fn judge_slices(d: &[f64], confirmed: f64, steps_share: f64) -> Found {
    let upper = critical_value(d.len(), EXCLUDED_LEVEL)
        .map_or(f64::INFINITY, |critical| WalshAverages::of(d).interval(critical).high);
    if upper < LEAST_SHARE * confirmed * steps_share {
        return Found::NotThere;
    }
    if p_greater(d) <= SHOWN_LEVEL { Found::Shown } else { Found::Open }
}

/// Whether runs one after the other show that not even half of a gain is there.
pub fn whole_contradicts(d: &[f64], confirmed: f64, steps_share: f64) -> bool {
    d.len() >= WHOLE_PAIRS && d.iter().all(|d| *d < LEAST_SHARE * confirmed * steps_share)
}

/// The gain in the steps by the slices: that of the whole run, divided by the steps' share of it. None without slices.
pub fn estimate(attempt: &Attempt) -> Option<Estimate> {
    let (d, share) = seen(attempt, PlainMode::Slices);
    let critical = critical_value(d.len(), INTERVAL_LEVEL)?;
    let averages = WalshAverages::of(&d);
    let interval = averages.interval(critical);
    Some(Estimate::new(averages.estimate() / share, interval.low / share, interval.high / share, d.len()))
}

/// Why an attempt's plain runs do not show a confirmed gain (a log ratio), by their rows alone; none if they do.
pub fn finding(attempt: &Attempt, confirmed: f64) -> Option<String> {
    let (d, share) = seen(attempt, PlainMode::Slices);
    let looks = LOOKS.into_iter().take_while(|look| *look <= d.len());
    let found = looks.map(|look| judge_slices(&d[..look], confirmed, share)).find(|found| *found != Found::Open);
    let (claimed, there) = (pct_of_log(confirmed), pct_of_log(WalshAverages::of(&d).estimate() / share));
    match found {
        Some(Found::NotThere) => {
            Some(format!("only_while_measured: {claimed:+.2} % in turns, but {there:+.2} % in plain runs"))
        }
        None | Some(Found::Open) => Some(format!(
            "not_shown_in_plain_runs: {claimed:+.2} % in turns; {there:+.2} % in {} pairs of plain runs does not show that it is there",
            d.len()
        )),
        Some(Found::Shown) => {
            let (d, share) = seen(attempt, PlainMode::Whole);
            if d.len() < WHOLE_PAIRS {
                return Some("not_shown_in_plain_runs: none ran one after the other".to_owned());
            }
            whole_contradicts(&d, confirmed, share).then(|| {
                format!(
                    "only_while_measured: {claimed:+.2} % in turns, but {:+.2} % where trainers run one after the other and \
                     nothing is stopped",
                    pct_of_log(median(&d))
                )
            })
        }
    }
}

/// The numbers of a series, and the share of a run's time that a gain in the steps can change.
pub fn seen(attempt: &Attempt, mode: PlainMode) -> (Vec<f64>, f64) {
    let Some(plain) = &attempt.plain else { return (Vec::new(), 1.0) };
    let rows = plain.rows(mode);
    let measured: Vec<f64> = rows.iter().filter(|row| row.log_ratio > LOST_D).map(|row| row.ms[0]).collect();
    let in_steps_ms = attempt.baseline_step_s().unwrap_or(0.0) * plain.steps as f64 * 1e3;
    let share = if measured.is_empty() || in_steps_ms <= 0.0 { 1.0 } else { in_steps_ms / median(&measured) };
    (rows.iter().map(|row| row.log_ratio).collect(), share.clamp(0.05, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal noise of a known spread around a centre.
    fn noisy(centre: f64, sd: f64, pairs: usize, seed: u64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut normal = || (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
        (0..pairs).map(|_| centre + sd * normal()).collect()
    }

    /// How often a gain of which `there` shows is found, not there, or open after all looks.
    fn outcomes(confirmed: f64, there: f64, sd: f64) -> [usize; 3] {
        let mut counts = [0; 3];
        for seed in 0..2_000 {
            let d = noisy(there, sd, LOOKS[2], seed);
            let found = LOOKS.map(|look| judge_slices(&d[..look], confirmed, 1.0));
            let first = found.into_iter().find(|found| *found != Found::Open).unwrap_or(Found::Open);
            counts[first as usize] += 1;
        }
        counts
    }

    /// With the noise of slices here (0.4 to 1 % a pair) true gains pass, and gains that are not there do not.
    #[test]
    fn a_gain_is_shown_where_it_is_and_not_where_it_is_not() {
        for (gain, sd) in [(0.01, 0.005), (0.01, 0.01), (0.03, 0.01), (0.1, 0.03)] {
            let [shown, not_there, _] = outcomes(gain, gain, sd);
            assert!(shown >= 1_960 && not_there <= 30, "{gain} {sd}: {shown} {not_there}");
            let [shown, ..] = outcomes(gain, 0.0, sd);
            // 2.5 % over all looks.
            assert!(shown <= 70, "{gain} {sd}: {shown}");
            // Three in ten of it: where the noise allows to tell, that is not enough.
            let [shown, not_there, _] = outcomes(gain, 0.2 * gain, sd / 2.0);
            assert!(not_there > shown, "{gain} {sd}: {shown} {not_there}");
        }
    }

    #[test]
    fn runs_one_after_the_other_find_what_is_far_from_being_there() {
        let refused =
            |there: f64| (0..1_000).filter(|seed| whole_contradicts(&noisy(there, 0.025, 6, *seed), 0.6, 0.9)).count();
        assert_eq!([refused(0.0), refused(0.54)], [1_000, 0]);
        // A true gain below the noise is seldom refused for it.
        let small = (0..1_000).filter(|seed| whole_contradicts(&noisy(0.01, 0.025, 6, *seed), 0.01, 0.9)).count();
        assert!(small < 20, "{small}");
        assert!(!whole_contradicts(&[0.0; 5], 0.6, 0.9));
    }

    #[test]
    fn plain_runs_are_longer_than_the_workload() {
        for seed in 0..1_000 {
            let steps = steps(200, Randomization { seed });
            assert!((220..320).contains(&steps), "{steps}");
        }
        assert!(steps(10, Randomization { seed: 1 }) > 10);
    }
}

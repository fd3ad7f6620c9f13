//! From the numbers of pairs to an answer.
//!
//! Numbers are `d = ln(t_baseline / t_candidate)`: positive where the candidate is faster. Percentages are of speed:
//! exp(d) − 1. Answers are given only at the looks of the plan (see [`crate::stats::sequential`]), which keeps the
//! error rate however often one looks.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stats::{
    e_process::EProcess,
    power,
    robust::mad_sd,
    sequential::{self, Continuation, Evidence, Plan},
    signed_rank::WalshAverages,
};

/// `ln(t_baseline / t_candidate)` of a pair that counts against the candidate without a measured number: below every
/// measurable difference, so that it has the highest rank and a negative sign, and finite, so that JSON can hold it.
pub const LOST_D: f64 = -100.0;

/// The answer of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Proved to be faster, by at least ε.
    Faster,
    /// As fast, with a lower exact counter of the step.
    Leaner,
    /// Proved to be slower, by at least ε.
    Slower,
    /// Proved to differ by less than ε.
    Same,
    /// None of these was proved within the plan.
    Undecided,
    /// Not judged by speed: another gate refused.
    Refused,
}

impl Verdict {
    /// Its name in output and records.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "FASTER",
            Verdict::Leaner => "LEANER",
            Verdict::Slower => "SLOWER",
            Verdict::Same => "SAME",
            Verdict::Undecided => "UNDECIDED",
            Verdict::Refused => "REFUSED",
        }
    }

    /// The exit code of `alpha loop compare`.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Faster | Verdict::Leaner => 0,
            Verdict::Slower | Verdict::Same | Verdict::Refused => 4,
            Verdict::Undecided => 5,
        }
    }
}

/// How much faster the candidate is than the baseline, in per cent of speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The Hodges–Lehmann estimate.
    pub speedup_pct: f64,
    /// Lower end of the interval; none where there are too few pairs for one.
    pub ci_low_pct: Option<f64>,
    /// Upper end of the interval.
    pub ci_high_pct: Option<f64>,
    /// Pairs that it rests on.
    pub pairs: usize,
}

impl Estimate {
    /// In per cent, from log ratios; ends of an interval that are not finite are left out.
    pub fn new(estimate: f64, low: f64, high: f64, pairs: usize) -> Estimate {
        let end = |d: f64| d.is_finite().then(|| pct_of_log(d));
        Estimate { speedup_pct: pct_of_log(estimate), ci_low_pct: end(low), ci_high_pct: end(high), pairs }
    }

    fn of(evidence: Evidence, pairs: usize) -> Estimate {
        Estimate::new(evidence.estimate, evidence.interval.low, evidence.interval.high, pairs)
    }
}

/// `+1.64 % (+1.10 to +2.04)`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.2} %", self.speedup_pct)?;
        match (self.ci_low_pct, self.ci_high_pct) {
            (Some(low), Some(high)) => write!(f, " ({low:+.2} to {high:+.2})"),
            _ => Ok(()),
        }
    }
}

/// An answer, or none yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// None: continue.
    pub verdict: Option<Verdict>,
    /// In a sentence: why this verdict, or what is still needed for one.
    pub reason: String,
    /// The estimate at the last look; none before the first.
    pub estimate: Option<Estimate>,
}

/// Seed of the simulated continuations that futility is judged by, so that the same pairs are always judged the same
/// way.
const SEED: u64 = 1;
/// Two-sided error of the bets by which older comparisons continued.
const LEVEL: f64 = 0.05;

/// ln(1 + p/100), of a percentage of speed.
pub fn log_of_pct(pct: f64) -> f64 {
    (pct / 100.0).ln_1p()
}

/// The percentage of speed that a log ratio stands for.
pub fn pct_of_log(d: f64) -> f64 {
    d.exp_m1() * 100.0
}

/// A log ratio rounded to 0.0001 %, far below any noise: the stored number is the judged one.
pub fn round_log(d: f64) -> f64 {
    (d * 1e6).round() / 1e6
}

/// Judges the pairs so far at the looks of the plan, including those after its last planned pair. Older comparisons,
/// whose plan reserved nothing for these looks, are judged there by bets over all pairs.
pub fn judge(d: &[f64], plan: Plan, epsilon_pct: f64) -> Judgement {
    let epsilon = log_of_pct(epsilon_pct);
    let is_by_bets = plan.continuation() == Continuation::Bets;
    let evidence = if d.len() > plan.pairs() && is_by_bets {
        Some(Evidence { estimate: WalshAverages::of(d).estimate(), interval: EProcess::of(d).interval(LEVEL) })
    } else {
        plan.evidence(d)
    };
    let Some(evidence) = evidence else {
        let reason = match plan.next_look(d.len()) {
            Some(next) => format!("the next look is after {next} pairs"),
            None => format!("the last look was after {} pairs", plan.most_pairs()),
        };
        return Judgement { verdict: None, reason, estimate: None };
    };
    let estimate = Some(Estimate::of(evidence, d.len()));
    let decided = |verdict, reason| Judgement { verdict: Some(verdict), reason, estimate };
    let text = Estimate::of(evidence, d.len()).to_string();
    match evidence.answer(epsilon) {
        Some(sequential::Answer::Faster) => decided(Verdict::Faster, format!("faster: {text}")),
        Some(sequential::Answer::Slower) => decided(Verdict::Slower, format!("slower: {text}")),
        Some(sequential::Answer::Same) => {
            decided(Verdict::Same, format!("differs by less than {epsilon_pct} %: {text}"))
        }
        None if d.len() == plan.pairs() || d.len() == plan.most_pairs() => {
            decided(Verdict::Undecided, undecided(d, evidence, epsilon))
        }
        None if d.len() < plan.pairs() && power::is_futile(d, plan, evidence, epsilon, SEED) => {
            let why = undecided(d, evidence, epsilon);
            decided(Verdict::Undecided, format!("{why}; the pairs that are left would hardly change that"))
        }
        None => Judgement { verdict: None, reason: needs(d, evidence, epsilon), estimate },
    }
}

/// What is known, and how many more pairs would show.
fn undecided(d: &[f64], evidence: Evidence, epsilon: f64) -> String {
    let text = Estimate::of(evidence, d.len()).to_string();
    format!(
        "{text} neither proves a difference of {:.2} % nor excludes one; {}",
        pct_of_log(epsilon),
        needs(d, evidence, epsilon)
    )
}

/// The number of pairs that would prove or exclude an effect of the estimated size.
fn needs(d: &[f64], evidence: Evidence, epsilon: f64) -> String {
    let size = evidence.estimate.abs();
    // Proving: the estimate against 0. Excluding: the estimate against ε.
    let distance = if size >= epsilon { size } else { epsilon - size };
    let pairs = power::pairs_needed(mad_sd(d), distance.max(epsilon / 10.0));
    format!("about {pairs:.0} pairs would resolve it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::for_pairs(20).unwrap()
    }

    /// Values around `centre_pct` of speed, alternately above and below by up to `spread_pct`.
    fn around(centre_pct: f64, spread_pct: f64, pairs: usize) -> Vec<f64> {
        let value = |pair: usize| {
            let size = spread_pct * (pair % 5 + 1) as f64 / 5.0;
            log_of_pct(centre_pct + if pair.is_multiple_of(2) { size } else { -size })
        };
        (0..pairs).map(value).collect()
    }

    #[test]
    fn clear_effects_are_answered_at_the_first_look() {
        assert_eq!(judge(&around(10.0, 1.0, 7), plan(), 0.5).verdict, None);
        let faster = judge(&around(10.0, 1.0, 8), plan(), 0.5);
        assert_eq!(faster.verdict, Some(Verdict::Faster));
        let estimate = faster.estimate.unwrap();
        assert!((estimate.speedup_pct - 10.0).abs() < 0.3, "{estimate:?}");
        assert_eq!(judge(&around(-5.0, 1.0, 8), plan(), 0.5).verdict, Some(Verdict::Slower));
    }

    #[test]
    fn no_effect_is_the_same_or_undecided_by_its_noise() {
        assert_eq!(judge(&around(0.0, 0.3, 20), plan(), 0.5).verdict, Some(Verdict::Same));
        let noisy = judge(&around(0.0, 8.0, 20), plan(), 0.5);
        assert_eq!(noisy.verdict, Some(Verdict::Undecided));
        assert!(noisy.reason.contains("pairs would resolve it"), "{}", noisy.reason);
    }

    #[test]
    fn a_real_gain_below_epsilon_is_not_faster() {
        let small = judge(&around(0.3, 0.1, 20), plan(), 0.5);
        assert_eq!(small.verdict, Some(Verdict::Same));
        assert!(small.estimate.unwrap().ci_low_pct.unwrap() > 0.0);
        assert_eq!(judge(&around(0.3, 0.1, 8), plan(), 0.2).verdict, Some(Verdict::Faster));
    }

    #[test]
    fn beyond_the_plan_all_pairs_count() {
        let bets = plan().with(Continuation::Bets);
        for plan in [plan(), bets] {
            assert_eq!(judge(&around(2.0, 1.0, 60), plan, 0.5).verdict, Some(Verdict::Faster));
            assert_eq!(judge(&around(0.0, 8.0, 25), plan, 0.5).verdict, None);
        }
        // Bets may be looked at after every pair; the reserve is spent at looks, and there is a last one.
        assert_eq!(judge(&around(2.0, 1.0, 61), bets, 0.5).verdict, Some(Verdict::Faster));
        let between = judge(&around(2.0, 1.0, 61), plan(), 0.5);
        assert_eq!((between.verdict, between.reason.as_str()), (None, "the next look is after 70 pairs"));
        assert_eq!(judge(&around(0.0, 8.0, 80), plan(), 0.5).verdict, Some(Verdict::Undecided));
    }

    #[test]
    fn percentages_are_of_speed() {
        assert!((pct_of_log(log_of_pct(25.0)) - 25.0).abs() < 1e-12);
        // A step in 4 ms instead of 5 is 25 % more tokens a second.
        assert!((pct_of_log((5.0_f64 / 4.0).ln()) - 25.0).abs() < 1e-9);
    }
}

//! Whether a gain that was measured in turns is there when both programs simply run.
//!
//! A trainer can behave differently while it is measured. So after FASTER both arms also run as plain processes, timed as a
//! whole, in pairs of random order; d is the log ratio of whole times. The claim implies what these should show, since only a
//! share of a run is steady steps ([`expected_gain`]). The number of pairs is fixed beforehand ([`pairs_for`]), from 16 pairs on with a
//! first look at half of them. Tests are exact signed-rank tests, and the two looks share each level a quarter to three
//! quarters, so that nothing depends on tables or on the noise being normal:
//!
//! - *only while measured*: the expected gain is excluded from above, one-sided 1 %, which is the probability that a true gain is refused;
//! - *shown*: at the end, "no gain" is rejected, one-sided 2.5 %, and the expected gain is not excluded; at half of the pairs
//!   only if more than half of the expected gain is shown;
//! - *not resolved*: neither, with as many pairs as could be afforded.
//!
//! Simulated (normal noise, 4000 runs a row; t₃ differs by at most 2 points, in favour of what is true). `claim / sd` is the expected gain in units of
//! a pair's standard deviation, `pairs` what [`pairs_for`] asks for, then the per cent of runs that are shown / only while
//! measured, where all of the gain is there, half of it, and none:
//!
//! | claim / sd | pairs | all | half | none |
//! | --- | --- | --- | --- | --- |
//!
//! The expected gain should be a lower end: where claim or share are uncertain, take the ends that make it least, or noise in
//! them refuses true gains.

use super::{
    Interval,
    signed_rank::{WalshAverages, critical_value},
};

/// One-sided probability that a gain that is not there at all is shown.
pub const SHOWN_LEVEL: f64 = 0.025;
/// One-sided probability that a gain that is all there is refused.
pub const EXCLUDED_LEVEL: f64 = 0.01;
/// The first look's share of each level.
const FIRST_LOOK: f64 = 0.25;
/// Fewest pairs: eight that agree are the least that excludes anything at [`EXCLUDED_LEVEL`] with one exception allowed.
const FEWEST: usize = 8;
/// From this many pairs on there is a look at half of them.
const FEWEST_WITH_TWO_LOOKS: usize = 16;
/// claim · √pairs / sd at which half a gain is told from a whole one.
const RESOLVED: f64 = 8.0;

/// What plain runs say about a gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainAnswer {
    /// It is there.
    Shown,
    /// The plain runs exclude it.
    OnlyWhileMeasured,
    /// Too noisy for the pairs that could be afforded.
    NotResolved,
}

/// What plain pairs say so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlainEvidence {
    /// None: more pairs are planned.
    pub answer: Option<PlainAnswer>,
    /// Hodges–Lehmann estimate of the gain in a whole run.
    pub estimate: f64,
    /// Its lower end has the level that is left of [`SHOWN_LEVEL`], its upper end that of [`EXCLUDED_LEVEL`].
    pub interval: Interval,
}

/// The log ratio of whole runs that follows from a `claim` about steady steps that take `share` (0 to 1) of the baseline's run.
pub fn expected_gain(claim: f64, share: f64) -> f64 {
    -(share * (-claim).exp_m1()).ln_1p()
}

/// How many plain pairs to plan for an expected gain, if a pair's standard deviation is `sd` and `most` can be afforded.
pub fn pairs_for(expected: f64, sd: f64, most: usize) -> usize {
    let wanted = (RESOLVED * sd / expected.max(f64::MIN_POSITIVE)).powi(2).ceil();
    // A float as large as any becomes the largest integer, one that is not a number the smallest.
    (wanted as usize).clamp(FEWEST, most.max(FEWEST))
}

/// The numbers of pairs after which a plan of so many pairs looks.
pub fn looks(planned: usize) -> impl Iterator<Item = usize> {
    let half = (planned >= FEWEST_WITH_TWO_LOOKS).then_some(planned / 2);
    half.into_iter().chain([planned])
}

/// The answer of the pairs so far, of which `planned` were fixed beforehand; none between looks.
pub fn judge(d: &[f64], planned: usize, expected: f64) -> Option<PlainEvidence> {
    looks(planned).find(|look| *look == d.len())?;
    let is_last = d.len() == planned;
    let share = if planned < FEWEST_WITH_TWO_LOOKS {
        1.0
    } else if is_last {
        1.0 - FIRST_LOOK
    } else {
        FIRST_LOOK
    };
    let averages = WalshAverages::of(d);
    let end_at = |level: f64| critical_value(d.len(), level * share).map(|critical| averages.interval(critical));
    let low = end_at(SHOWN_LEVEL).map_or(f64::NEG_INFINITY, |interval| interval.low);
    let high = end_at(EXCLUDED_LEVEL).map_or(f64::INFINITY, |interval| interval.high);
    let must_exceed = if is_last { 0.0 } else { expected / 2.0 };
    let answer = if high < expected {
        Some(PlainAnswer::OnlyWhileMeasured)
    } else if low > must_exceed {
        Some(PlainAnswer::Shown)
    } else {
        is_last.then_some(PlainAnswer::NotResolved)
    };
    Some(PlainEvidence { answer, estimate: averages.estimate(), interval: Interval { low, high } })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use statrs::distribution::{ContinuousCDF, Normal};

    use super::*;

    fn normal(rng: &mut fastrand::Rng) -> f64 {
        Normal::standard().inverse_cdf((f64::from(rng.u32(..)) + 0.5) / 2.0_f64.powi(32))
    }

    /// Shares of `runs` that are shown and that are excluded, and the mean number of pairs.
    fn simulate(runs: usize, planned: usize, expected: f64, mut d: impl FnMut() -> f64) -> (f64, f64, f64) {
        let (mut shown, mut excluded, mut pairs) = (0.0, 0.0, 0);
        for _ in 0..runs {
            let mut so_far: Vec<f64> = Vec::new();
            let answer = looks(planned).find_map(|look| {
                so_far.resize_with(look, &mut d);
                judge(&so_far, planned, expected)?.answer
            });
            pairs += so_far.len();
            shown += f64::from(u8::from(answer == Some(PlainAnswer::Shown)));
            excluded += f64::from(u8::from(answer == Some(PlainAnswer::OnlyWhileMeasured)));
        }
        let runs = runs as f64;
        (shown / runs, excluded / runs, pairs as f64 / runs)
    }

    #[test]
    fn whole_runs_dilute_a_claim() {
        // Steps of half a run take half as long: three quarters of the time are left.
        assert!((expected_gain(2.0_f64.ln(), 0.5) - (4.0_f64 / 3.0).ln()).abs() < 1e-15);
        assert_eq!((expected_gain(0.03, 0.0), expected_gain(0.0, 0.7)), (0.0, 0.0));
        assert!((expected_gain(0.03, 1.0) - 0.03).abs() < 1e-15);
    }

    #[test]
    fn pairs_follow_claim_and_noise() {
        assert_eq!([0.5, 1.0, 2.0, 5.0].map(|claim| pairs_for(claim, 1.0, 1000)), [256, 64, 16, 8]);
        assert_eq!((pairs_for(0.0, 1.0, 64), pairs_for(1.0, f64::NAN, 64), pairs_for(1.0, 1.0, 3)), (64, 8, 8));
        assert_eq!(looks(15).collect::<Vec<_>>(), [15]);
        assert_eq!(looks(16).collect::<Vec<_>>(), [8, 16]);
        assert_eq!(judge(&[1.0; 7], 16, 1.0), None);
    }

    #[test]
    fn eight_pairs_answer_what_is_clear() {
        let d: Vec<f64> = (0..8).map(|pair| 0.03 + 0.001 * f64::from(pair - 4)).collect();
        let answer = |expected: f64| judge(&d, 8, expected).unwrap().answer.unwrap();
        assert_eq!(answer(0.03), PlainAnswer::Shown);
        assert_eq!(answer(0.06), PlainAnswer::OnlyWhileMeasured);
        let noise: Vec<f64> = (0..8).map(|pair| if pair % 2 == 0 { 0.05 } else { -0.051 }).collect();
        assert_eq!(judge(&noise, 8, 0.03).unwrap().answer, Some(PlainAnswer::NotResolved));
    }

    /// The levels hold where the noise is normal and where its tails are heavy; half a gain is refused, a whole one shown.
    #[test]
    fn levels_and_power_are_as_documented() {
        let mut rng = fastrand::Rng::with_seed(1);
        let runs = 600;
        for (claim, least_shown) in [(1.0, 0.97), (2.0, 0.97), (5.0, 0.97)] {
            let planned = pairs_for(claim, 1.0, 1000);
            for has_heavy_tails in [false, true] {
                let mut noise = || {
                    let square: f64 = (0..3).map(|_| normal(&mut rng).powi(2)).sum::<f64>() / 3.0;
                    normal(&mut rng) / if has_heavy_tails { square.sqrt() * 3.0_f64.sqrt() } else { 1.0 }
                };
                let all = simulate(runs, planned, claim, || claim + noise());
                let half = simulate(runs, planned, claim, || claim / 2.0 + noise());
                let none = simulate(runs, planned, claim, &mut noise);
                let row = format!("claim {claim}, {planned} pairs: {all:.3?} {half:.3?} {none:.3?}");
                let most = |level: f64| level + 3.1 * (level / runs as f64).sqrt();
                assert!(all.1 <= most(EXCLUDED_LEVEL) && none.0 <= most(SHOWN_LEVEL), "{row}");
                assert!(all.0 >= least_shown && half.0 <= 0.25 && none.1 >= 0.95, "{row}");
            }
        }
        // A share that is known to 5 % only, and an expected gain from its lower end: true gains still pass.
        let noisy_share = |rng: &mut fastrand::Rng| 0.8 * (1.0 + 0.05 * normal(rng));
        let mut refused = 0;
        for _ in 0..runs {
            let expected = expected_gain(0.03, noisy_share(&mut rng) * 0.9);
            let (_, excluded, _) = simulate(1, 24, expected, || expected_gain(0.03, 0.8) + 0.015 * normal(&mut rng));
            refused += usize::from(excluded > 0.0);
        }
        assert!(refused <= 16, "{refused} of {runs}");
    }
}

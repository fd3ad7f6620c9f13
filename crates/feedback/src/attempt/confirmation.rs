//! The rules of a confirmation: its level, its number of pairs, its outcome, and the claim.

use pairbench::{
    stats::{self, conditional::conditional, confirmation::confirm, signed_rank::critical_values},
    verdict::{Estimate, log_of_pct},
};

use super::{
    Attempt, Confirmation,
    bookkeeping::{FREE_INTERRUPTIONS, LEVEL_OF_AN_INTERRUPTION, MAX_PAIRS},
    layout, plain,
};

/// Fewest pairs.
const MIN_PAIRS: usize = 10;

/// One-sided level to begin with.
const LEVEL: f64 = 0.025;

/// Chance that a single attempt without effect passes the comparison on the fast side.
const COMPARISON_LEVEL: f64 = 0.025;

/// Expected false commits on one target beyond which the level is halved, and again.
const MAX_EXPECTED: f64 = 0.05;

/// The outcome of a confirmation's pairs.
pub fn outcome(confirmation: &Confirmation) -> stats::confirmation::Confirmation {
    let d = confirmation.d();
    if confirmation.over_layouts {
        layout::confirm_over_layouts(&d, confirmation.level)
    } else {
        confirm(&d, confirmation.level)
    }
}

/// The fewest pairs, at least ten, of a confirmation at a level with `lost` lost pairs: a gain that all other pairs
/// show can pass.
pub fn fewest_pairs(level: f64, lost: usize) -> usize {
    fewest_that_pass(level, lost).max(MIN_PAIRS)
}

/// The smallest number of pairs whose exact one-sided test can pass at a level if `lost` of them are lost.
pub fn fewest_that_pass(level: f64, lost: usize) -> usize {
    // Lost pairs have the highest ranks, and a negative sign.
    let most_positive = |pairs: usize| (pairs - lost) * (pairs - lost + 1) / 2;
    let passes = |&(pairs, critical): &(usize, Option<u32>)| {
        critical.is_some_and(|critical| most_positive(pairs) >= critical as usize)
    };
    (1..=MAX_PAIRS).zip(critical_values(level)).skip(lost).find(passes).map_or(MAX_PAIRS, |(pairs, _)| pairs)
}

/// Whether it continued after the plan's last look.
pub fn went_on(attempt: &Attempt) -> bool {
    attempt.plan.is_some_and(|plan| attempt.pairs.len() > plan.pairs)
}

/// The expected number of false commits among so many attempts, if none had an effect.
pub fn expected_false_commits(attempts: usize, level: f64) -> f64 {
    attempts as f64 * COMPARISON_LEVEL * level
}

/// The level of an attempt's confirmation, which keeps the expected number of false commits in bounds: it is halved
/// each time that number would pass 0.05. An attempt that had two chances to be called faster is confirmed at half the
/// level, and each interruption that did not count lowers it.
pub fn level(attempts: usize, attempt: &Attempt) -> f64 {
    let interruptions = attempt.bookkeeping.interrupted.len().min(FREE_INTERRUPTIONS) as i32;
    let level = level_after(attempts) * LEVEL_OF_AN_INTERRUPTION.powi(interruptions);
    if went_on(attempt) { level / 2.0 } else { level }
}

/// The one-sided level of a confirmation after so many attempts.
pub fn level_after(attempts: usize) -> f64 {
    let mut level = LEVEL;
    while expected_false_commits(attempts, level) > MAX_EXPECTED {
        level /= 2.0;
    }
    level
}

/// The number that a commit of this attempt claims, with its interval: the confirmation's, corrected for having been
/// published because it passed ([`conditional`](pairbench::stats::conditional)), or what plain runs show, or its gain
/// over the best accepted tree, if that is less. None if it takes back a slowdown, or if that could not be measured.
pub fn claimed(attempt: &Attempt) -> Option<Estimate> {
    let confirmation = attempt.confirmation.as_ref()?;
    if attempt.reference.as_ref().is_some_and(|reference| !reference.allows_a_claim()) {
        return None;
    }
    let again = outcome(confirmation);
    let pairs = confirmation.pairs.len();
    let plain = Estimate::new(again.estimate, again.interval.low, again.interval.high, pairs);
    // Older records claim the confirmation's own estimate, which is not corrected for having passed.
    let own = match conditional(&again, confirmation.level) {
        Some(found) if attempt.rules > 0 => {
            let epsilon = log_of_pct(attempt.epsilon_pct);
            let published = if again.estimate >= epsilon { found.published(epsilon) } else { found.estimate };
            Estimate::new(published, found.interval.low.min(published), found.interval.high, pairs)
        }
        _ => plain,
    };
    // The gain in plain runs, if that is less than in turns.
    let plain = attempt.plain.as_ref().and_then(|_| plain::estimate(attempt));
    let own = plain.filter(|plain| plain.ci_high_pct.is_some_and(|high| high < own.speedup_pct)).unwrap_or(own);
    let beside = attempt.reference.as_ref().and_then(|reference| reference.candidate.as_ref()?.estimate);
    Some(beside.filter(|beside| beside.speedup_pct < own.speedup_pct).unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pairbench::verdict::LOST_D;

    #[test]
    fn many_attempts_on_one_baseline_make_it_harder() {
        let halvings = |attempts| (LEVEL / level_after(attempts)).log2().round() as u32;
        assert_eq!([0, 80, 81, 160, 161].map(halvings), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn there_are_enough_pairs_for_the_level() {
        assert_eq!(fewest_pairs(0.025, 0), 10);
        // With ten pairs the smallest p is 1/1024.
        assert_eq!(fewest_pairs(0.0009, 0), 11);
    }

    /// Against the exact p of that many pairs, the lost ones below all others.
    #[test]
    fn lost_pairs_are_made_up_for_by_more() {
        for level in [0.025, 0.0125, 0.001] {
            for lost in 0..4 {
                let p = |pairs: usize| {
                    let d: Vec<f64> =
                        (0..pairs).map(|pair| if pair < lost { LOST_D } else { 0.01 + pair as f64 * 1e-4 }).collect();
                    confirm(&d, level).p
                };
                let fewest = fewest_that_pass(level, lost);
                assert!(p(fewest) <= level && p(fewest - 1) > level, "{lost} lost at {level}: {fewest}");
            }
        }
        assert_eq!([0, 1, 2, 3].map(|lost| fewest_pairs(0.025, lost)), [10, 12, 17, 22]);
    }
}

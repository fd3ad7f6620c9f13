//! After FASTER: fresh pairs, a number fixed beforehand, one look. Their estimate is the claim; that they train the
//! same is asked of them too.

pub mod anchor;
pub mod plain;

use std::time::Instant;

use pairbench::{
    stats::{self, confirmation::confirm, signed_rank::critical_value},
    verdict::Estimate,
};

use crate::{
    LoopError, Watch,
    attempt::{
        Attempt, Confirmation,
        bookkeeping::{FREE_INTERRUPTIONS, LEVEL_OF_AN_INTERRUPTION, MAX_PAIRS, Series},
    },
    compare::{
        PairRunner, driver,
        layout::{self, LayoutSpecs, Needs},
        pair_source::TrainerPairs,
        same_training::SameTraining,
        sides::Contest,
    },
    records::{
        evidence,
        registry::{self, Registry},
    },
    store::session::Session,
};

/// Fewest pairs.
const MIN_PAIRS: usize = 10;
/// One-sided level to begin with.
const LEVEL: f64 = 0.025;
/// Chance that a single attempt without effect passes the comparison on the fast side.
const COMPARISON_LEVEL: f64 = 0.025;
/// Expected false commits on one target beyond which the level is halved, and again.
const MAX_EXPECTED: f64 = 0.05;

/// Runs the confirmation's pairs, or those that are still missing, and judges them. These two programs are confirmed
/// once: what failed under another tier of parity is not asked again.
pub fn run(session: &Session, contest: &Contest, attempt: &mut Attempt, watch: &dyn Watch) -> Result<(), LoopError> {
    if attempt.confirmation.as_ref().is_some_and(|confirmation| confirmation.accepted.is_some()) {
        return Ok(());
    }
    let Some(plan) = attempt.plan else { return Ok(()) };
    let known = Registry::read(session)?;
    if let Some(failed) = failed_before(session, &known, attempt)? {
        attempt.confirmation = Some(failed);
        return session.attempts().save(attempt);
    }
    if attempt.confirmation.is_none() {
        let attempts = known.attempts(session);
        let level = level(attempts, attempt);
        let over_layouts = attempt.layout_needs() == Needs::OtherLayouts && layout::is_varied(&session.config);
        let planned = attempt.pairs.len().max(fewest_pairs(level, 0));
        attempt.confirmation = Some(Confirmation {
            planned: if over_layouts { layout::pairs_over_layouts(planned) } else { planned },
            pairs: Vec::new(),
            voids: Vec::new(),
            level,
            attempts,
            over_layouts,
            p: None,
            estimate: None,
            accepted: None,
            refusal: None,
        });
        session.attempts().save(attempt)?;
    }
    // Known before its first pair: what is asked once is not asked again elsewhere.
    registry::note(session, attempt)?;
    let layouts = layouts(session, contest, attempt, watch)?;
    let mut pairs = TrainerPairs {
        session,
        runner: PairRunner::new(session, contest, attempt.draws)?,
        same_training: SameTraining::new(session, contest, attempt, watch)?,
        plan,
        series: Series::Confirmation,
        layouts,
        index: 0,
        budget: None,
        began: Instant::now(),
        spent_s: 0.0,
        watch,
    };
    let refusal = driver::confirm(&mut pairs, attempt)?.or_else(|| {
        // Another precision is judged by all seeds together.
        let parity = attempt.parity.as_ref();
        parity.and_then(|parity| parity.failures().next()).map(|check| format!("parity: {check}"))
    });
    conclude(attempt, refusal);
    session.attempts().save(attempt)?;
    registry::note(session, attempt)
}

/// The layouts of both sides that a confirmation runs in; none where it runs in the written ones.
pub fn layouts(
    session: &Session,
    contest: &Contest,
    attempt: &Attempt,
    watch: &dyn Watch,
) -> Result<Option<LayoutSpecs>, LoopError> {
    if !attempt.confirmation.as_ref().is_some_and(|confirmation| confirmation.over_layouts) {
        return Ok(None);
    }
    LayoutSpecs::build(session, contest, attempt.draws, layout::Stage::Confirmation, watch).map(Some)
}

/// What the pairs of a confirmation say.
pub fn outcome(confirmation: &Confirmation) -> stats::confirmation::Confirmation {
    let d = confirmation.d();
    if confirmation.over_layouts {
        layout::confirm_over_layouts(&d, confirmation.level)
    } else {
        confirm(&d, confirmation.level)
    }
}

/// Judges the pairs that there are, once.
fn conclude(attempt: &mut Attempt, refusal: Option<String>) {
    let Some(confirmation) = &mut attempt.confirmation else { return };
    let d = confirmation.d();
    let outcome = outcome(confirmation);
    let is_whole = d.len() >= confirmation.planned;
    if is_whole {
        confirmation.p = Some(outcome.p);
        confirmation.estimate =
            Some(Estimate::new(outcome.estimate, outcome.interval.low, outcome.interval.high, d.len()));
    }
    confirmation.accepted = Some(is_whole && outcome.confirmed && refusal.is_none());
    confirmation.refusal = refusal;
}

/// A confirmation of the same two programs on this machine that failed.
///
/// # Errors
/// [`LoopError::Refused`] where one was begun as another attempt, or where its pairs are gone.
fn failed_before(session: &Session, known: &Registry, attempt: &Attempt) -> Result<Option<Confirmation>, LoopError> {
    let of = |attempt: &Attempt| [attempt.baseline.binary.clone(), attempt.candidate.binary.clone()];
    let is_same = |other: &Attempt| {
        of(other) == of(attempt)
            && other.machine.fingerprint() == attempt.machine.fingerprint()
            && other.manifest.command == attempt.manifest.command
    };
    let failed = |record: &evidence::AttemptRecord| {
        let confirmation =
            record.attempt.confirmation.as_ref().filter(|confirmation| confirmation.accepted == Some(false));
        confirmation.filter(|_| is_same(&record.attempt)).cloned()
    };
    if let Some(failed) = evidence::attempts(session).iter().find_map(|(_, record)| failed(record)) {
        return Ok(Some(failed));
    }
    match known.asked_before(attempt) {
        Some((entry, asked)) if asked.accepted == Some(false) => Ok(Some(asked.as_failed(&entry.key))),
        Some((entry, _)) if attempt.confirmation.is_none() => Err(LoopError::Refused(format!(
            "a confirmation of the same two programs was begun before (attempt {})",
            entry.key
        ))
        .hint("two programs are confirmed once: `alpha loop commit` under the cycle that began it goes on with it")),
        _ => Ok(None),
    }
}

/// Fewest pairs of a confirmation at a level of which so many are lost: a gain that all others agree on can pass. Never
/// fewer than ten.
pub fn fewest_pairs(level: f64, lost: usize) -> usize {
    fewest_that_pass(level, lost).max(MIN_PAIRS)
}

/// The smallest number of pairs whose exact one-sided test can pass at a level where so many are lost.
pub fn fewest_that_pass(level: f64, lost: usize) -> usize {
    // Lost pairs have the highest ranks, and a negative sign.
    let most_positive = |pairs: usize| (pairs - lost) * (pairs - lost + 1) / 2;
    let passes = |pairs: &usize| {
        critical_value(*pairs, level).is_some_and(|critical| most_positive(*pairs) >= critical as usize)
    };
    (lost + 1..=MAX_PAIRS).find(passes).unwrap_or(MAX_PAIRS)
}

/// Whether it went on after the plan's last look.
pub fn went_on(attempt: &Attempt) -> bool {
    attempt.plan.is_some_and(|plan| attempt.pairs.len() > plan.pairs)
}

/// The number of false commits to expect of so many attempts, if none had an effect.
pub fn expected_false_commits(attempts: usize, level: f64) -> f64 {
    attempts as f64 * COMPARISON_LEVEL * level
}

/// The level of an attempt's confirmation that keeps the expected number of false commits in bounds: halved when it would
/// pass 0.05, and again. An attempt that had two chances to be called faster is confirmed at half of it, and
/// each interruption that did not count leaves a share.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::bookkeeping::LOST_D;

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

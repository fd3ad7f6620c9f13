//! After FASTER: fresh pairs, a number fixed beforehand, one look. Their estimate is the claim.

use std::time::Instant;

use crate::{
    LoopError, Watch,
    attempt::{Attempt, Confirmation},
    compare::{PairRunner, pair_row, progress},
    contest::Contest,
    evidence, gaming,
    session::Session,
    stats::{confirmation::confirm, signed_rank::critical_value},
    verdict::{Estimate, Judgement},
};

/// Fewest pairs.
const MIN_PAIRS: usize = 10;
/// One-sided level to begin with.
const LEVEL: f64 = 0.025;
/// Chance that a single attempt without effect passes the comparison on the fast side.
const COMPARISON_LEVEL: f64 = 0.025;
/// Expected false commits on one baseline beyond which the level is halved, and again.
const MAX_EXPECTED: f64 = 0.05;

/// Runs the confirmation's pairs, or those that are still missing, and judges them.
pub fn run(session: &Session, contest: &Contest, attempt: &mut Attempt, watch: &dyn Watch) -> Result<(), LoopError> {
    if attempt.confirmation.as_ref().is_some_and(|confirmation| confirmation.accepted.is_some()) {
        return Ok(());
    }
    let Some(plan) = attempt.plan else { return Ok(()) };
    let level = level(session, &attempt.baseline.measured_tree);
    let planned = attempt.pairs.len().max(fewest_at(level));
    let mut confirmation = attempt.confirmation.take().unwrap_or(Confirmation {
        planned,
        pairs: Vec::new(),
        level,
        p: None,
        estimate: None,
        accepted: None,
    });
    let mut runner = PairRunner::new(session, contest, attempt.coins)?;
    let script = plan.blocks.script();
    let began = Instant::now();
    let mut voids = 0;
    let mut number = attempt.next_number() + confirmation.pairs.len() as u64;
    while confirmation.pairs.len() < confirmation.planned {
        let run = match runner.run(number, &script, watch) {
            Ok(run) => run,
            Err(error) => {
                attempt.confirmation = Some(confirmation);
                session.attempts().save(attempt)?;
                return Err(error);
            }
        };
        attempt.seconds.confirmation += run.seconds;
        if let Some(void) = &run.void {
            voids += 1;
            watch.note(&format!("pair {number} is void: the {} {}", void.arm.name(), void.why));
            if voids >= gaming::MAX_VOIDS {
                return Err(LoopError::Refused(format!("confirmation: the {} {}", void.arm.name(), void.why)));
            }
        } else {
            confirmation.pairs.push(pair_row(number, &run));
            attempt.confirmation = Some(confirmation.clone());
            session.attempts().save(attempt)?;
        }
        number += 1;
        let d: Vec<f64> = confirmation.pairs.iter().map(|pair| pair.d).collect();
        let judgement = Judgement { verdict: None, reason: "one look, at the end".to_owned(), estimate: None };
        watch.pairs(&progress("confirm", &d, confirmation.planned, attempt, &judgement, began));
    }
    let d: Vec<f64> = confirmation.pairs.iter().map(|pair| pair.d).collect();
    let outcome = confirm(&d, confirmation.level);
    confirmation.p = Some(outcome.p);
    confirmation.estimate = Some(Estimate::new(outcome.estimate, outcome.interval.low, outcome.interval.high, d.len()));
    confirmation.accepted = Some(outcome.confirmed);
    attempt.confirmation = Some(confirmation);
    session.attempts().save(attempt)
}

/// Fewest pairs that can pass at a level, but never fewer than [`MIN_PAIRS`].
fn fewest_at(level: f64) -> usize {
    (MIN_PAIRS..=200).find(|pairs| critical_value(*pairs, level).is_some()).unwrap_or(200)
}

/// Attempts against a baseline so far, as the ledger counts them.
pub fn attempts_on(session: &Session, baseline: &str) -> usize {
    let is_on =
        |record: &evidence::AttemptRecord| record.baseline.measured_tree == baseline && !record.attempt.is_identical;
    evidence::attempts(session).iter().filter(|(_, record)| is_on(record)).count()
}

/// The number of false commits to expect of so many attempts, if none had an effect.
pub fn expected_false_commits(attempts: usize, level: f64) -> f64 {
    attempts as f64 * COMPARISON_LEVEL * level
}

/// The level that keeps the expected number of false commits on one baseline in bounds: halved when it would pass
/// [`MAX_EXPECTED`], and again.
fn level(session: &Session, baseline: &str) -> f64 {
    level_after(attempts_on(session, baseline))
}

fn level_after(attempts: usize) -> f64 {
    let mut level = LEVEL;
    while expected_false_commits(attempts, level) > MAX_EXPECTED {
        level /= 2.0;
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_attempts_on_one_baseline_make_it_harder() {
        let halvings = |attempts| (LEVEL / level_after(attempts)).log2().round() as u32;
        assert_eq!([0, 80, 81, 160, 161].map(halvings), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn there_are_enough_pairs_for_the_level() {
        assert_eq!(fewest_at(0.025), 10);
        // With ten pairs the smallest p is 1/1024.
        assert_eq!(fewest_at(0.0009), 11);
    }
}

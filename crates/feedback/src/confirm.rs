//! After FASTER: fresh pairs, a number fixed beforehand, one look. Their estimate is the claim; that they train the
//! same is asked of them too.

use std::time::Instant;

use crate::{
    LoopError, Watch,
    attempt::{Attempt, Confirmation, VoidRow},
    compare::{PairRunner, pair_row, progress, too_many_voids},
    contest::Contest,
    evidence,
    plan::PairPlan,
    same_training::SameTraining,
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

/// Runs the confirmation's pairs, or those that are still missing, and judges them. These two programs are confirmed
/// once: what failed under another tier of parity is not asked again.
pub fn run(session: &Session, contest: &Contest, attempt: &mut Attempt, watch: &dyn Watch) -> Result<(), LoopError> {
    if attempt.confirmation.as_ref().is_some_and(|confirmation| confirmation.accepted.is_some()) {
        return Ok(());
    }
    let Some(plan) = attempt.plan else { return Ok(()) };
    if let Some(failed) = failed_before(session, attempt) {
        attempt.confirmation = Some(failed);
        return session.attempts().save(attempt);
    }
    let level = level(session, attempt);
    let planned = attempt.pairs.len().max(fewest_at(level));
    attempt.confirmation.get_or_insert(Confirmation {
        planned,
        pairs: Vec::new(),
        voids: Vec::new(),
        level,
        p: None,
        estimate: None,
        accepted: None,
        refusal: None,
    });
    let refusal = fresh_pairs(session, contest, attempt, &plan, watch)?;
    let Some(confirmation) = &mut attempt.confirmation else { return Ok(()) };
    let d: Vec<f64> = confirmation.pairs.iter().map(|pair| pair.d).collect();
    let outcome = confirm(&d, confirmation.level);
    if d.len() >= confirmation.planned {
        confirmation.p = Some(outcome.p);
        confirmation.estimate =
            Some(Estimate::new(outcome.estimate, outcome.interval.low, outcome.interval.high, d.len()));
    }
    confirmation.accepted = Some(outcome.confirmed && refusal.is_none());
    confirmation.refusal = refusal;
    session.attempts().save(attempt)
}

/// Runs what is missing; why the pairs prove nothing, if they do not. Each is on disk before the next begins.
fn fresh_pairs(
    session: &Session,
    contest: &Contest,
    attempt: &mut Attempt,
    plan: &PairPlan,
    watch: &dyn Watch,
) -> Result<Option<String>, LoopError> {
    let runner = PairRunner::new(session, contest, attempt.coins)?;
    let mut same_training = SameTraining::new(session, contest, attempt, watch)?;
    let began = Instant::now();
    loop {
        let number = attempt.next_number();
        let Some(confirmation) = &attempt.confirmation else { return Ok(None) };
        let planned = confirmation.planned;
        if confirmation.pairs.len() >= planned {
            // Another precision is judged by all seeds together.
            let parity = attempt.parity.as_ref();
            return Ok(parity.and_then(|parity| parity.failures().next()).map(|check| format!("parity: {check}")));
        }
        let run = runner.run(number, &runner.script(&plan.blocks, number), watch)?;
        attempt.seconds.confirmation += run.seconds;
        if let Some(void) = run.void {
            watch.note(&format!("pair {number} is void: the {} {}", void.arm.name(), void.why));
            let Some(confirmation) = &mut attempt.confirmation else { return Ok(None) };
            confirmation.voids.push(VoidRow { number, arm: void.arm, why: void.why });
            let refusal = too_many_voids(&confirmation.voids);
            session.attempts().save(attempt)?;
            match refusal? {
                Some(refusal) => return Ok(Some(refusal)),
                None => continue,
            }
        }
        let refusal = same_training.judge(number, &run, attempt, watch)?;
        let Some(confirmation) = &mut attempt.confirmation else { return Ok(None) };
        confirmation.pairs.push(pair_row(number, &run));
        let d: Vec<f64> = confirmation.pairs.iter().map(|pair| pair.d).collect();
        session.attempts().save(attempt)?;
        if refusal.is_some() {
            return Ok(refusal);
        }
        let judgement = Judgement { verdict: None, reason: "one look, at the end".to_owned(), estimate: None };
        watch.pairs(&progress("confirm", &d, planned, attempt, &judgement, began));
    }
}

/// A confirmation of the same two programs on this machine that failed.
fn failed_before(session: &Session, attempt: &Attempt) -> Option<Confirmation> {
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
    evidence::attempts(session).iter().find_map(|(_, record)| failed(record))
}

/// Fewest pairs that can pass at a level, but never fewer than [`MIN_PAIRS`].
fn fewest_at(level: f64) -> usize {
    (MIN_PAIRS..=200).find(|pairs| critical_value(*pairs, level).is_some()).unwrap_or(200)
}

/// Attempts against a baseline so far, as the ledger counts them. One that went on after its plan had a second chance and
/// counts twice.
pub fn attempts_on(session: &Session, baseline: &str) -> usize {
    let is_on =
        |record: &evidence::AttemptRecord| record.baseline.measured_tree == baseline && !record.attempt.is_identical;
    let chances = |record: &evidence::AttemptRecord| if went_on(&record.attempt) { 2 } else { 1 };
    evidence::attempts(session).iter().map(|(_, record)| record).filter(|record| is_on(record)).map(chances).sum()
}

/// Whether it went on after the plan's last look.
fn went_on(attempt: &Attempt) -> bool {
    attempt.plan.is_some_and(|plan| attempt.pairs.len() > plan.pairs)
}

/// The number of false commits to expect of so many attempts, if none had an effect.
pub fn expected_false_commits(attempts: usize, level: f64) -> f64 {
    attempts as f64 * COMPARISON_LEVEL * level
}

/// The level that keeps the expected number of false commits on one baseline in bounds: halved when it would pass
/// [`MAX_EXPECTED`], and again. An attempt that had two chances to be called faster is confirmed at half of it.
fn level(session: &Session, attempt: &Attempt) -> f64 {
    let level = level_after(attempts_on(session, &attempt.baseline.measured_tree));
    if went_on(attempt) { level / 2.0 } else { level }
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

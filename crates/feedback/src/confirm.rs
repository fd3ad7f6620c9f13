//! The confirmation after FASTER: a number of fresh pairs that is fixed beforehand, with one look. Their estimate is
//! the claim, and their training must be the same too.

pub mod anchor;
pub mod plain;

use std::time::Instant;

use pairbench::verdict::Estimate;

use crate::{
    LoopError, Progress,
    attempt::{
        Attempt, Confirmation,
        bookkeeping::Series,
        confirmation::{fewest_pairs, level, outcome},
        layout::{Needs, pairs_over_layouts},
    },
    compare::{
        PairRunner,
        built_arms::BuiltArms,
        driver,
        layout::{self, LayoutSpecs},
        pair_source::TrainerPairs,
        same_training::SameTraining,
    },
    config::is_layout_varied,
    records::{
        evidence,
        registry::{self, Registry},
    },
    store::session::Session,
};

/// Runs the confirmation's pairs, or the missing ones, and judges them. Two programs are confirmed once: a confirmation
/// that failed under another tier of parity is not repeated.
pub fn run(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
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
        let over_layouts = attempt.layout_needs() == Needs::OtherLayouts && is_layout_varied(&session.config);
        let planned = attempt.pairs.len().max(fewest_pairs(level, 0));
        attempt.confirmation = Some(Confirmation {
            planned: if over_layouts { pairs_over_layouts(planned) } else { planned },
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
    // Registered before the first pair, so that it is not begun again elsewhere.
    registry::note(session, attempt)?;
    let layouts = layouts(session, built_arms, attempt, progress)?;
    let mut pairs = TrainerPairs {
        session,
        runner: PairRunner::new(session, built_arms, attempt.draws)?,
        same_training: SameTraining::new(session, built_arms, attempt, progress)?,
        plan,
        series: Series::Confirmation,
        layouts,
        index: 0,
        budget: None,
        began: Instant::now(),
        spent_s: 0.0,
        progress,
    };
    let refusal = driver::confirm(&mut pairs, attempt)?.or_else(|| {
        // A T2 is judged over all seeds together.
        let parity = attempt.parity.as_ref();
        parity.and_then(|parity| parity.failures().next()).map(|check| format!("parity: {check}"))
    });
    conclude(attempt, refusal);
    session.attempts().save(attempt)?;
    registry::note(session, attempt)
}

/// The layouts of both arms that a confirmation runs in; none where it runs in layout 0.
pub fn layouts(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    progress: &dyn Progress,
) -> Result<Option<LayoutSpecs>, LoopError> {
    if !attempt.confirmation.as_ref().is_some_and(|confirmation| confirmation.over_layouts) {
        return Ok(None);
    }
    LayoutSpecs::build(session, built_arms, attempt.draws, layout::Stage::Confirmation, progress).map(Some)
}

/// Judges the pairs, once.
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

/// An earlier confirmation of the same two programs on this machine that failed.
///
/// # Errors
/// [`LoopError::refused`] where one was begun as another attempt, or where its pairs are gone.
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
        Some((entry, _)) if attempt.confirmation.is_none() => Err(LoopError::refused(format!(
            "a confirmation of the same two programs was begun before (attempt {})",
            entry.key
        ))
        .hint("two programs are confirmed once: `alpha loop commit` under the cycle that began it goes on with it")),
        _ => Ok(None),
    }
}

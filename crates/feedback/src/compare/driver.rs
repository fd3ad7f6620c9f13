//! Which pair runs next, what became of it, and when there is an answer: the loop's decisions without its processes.
//!
//! Pairs come through [`PairSource`]: from two trainers ([`compare`](crate::compare), [`confirm`](crate::confirm),
//! [`guards`](crate::compare::guards)), or from numbers in a test. Nothing here starts a process, reads a clock or knows of git.
//! A pair stands on disk as begun before it runs, and what became of it before the next one begins
//! ([`bookkeeping`](crate::attempt::bookkeeping)).

use pairbench::{
    Arm,
    pair::{Outcome, plan::PairPlan},
    stats::sequential::Plan,
    verdict::{self, Judgement, Verdict},
};

use crate::{
    ErrorKind, LoopError,
    attempt::{
        Attempt, VoidPair,
        bookkeeping::{MAX_LOST, PairOf, Series},
        confirmation::fewest_pairs,
        gaming,
    },
};

/// Pairs of a comparison at most: with as many to confirm them they fit into a record.
const MOST_PAIRS: usize = 160;

/// Where pairs come from and where they are written.
pub trait PairSource {
    /// What a measured pair leaves.
    type Run;

    /// Runs the pair of this number.
    ///
    /// # Errors
    /// [`ErrorKind::Trainer`] says who is to blame; [`ErrorKind::Refused`] is the candidate's doing.
    fn run(&mut self, number: u64) -> Result<Outcome<Self::Run>, LoopError>;

    /// Adds what was measured to the attempt; the refusal, if it shows that the training is not the same.
    ///
    /// # Errors
    /// As [`PairSource::run`]: a pair whose records cannot be read was not measured.
    fn add(&mut self, number: u64, run: Self::Run, attempt: &mut Attempt) -> Result<Option<String>, LoopError>;

    /// Writes the attempt to disk, whole or not at all.
    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError>;

    /// Says a line.
    fn note(&mut self, line: &str);

    /// Whether the user asked to stop.
    fn is_stop_requested(&self) -> bool {
        false
    }

    /// Whether the time for the comparison is spent.
    fn is_budget_spent(&self) -> bool {
        false
    }

    /// Shows where a series of pairs stands.
    fn show(&mut self, _attempt: &Attempt, _planned: usize, _judgement: &Judgement) {}
}

/// Runs one pair of a series and writes down what became of it. The refusal, if it ends the series.
///
/// # Errors
/// What kept the pair from being measured. It is written down all the same, and calling again goes on with the next.
pub fn run_pair<S: PairSource>(
    source: &mut S,
    attempt: &mut Attempt,
    series: &Series,
) -> Result<Option<String>, LoopError> {
    attempt.settle();
    if source.is_stop_requested() {
        source.save(attempt)?;
        return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
    }
    let pair = PairOf { series: series.clone(), number: attempt.next_number_of(series) };
    attempt.bookkeeping.begun = Some(pair.clone());
    source.save(attempt)?;
    let number = pair.number;
    let measured = match source.run(number) {
        Ok(Outcome::Measured(run)) => source.add(number, run, attempt),
        Ok(Outcome::Void(void)) => {
            source.note(&format!("pair {number} is void: the {} {}", void.arm.name(), void.why));
            attempt.spoil(pair, void.arm, &void.why);
            source.save(attempt)?;
            return too_many_voids(attempt.voids_of(series));
        }
        Err(error) => Err(error),
    };
    match measured {
        Ok(refusal) => {
            attempt.bookkeeping.begun = None;
            source.save(attempt)?;
            Ok(refusal)
        }
        Err(error) => {
            write_off(attempt, pair, &error);
            source.save(attempt)?;
            match too_many_voids(attempt.voids_of(series)) {
                Ok(None) | Err(_) => Err(error),
                refusal => refusal,
            }
        }
    }
}

/// Writes down a pair that an error ended.
fn write_off(attempt: &mut Attempt, pair: PairOf, error: &LoopError) {
    let why = error.to_string();
    let of = |arm: Arm| why.strip_prefix(&format!("the {} ", arm.name())).unwrap_or(&why);
    match error.kind {
        ErrorKind::Interrupted => attempt.interrupt(pair),
        ErrorKind::Trainer(arm) => attempt.spoil(pair, arm, of(arm)),
        ErrorKind::Refused => attempt.spoil(pair, Arm::Candidate, of(Arm::Candidate)),
        // What is typed or configured wrongly is found before a trainer starts.
        ErrorKind::Usage => attempt.bookkeeping.begun = None,
        // Nobody knows whose doing it is that the loop cannot go on.
        ErrorKind::Failed | ErrorKind::Undecided => attempt.lose(pair, &why),
    }
}

/// Runs pairs of the comparison until there is an answer, the plan ends, or the budget is spent. A plan that is used up
/// goes on, as many pairs again, within the same error.
///
/// # Errors
/// As [`run_pair`]. The attempt has no verdict then, and calling again goes on.
pub fn compare<S: PairSource>(
    source: &mut S,
    attempt: &mut Attempt,
    plan: &PairPlan,
) -> Result<(Verdict, String), LoopError> {
    let looks = plan
        .looks()
        .ok_or_else(|| LoopError::failed(format!("a plan of {} pairs is not one of the loop's", plan.pairs)))?;
    // Before what is unsettled counts: a plan that it completes has had its say.
    let most = most_pairs(attempt, plan, looks);
    attempt.settle();
    let mut judgement = verdict::judge(&attempt.d(), looks, attempt.epsilon_pct);
    loop {
        let is_planned_end = attempt.pairs.len() == plan.pairs && most > plan.pairs;
        // Where counters fell, pairs go on until it is shown that nothing was lost for it.
        let may_be_leaner =
            judgement.verdict == Some(Verdict::Same) && attempt.counters_only_fell() && !attempt.is_leaner();
        let goes_on = is_planned_end || may_be_leaner && attempt.pairs.len() < plan.pairs;
        if let Some(verdict) = judgement.verdict.filter(|_| !goes_on) {
            attempt.estimate = judgement.estimate;
            return Ok((verdict, judgement.reason));
        }
        if attempt.pairs.len() >= most || source.is_budget_spent() {
            let why = if attempt.pairs.len() >= most { "all pairs are" } else { "the budget is" };
            attempt.estimate = judgement.estimate.or(attempt.estimate);
            return Ok((Verdict::Undecided, format!("{why} used up without an answer; {}", judgement.reason)));
        }
        let before = attempt.pairs.len();
        if let Some(refusal) = run_pair(source, attempt, &Series::Comparison)? {
            return Ok((Verdict::Refused, refusal));
        }
        if attempt.pairs.len() > before {
            judgement = verdict::judge(&attempt.d(), looks, attempt.epsilon_pct);
            attempt.estimate = judgement.estimate.or(attempt.estimate);
            source.show(attempt, most, &judgement);
        }
    }
}

/// The pairs after which a comparison that begins or goes on now ends.
fn most_pairs(attempt: &Attempt, plan: &PairPlan, looks: Plan) -> usize {
    let so_far = attempt.pairs.len();
    if so_far < plan.pairs {
        return plan.pairs;
    }
    (so_far + plan.pairs).min(looks.most_pairs()).min(MOST_PAIRS).max(so_far)
}

/// Runs the pairs of the confirmation that are still missing; why they prove nothing, if they do not. Where pairs were
/// lost there are as many more as a gain needs to be shown in spite of them, by a rule that is fixed beforehand.
///
/// # Errors
/// As [`run_pair`]. The confirmation is open then, and calling again goes on.
pub fn confirm<S: PairSource>(source: &mut S, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
    attempt.settle();
    loop {
        let lost = attempt.lost_in(&Series::Confirmation);
        if lost > MAX_LOST {
            return Ok(Some(format!(
                "{lost} of its pairs were begun and not ended: what they would have shown is not known"
            )));
        }
        let Some(confirmation) = &mut attempt.confirmation else { return Ok(None) };
        confirmation.planned = confirmation.planned.max(fewest_pairs(confirmation.level, lost));
        let planned = confirmation.planned;
        if confirmation.pairs.len() >= planned {
            return Ok(None);
        }
        if let Some(refusal) = run_pair(source, attempt, &Series::Confirmation)? {
            return Ok(Some(refusal));
        }
        let judgement = Judgement { verdict: None, reason: "one look, at the end".to_owned(), estimate: None };
        source.show(attempt, planned, &judgement);
    }
}

/// Pairs that the baseline spoiled say that the instrument does not work here; those of the candidate, that it plays.
pub fn too_many_voids(voids: &[VoidPair]) -> Result<Option<String>, LoopError> {
    if let Some(finding) = gaming::voids(voids) {
        return Ok(Some(finding.to_string()));
    }
    let of_baseline: Vec<_> = voids.iter().filter(|void| void.arm == Arm::Baseline).collect();
    match of_baseline.last() {
        Some(last) if of_baseline.len() >= gaming::MAX_VOIDS => Err(LoopError::failed(format!(
            "the baseline cannot be measured in turns: in {} pairs it {}",
            of_baseline.len(),
            last.why
        ))
        .hint("`sharing = \"sequential\"` in `loop.toml` runs one trainer at a time")),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;

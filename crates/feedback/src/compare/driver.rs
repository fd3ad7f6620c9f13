//! Which pair runs next, what became of it, and when there is an answer: the loop's decisions without its processes.
//!
//! Pairs come through [`PairSource`]: from two trainers ([`compare`](crate::compare), [`confirm`](crate::confirm),
//! [`guards`](crate::compare::guards)), or from numbers in a test. Nothing here starts a process, reads a clock or
//! knows of git. A pair is on disk as begun before it runs, and its outcome is on disk before the next one begins
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

/// Most pairs of a comparison: with as many pairs of a confirmation they fit into a record.
const MOST_PAIRS: usize = 160;

/// Where pairs come from and where they are written.
pub trait PairSource {
    /// The result of a measured pair.
    type Run;

    /// Runs the pair of this number.
    ///
    /// # Errors
    /// [`ErrorKind::Trainer`] names the arm that failed; [`ErrorKind::Refused`] blames the candidate.
    fn run(&mut self, number: u64) -> Result<Outcome<Self::Run>, LoopError>;

    /// Adds the pair to the attempt; returns a refusal if the pair shows that the training is not the same.
    ///
    /// # Errors
    /// As [`PairSource::run`]: a pair whose records cannot be read was not measured.
    fn add(&mut self, number: u64, run: Self::Run, attempt: &mut Attempt) -> Result<Option<String>, LoopError>;

    /// Writes the attempt to disk, whole or not at all.
    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError>;

    /// Reports a line.
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

/// Runs one pair of a series and records its outcome; returns a refusal if that ends the series.
///
/// # Errors
/// What kept the pair from being measured. That is recorded too, and the next call continues with the next pair.
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

/// Records a pair that an error ended.
fn write_off(attempt: &mut Attempt, pair: PairOf, error: &LoopError) {
    let why = error.to_string();
    let of = |arm: Arm| why.strip_prefix(&format!("the {} ", arm.name())).unwrap_or(&why);
    match error.kind {
        ErrorKind::Interrupted => attempt.interrupt(pair),
        ErrorKind::Trainer(arm) => attempt.spoil(pair, arm, of(arm)),
        ErrorKind::Refused => attempt.spoil(pair, Arm::Candidate, of(Arm::Candidate)),
        // Mistakes in the command line or configuration are found before a trainer starts.
        ErrorKind::Usage => attempt.bookkeeping.begun = None,
        // Neither arm can be blamed for an error of the loop itself.
        ErrorKind::Failed | ErrorKind::Undecided => attempt.lose(pair, &why),
    }
}

/// Runs pairs of the comparison until there is an answer, the plan ends, or the budget is spent. A plan that is used up
/// is extended by as many pairs again, within the same error rate.
///
/// # Errors
/// As [`run_pair`]. The attempt then has no verdict, and the next call continues.
pub fn compare<S: PairSource>(
    source: &mut S,
    attempt: &mut Attempt,
    plan: &PairPlan,
) -> Result<(Verdict, String), LoopError> {
    let looks = plan
        .looks()
        .ok_or_else(|| LoopError::failed(format!("a plan of {} pairs is not one of the loop's", plan.pairs)))?;
    let most = most_pairs(attempt, plan, looks);
    attempt.verdict = None;
    attempt.settle();
    let mut judgement = verdict::judge(&attempt.d(), looks, attempt.epsilon_pct);
    loop {
        let is_planned_end = attempt.pairs.len() == plan.pairs && most > plan.pairs;
        // Where counters fell, pairs continue until it is shown that speed was not lost.
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

/// The number of pairs at which a comparison ends that begins or continues now. A plan that is complete was judged only
/// if it has a verdict: the call that ran its last pair may have failed.
fn most_pairs(attempt: &Attempt, plan: &PairPlan, looks: Plan) -> usize {
    let so_far = attempt.pairs.len();
    let is_judged = so_far > plan.pairs || attempt.verdict == Some(Verdict::Undecided);
    if so_far < plan.pairs || !is_judged {
        return plan.pairs;
    }
    (so_far + plan.pairs).min(looks.most_pairs()).min(MOST_PAIRS).max(so_far)
}

/// Runs the missing pairs of the confirmation; returns a refusal if they cannot be judged. Where pairs were lost, as
/// many more are run as a gain needs to be shown in spite of them, by a rule that is fixed beforehand.
///
/// # Errors
/// As [`run_pair`]. The confirmation then stays open, and the next call continues.
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

/// Too many pairs that the baseline spoiled mean that the instrument does not work here; too many that the candidate
/// spoiled refuse it.
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

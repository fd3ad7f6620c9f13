//! Pairs of two real trainers, for the [`driver`](crate::compare::driver): run in turns, checked for
//! parity, and recorded.

use std::time::{Duration, Instant};

use pairbench::{
    files,
    pair::{ArmRun, Outcome, PairRun, plan::PairPlan},
    progress::PairProgress,
    stats::signed_rank::WalshAverages,
    verdict::{Judgement, pct_of_log, round_log},
};

use crate::{
    LoopError, Progress,
    attempt::{Attempt, PairRow, bookkeeping::Series},
    compare::{PairRunner, driver::PairSource, layout::LayoutSpecs, same_training::SameTraining},
    store::session::Session,
};

/// The pairs of a comparison, or of its confirmation.
pub struct TrainerPairs<'a> {
    /// The session.
    pub session: &'a Session,
    /// Runs a pair.
    pub runner: PairRunner<'a>,
    /// Judges whether both arms of a pair trained the same.
    pub same_training: SameTraining<'a>,
    /// How a run is cut into blocks.
    pub plan: PairPlan,
    /// [`Series::Comparison`] or [`Series::Confirmation`].
    pub series: Series,
    /// Layouts that the pairs run in, one after the other; none means layout 0.
    pub layouts: Option<LayoutSpecs>,
    /// Rows of the series before the next pair.
    pub index: usize,
    /// Time limit of a comparison; none for a confirmation, which has a fixed number of pairs.
    pub budget: Option<Duration>,
    /// When it began.
    pub began: Instant,
    /// Trainer seconds of pairs that are not in the attempt yet.
    pub spent_s: f64,
    /// Where progress is reported.
    pub progress: &'a dyn Progress,
}

impl PairSource for TrainerPairs<'_> {
    type Run = PairRun;

    fn run(&mut self, number: u64) -> Result<Outcome<PairRun>, LoopError> {
        let script = self.runner.script(&self.plan.blocks, number);
        let mut run = match &self.layouts {
            None => self.runner.run(number, &script, self.progress)?,
            Some(layouts) => self.runner.with_specs(layouts.of_pair(self.index)).run(number, &script, self.progress)?,
        };
        self.spent_s += if self.series == Series::Comparison { run.trainers_s() } else { run.seconds };
        Ok(match run.void.take() {
            Some(void) => Outcome::Void(void),
            None => Outcome::Measured(run),
        })
    }

    fn add(&mut self, number: u64, run: PairRun, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
        let row = pair_row(number, &run);
        let is_comparison = self.series == Series::Comparison;
        if is_comparison {
            record_blocks(self.session, attempt, &row, &run)?;
        }
        let started = Instant::now();
        let refusal = self.same_training.judge(number, &run, attempt, self.progress)?;
        let seconds = &mut attempt.seconds;
        if is_comparison {
            seconds.parity += started.elapsed().as_secs_f64();
            seconds.pairs += std::mem::take(&mut self.spent_s);
            attempt.pairs.push(row);
        } else if let Some(confirmation) = &mut attempt.confirmation {
            seconds.confirmation += std::mem::take(&mut self.spent_s);
            confirmation.pairs.push(row);
        }
        Ok(refusal)
    }

    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError> {
        self.index = match &attempt.confirmation {
            Some(confirmation) if self.series == Series::Confirmation => confirmation.pairs.len(),
            _ => attempt.pairs.len(),
        };
        self.session.attempts().save(attempt)
    }

    fn note(&mut self, line: &str) {
        self.progress.note(line);
    }

    fn is_stop_requested(&self) -> bool {
        self.progress.is_stop_requested()
    }

    fn is_budget_spent(&self) -> bool {
        self.budget.is_some_and(|budget| self.began.elapsed() >= budget)
    }

    fn show(&mut self, attempt: &Attempt, planned: usize, judgement: &Judgement) {
        let (stage, d) = match &attempt.confirmation {
            Some(confirmation) => ("confirm", confirmation.d()),
            None => ("compare", attempt.d()),
        };
        let seconds_per_pair = attempt.plan.map_or(0.0, |plan| plan.seconds_per_pair);
        self.progress.pairs(&PairProgress {
            stage: stage.to_owned(),
            pairs: d.len(),
            planned,
            estimate_pct: (!d.is_empty()).then(|| pct_of_log(WalshAverages::of(&d).estimate())),
            interval_pct: attempt.estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct)),
            elapsed_s: self.began.elapsed().as_secs_f64(),
            left_s: planned.saturating_sub(d.len()) as f64 * seconds_per_pair,
            needs: judgement.reason.clone(),
        });
    }
}

/// The row of a pair.
fn pair_row(number: u64, run: &PairRun) -> PairRow {
    let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
    let of = |value: fn(&ArmRun) -> f64, digits| run.arms.each_ref().map(|arm| rounded(value(arm), digits));
    PairRow {
        number,
        seed: run.seed,
        baseline_first: run.baseline_first,
        log_ratio: round_log(run.log_ratio()),
        run_log_ratio: round_log(run.run_log_ratio()),
        ready_ms: of(|arm| arm.ready_ms, 1e1),
        finish_ms: of(|arm| arm.finish_ms + arm.saves_ms, 1e1),
        peak_memory_bytes: run.arms.each_ref().map(|arm| arm.peak_memory_bytes),
        foreign_cpu_share: of(|arm| arm.foreign_cpu_share, 1e3),
        seconds: rounded(run.seconds, 1e2),
        turns_s: rounded(run.turns_s, 1e3),
    }
}

/// Appends the times of a pair's blocks to the bulk data.
fn record_blocks(session: &Session, attempt: &Attempt, row: &PairRow, run: &PairRun) -> Result<(), LoopError> {
    let blocks_ms = run.arms.each_ref().map(|arm| {
        arm.turns
            .iter()
            .filter(|turn| turn.block.is_some())
            .map(|turn| (turn.ms * 1e3).round() / 1e3)
            .collect::<Vec<f64>>()
    });
    let mut line = serde_json::json!({ "pair": row.number, "blocks_ms": blocks_ms });
    let gpus = run.arms.each_ref().map(|arm| &arm.gpus);
    if gpus.iter().any(|samples| !samples.is_empty()) {
        line["gpus"] = serde_json::json!(gpus);
    }
    files::append_line(&session.attempts().bulk_path(&attempt.key), &line.to_string())
}

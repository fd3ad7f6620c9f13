//! Plain runs after the confirmation: the gain must also be there without turns.
//!
//! Both arms run as a user starts them, without the turn protocol, for more steps than the workload has; the number of
//! steps is drawn now, as the seeds are. Whole processes are timed from outside ([`pair::plain`]). First they run in
//! slices of the loop's clock, which is about as quiet as turns: the gain must be shown, and if it is smaller than was
//! confirmed, less is claimed. Then some runs follow one after the other, in which nothing is stopped: they are
//! noisier, and only refuse a gain that is clearly absent. Both arms must train the same in all of them, by the same
//! rules as before: a trainer that stops learning after the workload's last step is found here.

use std::time::Instant;

use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    pair::{
        self, Outcome,
        plain::{PlainMode, PlainRequest, PlainRun},
    },
    progress::PairProgress,
    stats::signed_rank::WalshAverages,
    verdict::{log_of_pct, pct_of_log, round_log},
};

use crate::{
    LoopError, Progress,
    attempt::{
        Attempt,
        bookkeeping::{MAX_LOST, Series},
        plain::{Found, LOOKS, PlainRow, PlainRuns, WHOLE_PAIRS, finding, judge_slices, seen},
    },
    compare::{
        built_arms::BuiltArms,
        driver::{self, PairSource},
        layout::LayoutSpecs,
        same_training,
    },
    confirm,
    parity::{Arms, Evidence, Floor, PairEvidence, Tier, record},
    store::session::Session,
};

/// Besides the first pair, one pair in this many is drawn and evaluated.
const EVALUATED_ONE_IN: u64 = 4;

/// Runs the missing plain runs and judges them: once, like the confirmation.
///
/// # Errors
/// What kept a pair from being measured; the next call continues.
pub fn run(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    let confirmed = attempt.confirmation.as_ref().filter(|found| found.accepted == Some(true));
    let Some(estimate) = confirmed.and_then(|confirmation| confirmation.estimate) else { return Ok(()) };
    if attempt.plain.as_ref().is_some_and(|plain| plain.accepted.is_some()) {
        return Ok(());
    }
    let workload = &session.config.workload;
    let plain = attempt.plain.get_or_insert_with(|| PlainRuns::new(workload.steps));
    let evidence = Evidence {
        tier: attempt.tier,
        shows: workload.metrics.shows(),
        steps: plain.steps,
        alone: Vec::new(),
        pairs: Vec::new(),
        floor: Floor::default(),
        updates: Vec::new(),
    };
    progress.note(&format!(
        "plain runs: {} steps, without the turn protocol, whole processes timed; in slices, then one after the other",
        plain.steps
    ));
    let counters = same_training::counters(workload);
    let began = Instant::now();
    let draws = plain.draws;
    let layouts = confirm::layouts(session, built_arms, attempt, progress)?;
    let mut source = PlainPairs {
        session,
        built_arms,
        mode: PlainMode::Slices,
        draws,
        evidence,
        counters,
        layouts,
        progress,
        began,
        index: 0,
    };
    let refusal = series(&mut source, attempt, log_of_pct(estimate.speedup_pct))?;
    attempt.seconds.plain += began.elapsed().as_secs_f64();
    if let Some(plain) = &mut attempt.plain {
        plain.accepted = Some(refusal.is_none());
        plain.refusal = refusal;
    }
    session.attempts().save(attempt)
}

/// Runs both series; returns a refusal if the gain is not there.
fn series(source: &mut PlainPairs<'_>, attempt: &mut Attempt, confirmed: f64) -> Result<Option<String>, LoopError> {
    let mut found = Found::Open;
    for look in LOOKS {
        if let Some(refusal) = pairs(source, attempt, PlainMode::Slices, look)? {
            return Ok(Some(refusal));
        }
        let (d, share) = seen(attempt, PlainMode::Slices);
        found = judge_slices(&d, confirmed, share);
        if found != Found::Open {
            break;
        }
    }
    // A gain that is still open after the last look is not shown.
    if found == Found::Shown
        && let Some(refusal) = pairs(source, attempt, PlainMode::Whole, WHOLE_PAIRS)?
    {
        return Ok(Some(refusal));
    }
    // A T2 is judged over all seeds together.
    if source.evidence.tier == Tier::T2 && !source.has_all_seeds() {
        return Ok(Some("plain runs of a T2 were interrupted, so that it is not known what they learned".to_owned()));
    }
    if let Some(check) =
        same_training::of_records(&source.evidence).failures().next().filter(|_| source.has_all_seeds())
    {
        return Ok(Some(format!("parity in plain runs: {check}")));
    }
    Ok(finding(attempt, confirmed))
}

/// Runs the missing pairs of a series.
fn pairs(
    source: &mut PlainPairs<'_>,
    attempt: &mut Attempt,
    mode: PlainMode,
    planned: usize,
) -> Result<Option<String>, LoopError> {
    source.mode = mode;
    let series = Series::Plain(mode);
    loop {
        attempt.settle();
        let rows = attempt.plain.as_ref().map_or(0, |plain| plain.rows(mode).len());
        if attempt.lost_in(&series) > MAX_LOST {
            return Ok(Some("too many plain runs were begun and not ended".to_owned()));
        }
        if rows >= planned {
            return Ok(None);
        }
        if let Some(refusal) = driver::run_pair(source, attempt, &series)? {
            return Ok(Some(refusal));
        }
        source.report(attempt, planned);
    }
}

/// Plain runs of two real trainers.
struct PlainPairs<'a> {
    session: &'a Session,
    built_arms: &'a BuiltArms,
    mode: PlainMode,
    draws: Randomization,
    evidence: Evidence,
    counters: Vec<String>,
    /// As in the confirmation.
    layouts: Option<LayoutSpecs>,
    index: usize,
    progress: &'a dyn Progress,
    began: Instant,
}

impl PlainPairs<'_> {
    /// Whether every pair ran in this call. Pairs of an earlier call were judged then, and left only their numbers.
    fn has_all_seeds(&self) -> bool {
        self.evidence.pairs.len() >= LOOKS[0]
    }

    fn report(&self, attempt: &Attempt, planned: usize) {
        let Some(plain) = &attempt.plain else { return };
        let d: Vec<f64> = plain.rows(self.mode).iter().map(|row| row.log_ratio).collect();
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let stage = match self.mode {
            PlainMode::Slices => "plain runs in slices",
            PlainMode::Whole => "plain runs, one after the other",
        };
        self.progress.pairs(&PairProgress {
            stage: stage.to_owned(),
            pairs: d.len(),
            planned,
            estimate_pct: (d.len() > 1).then(|| pct_of_log(WalshAverages::of(&d).estimate())),
            interval_pct: None,
            elapsed_s,
            left_s: elapsed_s / d.len().max(1) as f64 * (planned.saturating_sub(d.len())) as f64,
            needs: String::new(),
        });
    }
}

impl PairSource for PlainPairs<'_> {
    type Run = PlainRun;

    fn run(&mut self, number: u64) -> Result<Outcome<PlainRun>, LoopError> {
        let written = self.built_arms.specs.each_ref();
        let specs = self.layouts.as_ref().map_or(written, |layouts| layouts.of_pair(self.index));
        let work = self.session.work()?;
        let request = PlainRequest {
            command: self.session.config.workload.timed(),
            steps: self.evidence.steps,
            specs,
            draws: self.draws,
            number,
            work: &work,
            mode: self.mode,
        };
        pair::plain::run(&request, self.progress)
    }

    fn add(&mut self, number: u64, run: PlainRun, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
        let read = |arm: Arm| {
            let metrics = &self.session.config.workload.metrics;
            let read = record::read(metrics, &run.folders[arm.index()], &self.counters, self.evidence.steps);
            read.map_err(|error| error.of_trainer(arm))
        };
        let records = Arms { baseline: read(Arm::Baseline)?, candidate: read(Arm::Candidate)? };
        // A user keeps the last checkpoint of a run: it is evaluated for the first pair, drawn ones, and all of a T2.
        let is_drawn = self.draws.below(EVALUATED_ONE_IN, Purpose::CheckedPair, number, 1) == 0;
        let is_evaluated = self.evidence.pairs.is_empty() || is_drawn || self.evidence.tier == Tier::T2;
        let held_out = if is_evaluated {
            let folders = run.folders.each_ref();
            same_training::held_out_of(self.session, self.built_arms, folders, self.evidence.steps, self.progress)?
        } else {
            None
        };
        self.evidence.pairs.push(PairEvidence { seed: run.seed, records, held_out });
        if let Some(plain) = &mut attempt.plain {
            let ms = run.ms.map(|ms| (ms * 1e3).round() / 1e3);
            let (baseline_first, d) = (run.baseline_first, round_log(run.log_ratio()));
            plain.rows_mut(self.mode).push(PlainRow { number, baseline_first, ms, log_ratio: d });
        }
        if self.evidence.tier == Tier::T2 {
            return Ok(None);
        }
        let parity = same_training::of_records(&self.evidence);
        Ok(parity.failures().next().map(|check| format!("parity in plain runs: {check}")))
    }

    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError> {
        self.index = attempt.plain.as_ref().map_or(0, |plain| plain.rows(self.mode).len());
        self.session.attempts().save(attempt)
    }

    fn note(&mut self, line: &str) {
        self.progress.note(line);
    }

    fn is_stop_requested(&self) -> bool {
        self.progress.is_stop_requested()
    }
}

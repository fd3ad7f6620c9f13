//! Measures two commits against each other: for audits, reruns and bisection. Never a claim.

use std::time::{Duration, Instant};

use pairbench::{
    draws::Randomization,
    pair::{
        plan::{self, PairPlan},
        schedule::Script,
    },
    progress::PairProgress,
    verdict::{Estimate, Judgement, Verdict, judge, pct_of_log, round_log},
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Progress,
    attempt::{Revision, gaming::MAX_VOIDS},
    compare::{PairRunner, built_arms::BuiltArms},
    store::session::Session,
};

/// The kind of its records.
pub const KIND: &str = "measurement";

/// One commit against another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// Its purpose: `audit`, `rerun`, `bisect`, `reference`.
    pub purpose: String,
    /// The first commit.
    pub baseline: Revision,
    /// The second commit.
    pub candidate: Revision,
    /// Fingerprint of the machine.
    pub fingerprint: String,
    /// Seed of all draws.
    #[serde(rename = "coins")]
    pub draws: Randomization,
    /// Fixed before the first pair.
    pub plan: PairPlan,
    /// `ln(t_baseline / t_candidate)` of each pair.
    pub d: Vec<f64>,
    /// The workload's command.
    #[serde(default)]
    pub command: String,
    /// The smallest difference that counted.
    #[serde(default)]
    pub epsilon_pct: f64,
    /// The verdict of the pairs.
    pub verdict: Verdict,
    /// Its reason, in a sentence.
    pub reason: String,
    /// The second commit against the first.
    pub estimate: Option<Estimate>,
}

impl Measurement {
    /// Judges its pairs again; none where its plan is not known.
    pub fn judged(&self) -> Option<Judgement> {
        Some(judge(&self.d, self.plan.looks()?, self.epsilon_pct))
    }
}

/// A question about two commits.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// As in [`Measurement::purpose`].
    pub purpose: &'a str,
    /// Longest measurement.
    pub budget: Duration,
    /// The smallest difference that counts.
    pub epsilon_pct: f64,
}

/// Runs pairs until there is an answer or the budget is spent, and records them.
pub fn run(
    session: &mut Session,
    built_arms: &BuiltArms,
    question: &Question<'_>,
    progress: &dyn Progress,
) -> Result<Measurement, LoopError> {
    crate::compare::selftest::ensure(session, built_arms, progress)?;
    let draws = Randomization::fresh();
    let began = Instant::now();
    let runner = PairRunner::new(session, built_arms, draws)?;
    let plan = plan::plan(&runner.request(0, &Script::default()), question.budget, progress)?;
    let [baseline, candidate] = built_arms.revisions.clone();
    let mut measured = Measurement {
        purpose: question.purpose.to_owned(),
        baseline,
        candidate,
        fingerprint: session.machine.fingerprint(),
        draws,
        plan,
        d: Vec::new(),
        command: session.config.workload.command.clone(),
        epsilon_pct: question.epsilon_pct,
        verdict: Verdict::Undecided,
        reason: String::new(),
        estimate: None,
    };
    run_pairs(&runner, &mut measured, began, question.budget, progress)?;
    session.ledger.append(KIND, &measured, None)?;
    Ok(measured)
}

/// Runs the pairs of a measurement and judges them after each.
fn run_pairs(
    runner: &PairRunner<'_>,
    measured: &mut Measurement,
    began: Instant,
    budget: Duration,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    let plan = measured.plan;
    let looks = plan
        .looks()
        .ok_or_else(|| LoopError::failed(format!("a plan of {} pairs is not one of the loop's", plan.pairs)))?;
    let mut voids = 0;
    loop {
        let judgement = judge(&measured.d, looks, measured.epsilon_pct);
        measured.estimate = judgement.estimate.or(measured.estimate);
        if let Some(verdict) = judgement.verdict {
            (measured.verdict, measured.reason) = (verdict, judgement.reason);
            return Ok(());
        }
        if began.elapsed() >= budget {
            measured.reason = format!("the budget is spent; {}", judgement.reason);
            return Ok(());
        }
        let number = 1 + (measured.d.len() + voids) as u64;
        let run = runner.run(number, &runner.script(&plan.blocks, number), progress)?;
        if let Some(void) = &run.void {
            voids += 1;
            progress.note(&format!("a pair is void: the {} {}", void.arm.name(), void.why));
            if voids >= MAX_VOIDS {
                return Err(LoopError::refused(format!("the {} {}", void.arm.name(), void.why)));
            }
            continue;
        }
        measured.d.push(round_log(run.log_ratio()));
        let pairs = measured.d.len();
        progress.pairs(&PairProgress {
            stage: measured.purpose.clone(),
            pairs,
            planned: plan.pairs,
            estimate_pct: Some(pct_of_log(pairbench::stats::robust::median(&measured.d))),
            interval_pct: measured.estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct)),
            elapsed_s: began.elapsed().as_secs_f64(),
            left_s: (plan.pairs - pairs.min(plan.pairs)) as f64 * plan.seconds_per_pair,
            needs: judgement.reason,
        });
    }
}

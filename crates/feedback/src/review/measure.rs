//! Two commits measured against each other now: for audits, reruns and bisection. Never a claim.

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
    /// What for: `audit`, `rerun`, `bisect`, `reference`.
    pub purpose: String,
    /// A.
    pub baseline: Revision,
    /// B.
    pub candidate: Revision,
    /// Of the machine.
    pub fingerprint: String,
    /// Of all draws.
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
    /// What they say.
    pub verdict: Verdict,
    /// In a sentence.
    pub reason: String,
    /// B beside A.
    pub estimate: Option<Estimate>,
}

impl Measurement {
    /// The same from its pairs alone; none where its plan is not known.
    pub fn judged(&self) -> Option<Judgement> {
        Some(judge(&self.d, self.plan.looks()?, self.epsilon_pct))
    }
}

/// Runs pairs until there is an answer or the budget is spent, and records them.
pub fn run(
    session: &mut Session,
    built_arms: &BuiltArms,
    purpose: &str,
    budget: Duration,
    epsilon_pct: f64,
    progress: &dyn Progress,
) -> Result<Measurement, LoopError> {
    crate::compare::selftest::ensure(session, built_arms, progress)?;
    let draws = Randomization::fresh();
    let began = Instant::now();
    let measured = {
        let runner = PairRunner::new(session, built_arms, draws)?;
        let empty = Script::default();
        let plan = plan::plan(&runner.request(0, &empty), budget, progress)?;
        let looks = plan
            .looks()
            .ok_or_else(|| LoopError::failed(format!("a plan of {} pairs is not one of the loop's", plan.pairs)))?;
        let mut d = Vec::new();
        let mut voids = 0;
        let mut estimate = None;
        let (verdict, reason) = loop {
            let judgement = judge(&d, looks, epsilon_pct);
            estimate = judgement.estimate.or(estimate);
            if let Some(verdict) = judgement.verdict {
                break (verdict, judgement.reason);
            }
            if began.elapsed() >= budget {
                break (Verdict::Undecided, format!("the budget is spent; {}", judgement.reason));
            }
            let number = 1 + (d.len() + voids) as u64;
            let run = runner.run(number, &runner.script(&plan.blocks, number), progress)?;
            if let Some(void) = &run.void {
                voids += 1;
                progress.note(&format!("a pair is void: the {} {}", void.arm.name(), void.why));
                if voids >= MAX_VOIDS {
                    return Err(LoopError::refused(format!("the {} {}", void.arm.name(), void.why)));
                }
                continue;
            }
            d.push(round_log(run.log_ratio()));
            progress.pairs(&PairProgress {
                stage: purpose.to_owned(),
                pairs: d.len(),
                planned: plan.pairs,
                estimate_pct: Some(pct_of_log(pairbench::stats::robust::median(&d))),
                interval_pct: estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct)),
                elapsed_s: began.elapsed().as_secs_f64(),
                left_s: (plan.pairs - d.len().min(plan.pairs)) as f64 * plan.seconds_per_pair,
                needs: judgement.reason,
            });
        };
        let [baseline, candidate] = built_arms.revisions.clone();
        let (purpose, fingerprint) = (purpose.to_owned(), session.machine.fingerprint());
        let command = session.config.workload.command.clone();
        Measurement {
            purpose,
            baseline,
            candidate,
            fingerprint,
            draws,
            plan,
            d,
            command,
            epsilon_pct,
            verdict,
            reason,
            estimate,
        }
    };
    session.ledger.append(KIND, &measured, None)?;
    Ok(measured)
}

//! A whole comparison in one call, for callers that keep no records: pairs until the plan has an answer.
//!
//! A caller that must survive an interruption, or prove later what was measured, drives [`pair::run`] and
//! [`verdict::judge`] itself, as the `feedback` crate does.

use std::{path::Path, time::Duration};

use crate::{
    Arm, LoopError, Progress,
    draws::Randomization,
    pair::{self, PairRequest, plan, timed_command::TimedCommand},
    process::sandbox::SandboxSpec,
    verdict::{self, Judgement, LOST_D, Verdict},
};

/// Pairs that one arm may spoil before the comparison ends.
const MAX_VOIDS: usize = 3;

/// Two programs and how they are compared.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The command that is timed; the same words for both arms.
    pub command: TimedCommand,
    /// The files that the command finds in its folder: the baseline's and the candidate's.
    pub specs: [SandboxSpec; 2],
    /// The smallest difference that counts, in per cent of speed.
    pub epsilon_pct: f64,
    /// Chooses the number of pairs, 20, 40 or 80, before the first one. It is not a time limit.
    pub budget: Duration,
}

/// Runs pairs in `work`, an empty folder, until the test has an answer or the plan ends. A pair that the candidate
/// spoils counts against the candidate ([`LOST_D`]); a pair that the baseline spoils is run again.
///
/// # Errors
/// [`LoopError::trainer`] where a command fails, [`LoopError::refused`] where the candidate spoils pairs (it works
/// while it should wait, or leaves processes behind), [`LoopError::failed`] where the baseline does.
pub fn run(comparison: &Comparison, work: &Path, progress: &dyn Progress) -> Result<Judgement, LoopError> {
    let specs = [&comparison.specs[0], &comparison.specs[1]];
    let draws = Randomization::fresh();
    let empty = pair::schedule::Script::default();
    let command = comparison.command.clone();
    let request = PairRequest { command, specs, script: &empty, draws, number: 0, work, slowed: None };
    let plan = plan::plan(&request, comparison.budget, progress)?;
    let looks = plan.looks().ok_or_else(|| LoopError::failed(format!("no plan has {} pairs", plan.pairs)))?;
    let script = plan.blocks.script();
    let mut d = Vec::with_capacity(plan.pairs);
    let mut voids = [0; 2];
    let mut number = 0;
    loop {
        number += 1;
        let request = PairRequest { script: &script, number, command: comparison.command.clone(), ..request };
        let run = pair::run(&request, progress)?;
        if let Some(void) = &run.void {
            progress.note(&format!("pair {number} is void: the {} {}", void.arm.name(), void.why));
            voids[void.arm.index()] += 1;
            if voids[void.arm.index()] == MAX_VOIDS {
                let what = format!("{MAX_VOIDS} pairs are void: the {} {}", void.arm.name(), void.why);
                return Err(match void.arm {
                    Arm::Candidate => LoopError::refused(what),
                    Arm::Baseline => LoopError::failed(what),
                });
            }
        }
        match run.void.as_ref().map(|void| void.arm) {
            None => d.push(verdict::round_log(run.log_ratio())),
            Some(Arm::Candidate) => d.push(LOST_D),
            Some(Arm::Baseline) => continue,
        }
        let judgement = verdict::judge(&d, looks, comparison.epsilon_pct);
        if judgement.verdict.is_some() {
            return Ok(judgement);
        }
        if d.len() == plan.pairs {
            return Ok(Judgement { verdict: Some(Verdict::Undecided), ..judgement });
        }
    }
}

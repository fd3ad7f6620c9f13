//! The plan, fixed before the first pair: how a run is cut into blocks, and the number of pairs.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Arm, LoopError, Progress,
    draws::Randomization,
    pair::{
        self, ArmRun, PairRequest,
        schedule::{Blocks, Script},
        timed_command::{Sharing, TimedCommand},
    },
    process::sandbox::SandboxSpec,
    stats::{
        robust::median,
        sequential::{self, Continuation},
    },
};

/// Target length of the timed part of a block: long compared with a switch (50 µs), short compared with changes of
/// load. In 36 pairs of a program with itself the standard deviation of a pair was 0.7 %, with 40 ms 1.0 %.
const BLOCK_MS: f64 = 15.0;
/// The same where turns end with printed lines, which a terminal hands on with a delay of up to some milliseconds.
const BLOCK_BY_LINES_MS: f64 = 45.0;
/// Steps longer than this are timed from their first: refilling caches is a thousandth of one.
const REFRESHED_STEP_MS: f64 = 50.0;
/// Steps whose updates are checked one by one come before the first block.
const STEPS_ALONE: u64 = 10;
/// Runs of fewer steps than this may have a warm-up of only two steps: more would leave too little to measure.
const LONG_RUN_STEPS: u64 = 60;
/// The same where weights are written.
const LONG_RUN_WITH_WEIGHTS_STEPS: u64 = 17;
/// Steps that are left out of a run without turns, at least: nobody saw the first one begin.
const LEAST_WARM_UP: u64 = 2;
/// Steps in a batch of the warm-up's detection.
const BATCH_STEPS: usize = 5;
/// Numbers of pairs that a comparison can have.
const SIZES: [usize; 3] = [80, 40, 20];

/// The plan of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairPlan {
    /// How a run is cut.
    pub blocks: Blocks,
    /// Pairs.
    pub pairs: usize,
    /// Measured time of a pair.
    pub seconds_per_pair: f64,
    /// How it continues after UNDECIDED, which also decides the bounds that it is judged by.
    #[serde(default)]
    pub continuation: Continuation,
}

impl PairPlan {
    /// Its looks and bounds; none if no plan has this number of pairs.
    pub fn looks(&self) -> Option<sequential::Plan> {
        sequential::Plan::for_pairs(self.pairs).map(|plan| plan.with(self.continuation))
    }
}

/// Runs the baseline alone, one step a turn, and plans from its times.
pub fn plan(request: &PairRequest<'_>, budget: Duration, progress: &dyn Progress) -> Result<PairPlan, LoopError> {
    let steps = request.command.steps;
    if request.command.sharing == Sharing::Whole {
        let run = pair::alone(request, Arm::Baseline, progress)?;
        // One block: the steps after the warm-up, where their lines tell it from the rest, else the whole process.
        let steps_ms: Vec<f64> = run.turns.iter().map(|turn| turn.ms).collect();
        let has_lines = request.command.step_lines.is_some();
        let warmup_steps = if has_lines { (warm_up(&steps_ms) as u64).max(LEAST_WARM_UP).min(steps / 2) } else { 0 };
        let blocks = Blocks { warmup_steps, block_steps: steps - warmup_steps, blocks: 1, steps };
        let seconds_per_pair = 2.0 * run.whole_ms() / 1e3;
        return Ok(PairPlan {
            blocks,
            pairs: pairs_within(budget, seconds_per_pair),
            seconds_per_pair,
            continuation: Continuation::Reserve,
        });
    }
    let run = pair::alone(request, Arm::Baseline, progress)?;
    let steps_ms: Vec<f64> = run.turns.iter().map(|turn| turn.ms).collect();
    let block_ms = if request.command.sharing == Sharing::Lines { BLOCK_BY_LINES_MS } else { BLOCK_MS };
    let blocks = blocks(&steps_ms, block_ms, request.command.writes_weights).ok_or_else(|| {
        LoopError::usage(format!("`workload.steps` is {steps}: after the warm-up there is no room for a block"))
            .hint("give it more steps")
    })?;
    let seconds_per_pair = seconds_per_pair(&run);
    Ok(PairPlan {
        blocks,
        pairs: pairs_within(budget, seconds_per_pair),
        seconds_per_pair,
        continuation: Continuation::Reserve,
    })
}

/// The turns of a workload that is measured beside the primary one, planned the same way.
pub fn script_of(
    command: &TimedCommand,
    specs: &[SandboxSpec; 2],
    work: &Path,
    draws: Randomization,
    progress: &dyn Progress,
) -> Result<Script, LoopError> {
    let empty = Blocks { warmup_steps: 0, block_steps: 1, blocks: 0, steps: 0 }.script();
    let request = PairRequest {
        command: command.clone(),
        specs: [&specs[0], &specs[1]],
        script: &empty,
        draws,
        number: 0,
        work,
        slowed: None,
    };
    plan(&request, Duration::ZERO, progress).map(|plan| plan.blocks.script())
}

/// Estimated as twice the time that the baseline takes alone.
fn seconds_per_pair(run: &ArmRun) -> f64 {
    2.0 * run.whole_ms() / 1e3
}

/// The largest number of pairs that fits into the budget.
pub fn pairs_within(budget: Duration, seconds_per_pair: f64) -> usize {
    let fits = |pairs: &&usize| **pairs as f64 * seconds_per_pair <= budget.as_secs_f64();
    *SIZES.iter().find(fits).unwrap_or(&SIZES[SIZES.len() - 1])
}

/// Cuts a run into blocks of about `block_ms` by the times of its steps.
pub fn blocks(steps_ms: &[f64], block_ms: f64, writes_weights: bool) -> Option<Blocks> {
    let steps = steps_ms.len() as u64;
    let long = if writes_weights { LONG_RUN_WITH_WEIGHTS_STEPS } else { LONG_RUN_STEPS };
    let least = if steps >= long { STEPS_ALONE } else { 2.min(steps) };
    let warmup_steps = (warm_up(steps_ms) as u64).max(least);
    let step_ms = median(&steps_ms[steps_ms.len().min(warmup_steps as usize)..]);
    let timed_steps = if step_ms > 0.0 { (block_ms / step_ms).round().max(1.0) as u64 } else { 1 };
    let block_steps = timed_steps + u64::from(step_ms <= REFRESHED_STEP_MS);
    // Short runs get shorter blocks rather than fewer.
    let room = steps.saturating_sub(warmup_steps + 2);
    Blocks::cut(steps, warmup_steps, block_steps.min((room / 5).max(1)))
}

/// The number of steps to leave out at the beginning: the cut that minimises the standard error of the mean of the rest
/// (MSER-5, White 1997). It uses medians of five steps, so that single slow steps do not count, and cuts at most half
/// of the run.
fn warm_up(steps_ms: &[f64]) -> usize {
    let batches: Vec<f64> = steps_ms.chunks_exact(BATCH_STEPS).map(median).collect();
    let standard_error = |cut: usize| {
        let rest = &batches[cut..];
        let mean = rest.iter().sum::<f64>() / rest.len() as f64;
        rest.iter().map(|batch| (batch - mean).powi(2)).sum::<f64>() / (rest.len() as f64).powi(2)
    };
    let cuts = 0..=batches.len() / 2;
    let best = cuts.filter(|cut| *cut < batches.len()).min_by(|a, b| standard_error(*a).total_cmp(&standard_error(*b)));
    best.unwrap_or(0) * BATCH_STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_beginning_is_cut_off() {
        let slow_until = |slow: usize| {
            let steps: Vec<f64> =
                (0..200).map(|step| if step < slow { 9.0 } else { 4.0 + 0.01 * (step % 7) as f64 }).collect();
            warm_up(&steps)
        };
        assert_eq!(slow_until(0), 0);
        assert_eq!(slow_until(20), 20);
        assert_eq!(slow_until(23), 25);
    }

    #[test]
    fn single_slow_steps_are_no_warm_up() {
        let mut steps = vec![4.0; 200];
        for slow in [3, 57, 120] {
            steps[slow] = 80.0;
        }
        assert_eq!(warm_up(&steps), 0);
    }

    #[test]
    fn blocks_are_odd_in_number_and_as_long_as_aimed_at() {
        let cut = blocks(&[4.0; 200], BLOCK_MS, true).unwrap();
        // Four steps are timed, after one that is not.
        assert_eq!((cut.warmup_steps, cut.block_steps, cut.blocks), (10, 5, 37));
        let slow = blocks(&[700.0; 21], BLOCK_MS, false).unwrap();
        assert_eq!((slow.warmup_steps, slow.block_steps, slow.blocks), (2, 1, 17));
        assert_eq!(blocks(&[1.0; 2], BLOCK_MS, false), None);
    }

    /// Whatever its length, a run whose weights are written has a drawn step beside those in the warm-up.
    #[test]
    fn short_runs_have_steps_to_look_at() {
        for steps in 5..=70 {
            let cut = blocks(&vec![3.0; steps], BLOCK_MS, true).unwrap();
            let alone: Vec<u64> = cut.steps_alone().collect();
            assert_eq!(alone, if steps < 17 { vec![1, 2] } else { vec![1, 2, 10] }, "{steps} steps");
            assert!((0..cut.blocks).all(|block| !alone.contains(&cut.step_before(block))), "{steps} steps: {cut:?}");
            assert!(cut.step_before(cut.blocks - 1) < steps as u64, "{steps} steps: {cut:?}");
        }
    }

    #[test]
    fn the_largest_size_that_fits_is_taken() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(pairs_within(minutes(5), 2.0), 80);
        assert_eq!(pairs_within(minutes(2), 2.0), 40);
        assert_eq!(pairs_within(minutes(1), 2.0), 20);
        assert_eq!(pairs_within(minutes(1), 60.0), 20);
    }
}

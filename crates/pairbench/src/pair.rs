//! One pair: baseline and candidate as fresh processes, timed by the loop's own clock.
//!
//! With turns, both trainers are alive at once. One runs a block while all processes of the other are stopped; a coin
//! decides who goes first. A pair's number is the median over its blocks of `ln(t_baseline / t_candidate)`: positive
//! where the candidate is faster. If the waiting arm used the processor, the pair is void.

mod in_turns;
pub mod lines;
pub mod plain;
pub mod plan;
mod running;
pub mod schedule;
pub mod timed_command;
pub mod turns;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Arm, LoopError, Progress,
    draws::{Purpose, Randomization},
    gpu::GpuSample,
    pair::{
        running::RunningTrainer,
        schedule::{Action, Script},
        timed_command::{Sharing, TimedCommand},
        turns::SocketFolder,
    },
    process::{
        self, Process, ReapOrphansOnDrop,
        sandbox::{Sandbox, SandboxSpec},
    },
};

/// A pair to be run.
pub struct PairRequest<'a> {
    /// The command that both arms run.
    pub command: TimedCommand,
    /// Both trainers' files, by [`Arm::index`].
    pub specs: [&'a SandboxSpec; 2],
    /// The turns of both arms.
    pub script: &'a Script,
    /// The draws of the comparison.
    pub draws: Randomization,
    /// Number of the pair; its draws depend on it.
    pub number: u64,
    /// The folder in which the trainers' folders are made.
    pub work: &'a Path,
    /// An arm, and the delay that is added to each of its turns as a share of the turn: the known effect of a
    /// self-test.
    pub slowed: Option<(Arm, f64)>,
}

/// The time of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnTime {
    /// Its block; none for the warm-up and the steps after the last block.
    pub block: Option<usize>,
    /// From `go` to `done`, and the delay.
    pub ms: f64,
    /// The part of it that [`PairRequest::slowed`] added.
    pub delay_ms: f64,
}

/// One trainer's part of a pair.
#[derive(Debug)]
pub struct ArmRun {
    /// The folder in which it ran: its records stay there until this is dropped.
    pub folder: Sandbox,
    /// From the start of the process to its `hello`.
    pub ready_ms: f64,
    /// Its turns, in order.
    pub turns: Vec<TurnTime>,
    /// From the last `done` to the end of the process, or of the whole process where there are no turns.
    pub finish_ms: f64,
    /// Total time to write its weights on request.
    pub saves_ms: f64,
    /// Peak resident memory, where it is known.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time of other programs during its turns, as a share of that time.
    pub foreign_cpu_share: f64,
    /// NVIDIA cards after each timed turn; empty where there are none.
    pub gpus: Vec<GpuSample>,
}

/// The result of a pair.
#[derive(Debug)]
pub struct PairRun {
    /// By [`Arm::index`].
    pub arms: [ArmRun; 2],
    /// The training seed of both.
    pub seed: u64,
    /// Whether the baseline came first: started first, and in the first folder.
    pub baseline_first: bool,
    /// Why the pair does not count.
    pub void: Option<Void>,
    /// Wall time of the whole pair.
    pub seconds: f64,
    /// The part of that in turns.
    pub turns_s: f64,
}

/// The result of a pair that ran to its end.
pub enum Outcome<R> {
    /// It was measured.
    Measured(R),
    /// An arm spoiled it.
    Void(Void),
}

/// Why a pair does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// The arm that spoiled it.
    pub arm: Arm,
    /// What it did.
    pub why: String,
}

impl PairRun {
    /// The pair's number: `ln(t_baseline / t_candidate)`, positive where the candidate is faster.
    pub fn log_ratio(&self) -> f64 {
        self.log_ratio_of(|turn| turn.ms)
    }

    /// The same without the delays that [`PairRequest::slowed`] added.
    pub fn undelayed_log_ratio(&self) -> f64 {
        self.log_ratio_of(|turn| turn.ms - turn.delay_ms)
    }

    fn log_ratio_of(&self, ms: impl Fn(&TurnTime) -> f64) -> f64 {
        let [baseline, candidate] =
            self.arms.each_ref().map(|arm| arm.turns.iter().filter(|turn| turn.block.is_some()).map(&ms));
        // A block whose lines all came at once has no time (`check_blocks` bounds their number).
        let has_time = |(baseline_ms, candidate_ms): &(f64, f64)| *baseline_ms > 0.0 && *candidate_ms > 0.0;
        let ratios: Vec<f64> = baseline
            .zip(candidate)
            .filter(has_time)
            .map(|(baseline_ms, candidate_ms)| (baseline_ms / candidate_ms).ln())
            .collect();
        crate::stats::robust::median(&ratios)
    }

    /// Wall time of both trainers' starts, turns and ends; the rest of [`PairRun::seconds`] is the loop's own.
    pub fn trainers_s(&self) -> f64 {
        self.arms.iter().map(ArmRun::whole_ms).sum::<f64>() / 1e3
    }

    /// The same over whole runs: start, warm-up, blocks, rest, saving and end.
    pub fn run_log_ratio(&self) -> f64 {
        let [baseline_ms, candidate_ms] = [0, 1].map(|arm: usize| self.arms[arm].whole_ms());
        (baseline_ms / candidate_ms).ln()
    }
}

/// Most blocks of a run whose time is not known.
const MOST_TIMELESS: f64 = 0.5;

impl ArmRun {
    /// Fails if the lines of whole blocks came at once, so that nobody knows how long they took.
    pub(crate) fn check_blocks(&self, arm: Arm) -> Result<(), LoopError> {
        let blocks = || self.turns.iter().filter(|turn| turn.block.is_some());
        let timeless = blocks().filter(|turn| turn.ms <= 0.0).count();
        if timeless as f64 <= MOST_TIMELESS * blocks().count() as f64 {
            return Ok(());
        }
        let message = format!("the {} printed the lines of several steps at once: its output is buffered", arm.name());
        Err(LoopError::trainer(arm, message)
            .hint("have it flush its output after each line, and do not send it through a pipe"))
    }

    /// Time of the whole run.
    pub fn whole_ms(&self) -> f64 {
        self.ready_ms + self.turns.iter().map(|turn| turn.ms).sum::<f64>() + self.saves_ms + self.finish_ms
    }
}

/// Runs a pair, in turns or one arm after the other as its command says.
pub fn run(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    match request.command.sharing {
        Sharing::Turns | Sharing::Lines => in_turns::run(request, progress),
        Sharing::Sequential | Sharing::Whole => one_after_the_other(request, progress),
    }
}

impl PairRequest<'_> {
    fn order(&self) -> [Arm; 2] {
        self.draws.order(Purpose::Pair, self.number, 0)
    }

    fn block_order(&self, turn: usize) -> [Arm; 2] {
        self.draws.order(Purpose::Block, self.number, turn as u64)
    }

    /// The training seed of both arms; fits an i32.
    fn seed(&self) -> u64 {
        self.draws.training_seed(self.number)
    }
}

/// Runs one arm alone, one step a turn if it takes turns.
pub fn alone(request: &PairRequest<'_>, arm: Arm, progress: &dyn Progress) -> Result<ArmRun, LoopError> {
    let steps = Script((0..request.command.steps).map(|_| Action::Go { steps: 1, block: None }).collect());
    match run_alone(request, &steps, arm, 0, progress)? {
        (run, None) => Ok(run),
        (_, Some(Void { why, .. })) => Err(LoopError::failed(format!("the {} {why}", arm.name()))),
    }
}

/// Starts one arm, lets it run its first step, and ends it. Returns the seconds until that step is done, or the seconds
/// of the whole process if it does not take turns.
pub fn start_only(
    request: &PairRequest<'_>,
    arm: Arm,
    place: usize,
    progress: &dyn Progress,
) -> Result<f64, LoopError> {
    let _reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let sockets = SocketFolder::create()?;
    let mut trainer = RunningTrainer::start(request, arm, place, &sockets, progress)?;
    let first_step_ms = if trainer.takes_turns() {
        trainer.run_steps(1, progress)?.0
    } else {
        trainer.finish(progress)?;
        trainer.run.finish_ms
    };
    Ok((trainer.run.ready_ms + first_step_ms) / 1e3)
}

fn run_alone(
    request: &PairRequest<'_>,
    script: &Script,
    arm: Arm,
    place: usize,
    progress: &dyn Progress,
) -> Result<(ArmRun, Option<Void>), LoopError> {
    let reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let sockets = SocketFolder::create()?;
    let delay = request.slowed.filter(|(slowed, _)| *slowed == arm).map_or(0.0, |(_, share)| share);
    let mut trainer = RunningTrainer::start(request, arm, place, &sockets, progress)?;
    if trainer.takes_turns() {
        for action in &script.0 {
            match action {
                Action::Save => trainer.save(progress)?,
                Action::Go { steps, block } => {
                    let (ms, _) = trainer.run_steps(*steps, progress)?;
                    let delay_ms = if delay > 0.0 {
                        trainer.hold()?;
                        pause(ms * delay)
                    } else {
                        0.0
                    };
                    trainer.run.turns.push(TurnTime { block: *block, ms: ms + delay_ms, delay_ms });
                }
            }
        }
        trainer.finish(progress)?;
    } else {
        trainer.finish(progress)?;
        let turns = match trainer.steps_ms(request.command.steps)? {
            Some(steps_ms) => turns_of(script, &steps_ms),
            None => vec![(Some(0), trainer.run.finish_ms)],
        };
        for (block, own_ms) in turns {
            trainer.run.finish_ms -= own_ms;
            let wait = Instant::now();
            std::thread::sleep(Duration::from_secs_f64(own_ms * delay / 1e3));
            let delay_ms = if delay > 0.0 { ms_since(wait) } else { 0.0 };
            trainer.run.turns.push(TurnTime { block, ms: own_ms + delay_ms, delay_ms });
        }
    }
    let void = void_by_orphan(&reaper, &[trainer.traces()]);
    Ok((trainer.run, void))
}

/// Blocks and milliseconds of a script's turns, from the times of the steps of a run that nobody stopped.
fn turns_of(script: &Script, steps_ms: &[f64]) -> Vec<(Option<usize>, f64)> {
    let mut rest = steps_ms;
    let mut turns = Vec::new();
    for action in &script.0 {
        if let Action::Go { steps, block } = action {
            let (turn, after) = rest.split_at(rest.len().min(*steps as usize));
            turns.push((*block, turn.iter().sum()));
            rest = after;
        }
    }
    turns
}

fn one_after_the_other(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    let started = Instant::now();
    let order = request.order();
    let mut void = None;
    let mut runs = Vec::with_capacity(2);
    for (place, arm) in order.into_iter().enumerate() {
        let (run, found) = run_alone(request, request.script, arm, place, progress)?;
        void = void.or(found);
        runs.push(run);
    }
    if order[0] == Arm::Candidate {
        runs.swap(0, 1);
    }
    let arms: [ArmRun; 2] = runs.try_into().map_err(|_| LoopError::failed("a pair has two trainers"))?;
    for (arm, run) in Arm::BOTH.into_iter().zip(&arms) {
        run.check_blocks(arm)?;
    }
    let turns_s = arms.iter().flat_map(|arm| &arm.turns).map(|turn| turn.ms / 1e3).sum();
    Ok(PairRun {
        arms,
        seed: request.seed(),
        baseline_first: order[0] == Arm::Baseline,
        void,
        seconds: started.elapsed().as_secs_f64(),
        turns_s,
    })
}

/// Waits after a trainer has answered, as the known effect of a self-test; returns the time in ms.
fn pause(ms: f64) -> f64 {
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(ms / 1e3);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    ms_since(started)
}

/// Ends processes that outlived their trainers, and blames an arm for them: the one in whose folder they still work,
/// else the candidate, because the baseline was accepted without such processes.
pub(crate) fn void_by_orphan(reaper: &ReapOrphansOnDrop, trainers: &[(Arm, &Process, &Path)]) -> Option<Void> {
    let known: Vec<&Process> = trainers.iter().map(|(_, process, _)| *process).collect();
    let mut void = None;
    for pid in reaper.orphans(&known) {
        let folder = process::working_folder(pid);
        let of_baseline = trainers.iter().any(|(arm, _, own)| {
            *arm == Arm::Baseline && folder.as_deref().is_some_and(|folder| folder.starts_with(own))
        });
        let arm = if of_baseline { Arm::Baseline } else { Arm::Candidate };
        let name = process::program_name(pid);
        process::end_orphan(pid);
        void = Some(Void { arm, why: format!("left a process behind (`{name}`), which was ended") });
    }
    void
}

fn ms_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

//! One pair: baseline and candidate as fresh processes, timed by the loop's own clock.
//!
//! Under turns both trainers at once. One runs a block while the other's whole family is stopped; who
//! goes first in a block is a coin. A pair's number is the median over its blocks of
//! `ln(t_baseline / t_candidate)`: positive where the candidate is faster. What the waiting arm used
//! of the processor must be nil, else the pair is void.

mod in_turns;
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
    /// What runs, and how.
    pub command: TimedCommand,
    /// Both trainers' files, by [`Arm::index`].
    pub specs: [&'a SandboxSpec; 2],
    /// Turns of both.
    pub script: &'a Script,
    /// Randomization of the comparison.
    pub draws: Randomization,
    /// Number of the pair, which its draws belong to.
    pub number: u64,
    /// Where its folders are made.
    pub work: &'a Path,
    /// Delay put into every turn of an arm, as a share of it: the known effect of a self-test.
    pub slowed: Option<(Arm, f64)>,
}

/// A turn's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnTime {
    /// Its block; none for warm-up and rest.
    pub block: Option<usize>,
    /// From `go` to `done`.
    pub ms: f64,
}

/// One trainer's part of a pair.
#[derive(Debug)]
pub struct ArmRun {
    /// Where it ran: its records lie there until this is dropped.
    pub folder: Sandbox,
    /// From the start of the process to its `hello`.
    pub ready_ms: f64,
    /// All turns, in order.
    pub turns: Vec<TurnTime>,
    /// From the last `done` to the end of the process, or of the whole process where there are no turns.
    pub finish_ms: f64,
    /// What it took to write its weights on request, all together.
    pub saves_ms: f64,
    /// Largest resident memory, where it can be told.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time of others while it had its turns, as a share of those.
    pub foreign_cpu_share: f64,
}

/// What came of a pair.
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
    /// Of it, in turns.
    pub turns_s: f64,
}

/// How a pair ended that ran to its end.
pub enum Outcome<R> {
    /// It was measured.
    Measured(R),
    /// It was spoiled, and by whom.
    Void(Void),
}

/// Why a pair does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Void {
    /// Who is to blame.
    pub arm: Arm,
    /// What it did.
    pub why: String,
}

impl PairRun {
    /// The pair's number: `ln(t_baseline / t_candidate)`, positive where the candidate is faster.
    pub fn log_ratio(&self) -> f64 {
        let [baseline, candidate] = &self.arms;
        let ratios: Vec<f64> = block_times(&baseline.turns)
            .zip(block_times(&candidate.turns))
            .map(|(baseline_ms, candidate_ms)| (baseline_ms / candidate_ms).ln())
            .collect();
        crate::stats::robust::median(&ratios)
    }

    /// Wall time of both trainers' starts, turns and ends; the rest of [`PairRun::seconds`] is the loop's own.
    pub fn trainers_s(&self) -> f64 {
        self.arms.iter().map(ArmRun::whole_ms).sum::<f64>() / 1e3
    }

    /// The same for everything: start, warm-up, blocks, rest, saving and end.
    pub fn whole_log_ratio(&self) -> f64 {
        let [baseline_ms, candidate_ms] = [0, 1].map(|arm: usize| self.arms[arm].whole_ms());
        (baseline_ms / candidate_ms).ln()
    }
}

impl ArmRun {
    /// Time of the whole run.
    pub fn whole_ms(&self) -> f64 {
        self.ready_ms + self.turns.iter().map(|turn| turn.ms).sum::<f64>() + self.saves_ms + self.finish_ms
    }
}

fn block_times(turns: &[TurnTime]) -> impl Iterator<Item = f64> {
    turns.iter().filter(|turn| turn.block.is_some()).map(|turn| turn.ms)
}

/// Runs a pair as its workload shares the machine.
pub fn run(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    match request.command.sharing {
        Sharing::Turns => in_turns::run(request, progress),
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

    /// Of both arms alike; fits an i32.
    fn seed(&self) -> u64 {
        self.draws.training_seed(self.number)
    }
}

/// Runs one arm by itself, a step a turn where it takes turns.
pub fn alone(request: &PairRequest<'_>, arm: Arm, progress: &dyn Progress) -> Result<ArmRun, LoopError> {
    let steps = Script((0..request.command.steps).map(|_| Action::Go { steps: 1, block: None }).collect());
    match run_alone(request, &steps, arm, 0, progress)? {
        (run, None) => Ok(run),
        (_, Some(Void { why, .. })) => Err(LoopError::failed(format!("the {} {why}", arm.name()))),
    }
}

/// Starts one arm, lets it run its first step, and ends it; returns the seconds until that step is done, or those of the
/// whole process where it does not take turns.
pub fn start_only(
    request: &PairRequest<'_>,
    arm: Arm,
    place: usize,
    progress: &dyn Progress,
) -> Result<f64, LoopError> {
    let _reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let sockets = SocketFolder::create()?;
    let mut trainer = RunningTrainer::start(request, arm, place, &sockets, progress)?;
    let first_step_ms = if trainer.turns.is_some() {
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
    if trainer.turns.is_some() {
        for action in &script.0 {
            match action {
                Action::Save => trainer.save(progress)?,
                Action::Go { steps, block } => {
                    let (mut ms, _) = trainer.run_steps(*steps, progress)?;
                    if delay > 0.0 {
                        ms += pause(ms * delay);
                    }
                    trainer.run.turns.push(TurnTime { block: *block, ms });
                }
            }
        }
        trainer.finish(progress)?;
    } else {
        trainer.finish(progress)?;
        let ms = trainer.run.finish_ms;
        let wait = Instant::now();
        std::thread::sleep(Duration::from_secs_f64(ms * delay / 1e3));
        trainer.run.turns.push(TurnTime { block: Some(0), ms: ms + ms_since(wait) });
        trainer.run.finish_ms = 0.0;
    }
    let void = void_by_orphan(&reaper, &[trainer.traces()]);
    Ok((trainer.run, void))
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

/// Waits while a trainer that has answered does nothing, as the known effect of a self-test; returns how long it took.
fn pause(ms: f64) -> f64 {
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(ms / 1e3);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    ms_since(started)
}

/// Ends processes that outlived their trainers, and says whose they were: by the working folder that they still
/// have, else the candidate's, since the baseline was accepted without any.
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

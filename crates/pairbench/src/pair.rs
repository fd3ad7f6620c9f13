//! One pair: baseline and candidate as fresh processes, timed by the loop's own clock.
//!
//! Under turns both trainers at once. One runs a block while the other's whole family is stopped; who
//! goes first in a block is a coin. A pair's number is the median over its blocks of
//! `ln(t_baseline / t_candidate)`: positive where the candidate is faster. What the waiting arm used
//! of the processor must be nil, else the pair is void.

pub mod plain;
pub mod plan;
pub mod schedule;
pub mod timed_command;
pub mod turns;

use std::{
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

use crate::{
    Arm, LoopError, Progress,
    draws::{Purpose, Randomization},
    pair::{
        schedule::{Action, Script},
        timed_command::{Sharing, TimedCommand, fill},
        turns::{Listener, SocketFolder, Turns, VARIABLE, Waiting},
    },
    process::{
        self, Process, ReapOrphansOnDrop,
        cpu_usage::CpuUsage,
        sandbox::{Sandbox, SandboxSpec},
        stillness::Stillness,
    },
};

/// Longest start of a trainer, and longest end after its last step.
const START_TIMEOUT: Duration = Duration::from_secs(300);
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
        Sharing::Turns => in_turns(request, progress),
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

/// A trainer that has said hello, or that runs without turns.
struct RunningTrainer {
    process: Process,
    turns: Option<(Listener, Turns)>,
    run: ArmRun,
    arm: Arm,
    turn_timeout: Duration,
}

impl RunningTrainer {
    fn start(
        request: &PairRequest<'_>,
        arm: Arm,
        place: usize,
        sockets: &SocketFolder,
        progress: &dyn Progress,
    ) -> Result<RunningTrainer, LoopError> {
        let spec = request.specs[arm.index()];
        // Equal lengths, and nothing that tells the arms apart.
        let name = ["a", "b"][place];
        let folder = Sandbox::create(&request.work.join(name), spec)?;
        let (steps, seed) = (request.command.steps.to_string(), request.seed().to_string());
        let words = fill(&request.command.line, &[("steps", &steps), ("seed", &seed)])?;
        let mut launch = folder.command(&words, spec)?;
        let listener = match request.command.sharing {
            Sharing::Whole => None,
            Sharing::Turns | Sharing::Sequential => Some(sockets.listen(name)?),
        };
        if let Some(listener) = &listener {
            let path = listener.show_to(&mut launch, folder.isolation());
            launch.environment.push((VARIABLE.into(), path.into_os_string()));
        }
        let started = Instant::now();
        let mut process = Process::spawn(&launch, folder.isolation(), folder.outputs())?;
        let turns = match listener {
            None => None,
            Some(listener) => {
                let deadline = started + START_TIMEOUT;
                let turns = listener.accept(&mut Waiting { process: &mut process, progress, deadline, arm })?;
                Some((listener, turns))
            }
        };
        let ready_ms = ms_since(started);
        let run = ArmRun {
            folder,
            ready_ms,
            turns: Vec::new(),
            finish_ms: 0.0,
            saves_ms: 0.0,
            peak_memory_bytes: None,
            foreign_cpu_share: 0.0,
        };
        Ok(RunningTrainer { process, turns, run, arm, turn_timeout: request.command.turn_timeout })
    }

    /// One turn, timed from outside.
    fn run_steps(&mut self, steps: u64, progress: &dyn Progress) -> Result<(f64, u64), LoopError> {
        let RunningTrainer { process, turns: Some((_, turns)), arm, turn_timeout, .. } = self else {
            return Ok((0.0, 0));
        };
        let started = Instant::now();
        process.thaw();
        let deadline = started + *turn_timeout;
        let done = turns.run_steps(steps, &mut Waiting { process, progress, deadline, arm: *arm })?;
        Ok((ms_since(started), done))
    }

    fn save(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        let RunningTrainer { process, turns: Some((_, turns)), arm, turn_timeout, .. } = self else { return Ok(()) };
        let started = Instant::now();
        process.thaw();
        turns.save(&mut Waiting { process, progress, deadline: started + *turn_timeout, arm: *arm })?;
        // Work that was put off until now is part of the run.
        self.run.saves_ms += ms_since(started);
        Ok(())
    }

    /// Lets the trainer end by itself.
    fn finish(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        // Without turns this is the whole run, and its memory is seen while it runs.
        let (limit, look_every) = match self.turns {
            Some(_) => (START_TIMEOUT, Duration::from_millis(100)),
            None => (self.turn_timeout, Duration::from_millis(10)),
        };
        let started = Instant::now();
        self.process.thaw();
        let deadline = started + limit;
        let exit = loop {
            self.run.peak_memory_bytes = self.process.peak_memory_bytes().max(self.run.peak_memory_bytes);
            if progress.is_stop_requested() {
                return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
            }
            match self.process.wait((Instant::now() + look_every).min(deadline)) {
                Some(exit) => break exit,
                None if Instant::now() >= deadline => {
                    let late = self.failed(&format!("did not end within {} s", limit.as_secs()));
                    return Err(match self.turns {
                        Some(_) => late.hint("after its last step a trainer has so long to save and to end"),
                        None => late.hint("`turn_timeout` of `loop.toml` limits a run without turns"),
                    });
                }
                None => {}
            }
        };
        self.run.finish_ms = ms_since(started);
        self.check_exit(exit)
    }

    fn check_exit(&self, exit: ExitStatus) -> Result<(), LoopError> {
        if exit.success() { Ok(()) } else { Err(self.failed(&format!("failed ({exit})"))) }
    }

    fn failed(&self, what: &str) -> LoopError {
        let message = format!("the {} {what}{}", self.arm.name(), self.process.outputs().last_words());
        LoopError::trainer(self.arm, message)
    }

    /// What its processes are known by.
    fn traces(&self) -> (Arm, &Process, &Path) {
        (self.arm, &self.process, self.run.folder.path())
    }

    fn disturbance(&mut self) -> Option<&'static str> {
        let (listener, turns) = self.turns.as_mut()?;
        if turns.has_unasked() {
            Some("spoke without being asked")
        } else if listener.disturbance() {
            Some("connected twice")
        } else {
            None
        }
    }
}

fn in_turns(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    let started = Instant::now();
    let reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let sockets = SocketFolder::create()?;
    let order = request.order();
    let mut trainers = Vec::with_capacity(2);
    for (place, arm) in order.into_iter().enumerate() {
        let mut trainer = RunningTrainer::start(request, arm, place, &sockets, progress)?;
        trainer.process.find_family();
        trainer.process.freeze()?;
        trainers.push(trainer);
    }
    if order[0] == Arm::Candidate {
        trainers.swap(0, 1);
    }
    let mut trainers: [RunningTrainer; 2] =
        trainers.try_into().map_err(|_| LoopError::failed("a pair has two trainers"))?;
    let mut void = None;
    let mut turns_s = 0.0;
    let mut still = [Stillness::default(); 2];
    let mut usage = [CpuUsage::default(), CpuUsage::default()];
    for (number, action) in request.script.0.iter().enumerate() {
        let mut done = [0, 0];
        for arm in request.block_order(number) {
            let waiting_before = trainers[arm.other().index()].process.cpu_ns();
            let trainer = &mut trainers[arm.index()];
            match action {
                Action::Save => trainer.save(progress)?,
                Action::Go { steps, block } => {
                    // The other's turn has left its own data in the caches: the first step of a block brings back
                    // this one's, and is not timed.
                    let refresh = u64::from(block.is_some() && *steps > 1);
                    for (steps, block) in [(refresh, None), (steps - refresh, *block)] {
                        if steps == 0 {
                            continue;
                        }
                        let before = CpuUsage::now(&trainer.process);
                        let (mut ms, steps_done) = trainer.run_steps(steps, progress)?;
                        if let Some((_, share)) = request.slowed.filter(|(slowed, _)| *slowed == arm) {
                            ms += pause(ms * share);
                        }
                        done[arm.index()] = steps_done;
                        turns_s += ms / 1e3;
                        trainer.run.turns.push(TurnTime { block, ms });
                        usage[arm.index()] += before.until(&trainer.process, ms);
                    }
                }
            }
            trainer.process.freeze()?;
            if number + 2 == request.script.0.len() {
                // A quick trainer may be gone before its last turn's end is seen.
                trainer.run.peak_memory_bytes = trainer.process.peak_memory_bytes();
            }
            // A member that is gone takes its time with it.
            let waiting = arm.other().index();
            still[waiting].add_turn(&trainers[waiting].process, waiting_before);
        }
        if done[0] != done[1] {
            let why = format!("said `done {}` where the baseline had said `done {}`", done[1], done[0]);
            return Err(LoopError::refused(format!("the candidate {why}")));
        }
    }
    for arm in Arm::BOTH {
        let trainer = &mut trainers[arm.index()];
        let found = if let Some(breach) = still[arm.index()].breach(turns_s * 1e3) {
            Some(breach)
        } else if trainer.process.find_family() {
            Some("has a process that left its process group".to_owned())
        } else {
            trainer.disturbance().map(str::to_owned)
        };
        void = void.or(found.map(|why| Void { arm, why }));
        trainer.run.foreign_cpu_share = usage[arm.index()].foreign_share();
    }
    for arm in order {
        let trainer = &mut trainers[arm.index()];
        trainer.finish(progress)?;
        if let Some(name) = trainer.process.survivor() {
            let why = format!("left a process behind (`{name}`), which was ended");
            void = void.or(Some(Void { arm, why }));
        }
    }
    void = void.or_else(|| void_by_orphan(&reaper, &trainers.each_ref().map(RunningTrainer::traces)));
    Ok(PairRun {
        arms: trainers.map(|trainer| trainer.run),
        seed: request.seed(),
        baseline_first: order[0] == Arm::Baseline,
        void,
        seconds: started.elapsed().as_secs_f64(),
        turns_s,
    })
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

//! A pair of plain runs: both trainers run as a user starts them, without the turn protocol, and are timed as whole
//! processes from outside.
//!
//! In slices, both are alive at once and one at a time gets the machine, by the loop's clock and not by steps: changing
//! load of other programs affects both alike. An arm's time is the sum of its slices from the start of its process to
//! its end. In whole runs, one after the other, nothing is stopped: noisier, but exactly what a user does.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Arm, LoopError, Progress,
    draws::{Purpose, Randomization},
    pair::{
        Outcome, Void,
        timed_command::{TimedCommand, fill},
        void_by_orphan,
    },
    process::{
        Process, ReapOrphansOnDrop,
        sandbox::{Sandbox, SandboxSpec},
        stillness::Stillness,
    },
};

/// Shortest slice: long compared with a switch (0.1 ms), short compared with changes of load.
const SHORTEST_SLICE_MS: u64 = 20;
/// A random length below this is added to each slice, so that slices match no period of the trainer.
const SLICE_SPREAD_MS: u64 = 20;
/// How often a trainer is checked for its end: a thousandth of the shortest run that is worth timing.
const POLL: Duration = Duration::from_micros(300);

/// How the two arms share the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainMode {
    /// Both at once, in slices of the loop's clock.
    Slices,
    /// One after the other.
    Whole,
}

/// A pair of plain runs.
pub struct PlainRequest<'a> {
    /// The command that both arms run.
    pub command: TimedCommand,
    /// Steps of this run, which are not the workload's.
    pub steps: u64,
    /// Both trainers' files, by [`Arm::index`].
    pub specs: [&'a SandboxSpec; 2],
    /// Seeded when the runs became necessary.
    pub draws: Randomization,
    /// Number of the pair.
    pub number: u64,
    /// The folder in which the trainers' folders are made.
    pub work: &'a Path,
    /// How the arms share the machine.
    pub mode: PlainMode,
}

/// The result, by [`Arm::index`].
#[derive(Debug)]
pub struct PlainRun {
    /// The folders in which they ran: their records stay there until this is dropped.
    pub folders: [Sandbox; 2],
    /// Time from the start of the process to its end, in its own slices.
    pub ms: [f64; 2],
    /// Training seed of both.
    pub seed: u64,
    /// Whether the baseline started first.
    pub baseline_first: bool,
}

impl PlainRun {
    /// `ln(t_baseline / t_candidate)`: positive where the candidate is faster.
    pub fn log_ratio(&self) -> f64 {
        (self.ms[0] / self.ms[1]).ln()
    }
}

/// Runs the pair. It is void if a trainer works while it should wait, or leaves a process behind.
///
/// # Errors
/// [`LoopError::trainer`] where a trainer fails.
pub fn run(request: &PlainRequest<'_>, progress: &dyn Progress) -> Result<Outcome<PlainRun>, LoopError> {
    let reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let order = request.draws.order(Purpose::Pair, request.number, 0);
    let seed = request.draws.below(1 << 31, Purpose::TrainingSeed, request.number, 0);
    let mut trainers = Vec::with_capacity(2);
    for (place, arm) in order.into_iter().enumerate() {
        trainers.push(Trainer::prepare(request, arm, place, seed)?);
    }
    if order[0] == Arm::Candidate {
        trainers.swap(0, 1);
    }
    let mut trainers: [Trainer; 2] = trainers.try_into().map_err(|_| LoopError::failed("a pair has two trainers"))?;
    match request.mode {
        PlainMode::Whole => {
            for arm in order {
                let trainer = &mut trainers[arm.index()];
                trainer.go_on()?;
                while !trainer.has_ended {
                    trainer.watch_for(Duration::from_secs(1), progress)?;
                }
            }
        }
        PlainMode::Slices => in_slices(request, &mut trainers, progress)?,
    }
    let ms = trainers.each_ref().map(|trainer| trainer.time.as_secs_f64() * 1e3);
    let mut void = None;
    for trainer in &mut trainers {
        let arm = trainer.arm;
        void =
            void.or(trainer.disturbance(ms[0] + ms[1]).map(|why| Void { arm, why: format!("{why} in a plain run") }));
    }
    let traces: Vec<_> = trainers.iter().filter_map(Trainer::traces).collect();
    void = void.or_else(|| void_by_orphan(&reaper, &traces));
    if let Some(void) = void {
        return Ok(Outcome::Void(void));
    }
    Ok(Outcome::Measured(PlainRun {
        folders: trainers.map(|trainer| trainer.folder),
        ms,
        seed,
        baseline_first: order[0] == Arm::Baseline,
    }))
}

/// Gives the machine to one trainer at a time until both have ended.
fn in_slices(
    request: &PlainRequest<'_>,
    trainers: &mut [Trainer; 2],
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    for turn in 0.. {
        if trainers.iter().all(|trainer| trainer.has_ended) {
            break;
        }
        let spread = request.draws.below(SLICE_SPREAD_MS, Purpose::Slice, request.number, turn);
        for arm in request.draws.order(Purpose::Block, request.number, turn) {
            if trainers[arm.index()].has_ended {
                continue;
            }
            let waiting_before = trainers[arm.other().index()].cpu_ns();
            let trainer = &mut trainers[arm.index()];
            trainer.go_on()?;
            trainer.watch_for(Duration::from_millis(SHORTEST_SLICE_MS + spread), progress)?;
            trainer.stop()?;
            let waiting = &mut trainers[arm.other().index()];
            if let Some(process) = waiting.process.as_ref().filter(|_| !waiting.has_ended) {
                waiting.still.add_turn(process, waiting_before);
            }
        }
    }
    Ok(())
}

struct Trainer {
    // Declared before the folder, so that no process writes into the folder while it is removed.
    process: Option<Process>,
    folder: Sandbox,
    launch: crate::process::isolation::Launch,
    arm: Arm,
    turn_timeout: Duration,
    /// Time in its slices so far.
    time: Duration,
    /// When the present slice began.
    since: Instant,
    /// What it used during the other's slices.
    still: Stillness,
    has_ended: bool,
}

impl Trainer {
    fn prepare(request: &PlainRequest<'_>, arm: Arm, place: usize, seed: u64) -> Result<Trainer, LoopError> {
        let spec = request.specs[arm.index()];
        let folder = Sandbox::create(&request.work.join(["a", "b"][place]), spec)?;
        let (steps, seed) = (request.steps.to_string(), seed.to_string());
        let words = fill(&request.command.line, &[("steps", &steps), ("seed", &seed)])?;
        let launch = folder.training(&words, spec, request.steps)?;
        Ok(Trainer {
            process: None,
            folder,
            launch,
            arm,
            turn_timeout: request.command.turn_timeout,
            time: Duration::ZERO,
            since: Instant::now(),
            still: Stillness::default(),
            has_ended: false,
        })
    }

    /// What identifies its processes.
    fn traces(&self) -> Option<(Arm, &Process, &Path)> {
        self.process.as_ref().map(|process| (self.arm, process, self.folder.path()))
    }

    /// Its processes, until they end.
    fn running(&self) -> Option<&Process> {
        self.process.as_ref().filter(|_| !self.has_ended)
    }

    /// Processor time of its family so far.
    fn cpu_ns(&self) -> u64 {
        self.running().map_or(0, Process::cpu_ns)
    }

    /// What it did that makes its time meaningless.
    fn disturbance(&mut self, slices_ms: f64) -> Option<String> {
        if let Some(breach) = self.still.breach(slices_ms) {
            return Some(breach);
        }
        let name = self.process.as_mut()?.survivor()?;
        Some(format!("left a process behind (`{name}`), which was ended,"))
    }

    /// Lets it run, from its start or from where it was stopped.
    fn go_on(&mut self) -> Result<(), LoopError> {
        self.since = Instant::now();
        match &mut self.process {
            Some(process) => process.thaw(),
            none => {
                *none = Some(Process::spawn(&self.launch, self.folder.isolation(), self.folder.outputs())?);
            }
        }
        Ok(())
    }

    /// Waits for `length`, or until the trainer ends.
    fn watch_for(&mut self, length: Duration, progress: &dyn Progress) -> Result<(), LoopError> {
        let began = Instant::now();
        loop {
            if let Some(exit) = self.process.as_mut().and_then(Process::try_exit) {
                self.time += self.since.elapsed();
                self.has_ended = true;
                return if exit.success() { Ok(()) } else { Err(self.failed(&format!("failed ({exit})"))) };
            }
            let elapsed = began.elapsed();
            if elapsed >= length {
                break;
            }
            std::thread::sleep(POLL.min(length.saturating_sub(elapsed)));
        }
        if progress.is_stop_requested() {
            return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
        }
        let limit = self.turn_timeout;
        if self.time + self.since.elapsed() > limit {
            let late = self.failed(&format!("did not end within {} s", limit.as_secs()));
            return Err(late.hint("`turn_timeout` of `loop.toml` limits a run without turns"));
        }
        Ok(())
    }

    /// Stops it, if it still runs. Its time runs until the last of its threads stands still.
    fn stop(&mut self) -> Result<(), LoopError> {
        if let Some(process) = self.process.as_mut().filter(|_| !self.has_ended) {
            process.freeze()?;
            self.time += self.since.elapsed();
        }
        Ok(())
    }

    fn failed(&self, what: &str) -> LoopError {
        let words = self.process.as_ref().map(|process| process.outputs().last_words()).unwrap_or_default();
        LoopError::trainer(
            self.arm,
            format!("the {} {what} in a plain run, without the turn protocol{words}", self.arm.name()),
        )
    }
}

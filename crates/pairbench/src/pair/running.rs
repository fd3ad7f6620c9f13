//! One trainer of a pair, from its start to its end.

use std::{
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

use super::{ArmRun, PairRequest, ms_since};
use crate::{
    Arm, LoopError, Progress,
    pair::{
        lines::LineTurns,
        timed_command::{Sharing, TimedCommand, fill},
        turns::{Listener, SocketFolder, Turns, VARIABLE, Waiting},
    },
    process::{Outputs, Process, isolation::Launch, sandbox::Sandbox},
};

/// Longest start of a trainer, and longest end after its last step; longer where a turn may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How a trainer is told when it can run, and tells what it has done.
enum Channel {
    /// By the turn protocol.
    Protocol(Listener, Turns),
    /// By its step lines.
    Lines(Box<LineTurns>),
    /// Not at all: it runs from its start to its end. Its step lines, if they are known, say when it did what.
    Whole(Option<Box<LineTurns>>),
}

/// A trainer that is ready for its turns, or one that runs without turns.
pub(super) struct RunningTrainer {
    pub(super) process: Process,
    channel: Channel,
    pub(super) run: ArmRun,
    arm: Arm,
    turn_timeout: Duration,
}

impl RunningTrainer {
    pub(super) fn start(
        request: &PairRequest<'_>,
        arm: Arm,
        place: usize,
        sockets: &SocketFolder,
        progress: &dyn Progress,
    ) -> Result<RunningTrainer, LoopError> {
        let spec = request.specs[arm.index()];
        // Names of equal length that do not tell the arms apart.
        let name = ["a", "b"][place];
        let folder = Sandbox::create(&request.work.join(name), spec)?;
        let (steps, seed) = (request.command.steps.to_string(), request.seed().to_string());
        let words = fill(&request.command.line, &[("steps", &steps), ("seed", &seed)])?;
        let launch = folder.training(&words, spec, request.command.steps)?;
        let started = Instant::now();
        let start = Start { launch, folder: &folder, command: &request.command, arm };
        let (process, channel) = match request.command.sharing {
            Sharing::Whole => start.whole()?,
            Sharing::Lines => start.lines(progress)?,
            Sharing::Turns | Sharing::Sequential => start.protocol(sockets.listen(name)?, progress)?,
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
            gpus: Vec::new(),
        };
        Ok(RunningTrainer { process, channel, run, arm, turn_timeout: request.command.turn_timeout })
    }

    /// Whether it takes turns.
    pub(super) fn takes_turns(&self) -> bool {
        !matches!(self.channel, Channel::Whole(_))
    }

    /// One turn, timed from outside: returns its milliseconds, and the steps that are done.
    pub(super) fn run_steps(&mut self, steps: u64, progress: &dyn Progress) -> Result<(f64, u64), LoopError> {
        let RunningTrainer { process, channel, arm, turn_timeout, .. } = self;
        let started = Instant::now();
        let waiting = &mut Waiting::new(process, progress, *turn_timeout, *arm);
        match channel {
            Channel::Protocol(_, turns) => {
                waiting.process.thaw();
                let done = turns.run_steps(steps, waiting)?;
                Ok((ms_since(started), done))
            }
            Channel::Lines(lines) => {
                let (ran, done) = lines.run_steps(steps, waiting)?;
                Ok((ran.as_secs_f64() * 1e3, done))
            }
            Channel::Whole(_) => Ok((0.0, 0)),
        }
    }

    /// Whether it waits after its steps of its own accord.
    pub(super) fn waits(&self) -> bool {
        matches!(self.channel, Channel::Protocol(..))
    }

    /// Keeps it from going on after its turn, if it does not wait by itself.
    pub(super) fn hold(&mut self) -> Result<(), LoopError> {
        if self.waits() { Ok(()) } else { self.stop() }
    }

    /// Stops it after its turn.
    pub(super) fn stop(&mut self) -> Result<(), LoopError> {
        self.process.freeze()?;
        match &mut self.channel {
            Channel::Lines(lines) => lines.has_stopped().map_err(|fault| self.failed(&fault.to_string())),
            Channel::Protocol(..) | Channel::Whole(_) => Ok(()),
        }
    }

    pub(super) fn save(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        let RunningTrainer { process, channel: Channel::Protocol(_, turns), arm, turn_timeout, .. } = self else {
            return Ok(());
        };
        let started = Instant::now();
        process.thaw();
        turns.save(&mut Waiting::new(process, progress, *turn_timeout, *arm))?;
        // Work that the trainer deferred until now is part of the run.
        self.run.saves_ms += ms_since(started);
        Ok(())
    }

    /// Lets the trainer end by itself.
    pub(super) fn finish(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        // Without turns this is the whole run, so memory has to be sampled often.
        let (limit, look_every) = if self.takes_turns() {
            (START_TIMEOUT.max(self.turn_timeout), Duration::from_millis(100))
        } else {
            (self.turn_timeout, Duration::from_millis(10))
        };
        let started = Instant::now();
        if let Channel::Lines(lines) = &mut self.channel {
            lines.goes_on();
        }
        self.process.thaw();
        let deadline = started + limit;
        let exit = loop {
            self.run.peak_memory_bytes = self.process.peak_memory_bytes().max(self.run.peak_memory_bytes);
            if progress.is_stop_requested() {
                return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
            }
            let until = (Instant::now() + look_every).min(deadline);
            let ended = match &mut self.channel {
                Channel::Lines(lines) | Channel::Whole(Some(lines)) => lines.wait_for_end(&mut self.process, until),
                Channel::Protocol(..) | Channel::Whole(None) => self.process.wait(until),
            };
            match ended {
                Some(exit) => break exit,
                None if Instant::now() >= deadline => {
                    let late = self.failed(&format!("did not end within {} s", limit.as_secs()));
                    return Err(if self.takes_turns() {
                        late.hint("after its last step a trainer has so long to save and to end")
                    } else {
                        late.hint("`turn_timeout` of `loop.toml` limits a run without turns")
                    });
                }
                None => {}
            }
        };
        self.run.finish_ms = ms_since(started);
        self.check_exit(exit)
    }

    /// After a run without turns: the milliseconds of each of `steps` steps, where its lines tell them.
    pub(super) fn steps_ms(&self, steps: u64) -> Result<Option<Vec<f64>>, LoopError> {
        let Channel::Whole(Some(lines)) = &self.channel else { return Ok(None) };
        let steps_ms = lines.steps_ms().map_err(|fault| self.failed(fault))?;
        if (steps_ms.len() as u64) < steps {
            return Err(
                self.failed(&format!("printed {} step lines, and was told to make {steps} steps", steps_ms.len()))
            );
        }
        Ok(Some(steps_ms))
    }

    fn check_exit(&self, exit: ExitStatus) -> Result<(), LoopError> {
        if exit.success() { Ok(()) } else { Err(self.failed(&format!("failed ({exit})"))) }
    }

    fn failed(&self, what: &str) -> LoopError {
        let message = format!("the {} {what}{}", self.arm.name(), self.process.outputs().last_words());
        LoopError::trainer(self.arm, message)
    }

    /// What identifies its processes.
    pub(super) fn traces(&self) -> (Arm, &Process, &Path) {
        (self.arm, &self.process, self.run.folder.path())
    }

    pub(super) fn disturbance(&mut self) -> Option<&'static str> {
        let Channel::Protocol(listener, turns) = &mut self.channel else { return None };
        if turns.has_unasked() {
            Some("spoke without being asked")
        } else if listener.is_disturbed() {
            Some("connected twice")
        } else {
            None
        }
    }
}

/// A trainer that is being started.
struct Start<'a> {
    launch: Launch,
    folder: &'a Sandbox,
    command: &'a TimedCommand,
    arm: Arm,
}

impl Start<'_> {
    /// Starts it, on a terminal if its step lines are known.
    fn whole(&self) -> Result<(Process, Channel), LoopError> {
        if self.command.step_lines.is_none() {
            return Ok((self.spawn()?, Channel::Whole(None)));
        }
        let (process, lines) = self.on_terminal()?;
        Ok((process, Channel::Whole(Some(Box::new(lines)))))
    }

    fn spawn(&self) -> Result<Process, LoopError> {
        Process::spawn(&self.launch, self.folder.isolation(), self.folder.outputs())
    }

    fn on_terminal(&self) -> Result<(Process, LineTurns), LoopError> {
        let Some(step_lines) = &self.command.step_lines else {
            return Err(LoopError::usage("`sharing = \"lines\"` needs the form of the step lines"));
        };
        let outputs = Outputs::within(self.folder.outputs());
        let (lines, output) = LineTurns::open(step_lines, &outputs.stdout)?;
        Ok((Process::spawn_with(&self.launch, self.folder.isolation(), outputs, output)?, lines))
    }

    /// Starts it and waits for its `hello`.
    fn protocol(mut self, listener: Listener, progress: &dyn Progress) -> Result<(Process, Channel), LoopError> {
        let path = listener.show_to(&mut self.launch, self.folder.isolation());
        self.launch.environment.push((VARIABLE.into(), path.into_os_string()));
        let mut process = self.spawn()?;
        let turns = listener.accept(&mut self.waiting(&mut process, progress))?;
        Ok((process, Channel::Protocol(listener, turns)))
    }

    /// Starts it on a terminal and waits for its first step line.
    fn lines(self, progress: &dyn Progress) -> Result<(Process, Channel), LoopError> {
        let (mut process, mut lines) = self.on_terminal()?;
        lines.wait_for_first(&mut self.waiting(&mut process, progress))?;
        Ok((process, Channel::Lines(Box::new(lines))))
    }

    fn waiting<'a>(&self, process: &'a mut Process, progress: &'a dyn Progress) -> Waiting<'a> {
        Waiting::new(process, progress, START_TIMEOUT.max(self.command.turn_timeout), self.arm)
    }
}

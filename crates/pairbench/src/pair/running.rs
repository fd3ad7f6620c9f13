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
        timed_command::{Sharing, fill},
        turns::{Listener, SocketFolder, Turns, VARIABLE, Waiting},
    },
    process::{Process, sandbox::Sandbox},
};

/// Longest start of a trainer, and longest end after its last step.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// A trainer that has said hello, or one that runs without turns.
pub(super) struct RunningTrainer {
    pub(super) process: Process,
    pub(super) turns: Option<(Listener, Turns)>,
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
        let mut launch = folder.training(&words, spec, request.command.steps)?;
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
    pub(super) fn run_steps(&mut self, steps: u64, progress: &dyn Progress) -> Result<(f64, u64), LoopError> {
        let RunningTrainer { process, turns: Some((_, turns)), arm, turn_timeout, .. } = self else {
            return Ok((0.0, 0));
        };
        let started = Instant::now();
        process.thaw();
        let deadline = started + *turn_timeout;
        let done = turns.run_steps(steps, &mut Waiting { process, progress, deadline, arm: *arm })?;
        Ok((ms_since(started), done))
    }

    pub(super) fn save(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        let RunningTrainer { process, turns: Some((_, turns)), arm, turn_timeout, .. } = self else { return Ok(()) };
        let started = Instant::now();
        process.thaw();
        turns.save(&mut Waiting { process, progress, deadline: started + *turn_timeout, arm: *arm })?;
        // Work that the trainer deferred until now is part of the run.
        self.run.saves_ms += ms_since(started);
        Ok(())
    }

    /// Lets the trainer end by itself.
    pub(super) fn finish(&mut self, progress: &dyn Progress) -> Result<(), LoopError> {
        // Without turns this is the whole run, so memory has to be sampled often.
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

    /// What identifies its processes.
    pub(super) fn traces(&self) -> (Arm, &Process, &Path) {
        (self.arm, &self.process, self.run.folder.path())
    }

    pub(super) fn disturbance(&mut self) -> Option<&'static str> {
        let (listener, turns) = self.turns.as_mut()?;
        if turns.has_unasked() {
            Some("spoke without being asked")
        } else if listener.is_disturbed() {
            Some("connected twice")
        } else {
            None
        }
    }
}

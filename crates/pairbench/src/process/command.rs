//! Runs a program once to its end, in the clean folder of an arm.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use crate::{
    LoopError, Progress,
    process::{Process, ReapOrphansOnDrop, isolation::Launch, sandbox::Sandbox},
};

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// None if it was killed after its time limit.
    pub exit: Option<ExitStatus>,
    /// Wall time of the process.
    pub seconds: f64,
    /// Its stdout.
    pub stdout: String,
    /// The end of its output, for messages.
    pub last_words: String,
}

/// Runs a command of `folder`, for at most `limit`. Children that outlive the program are ended.
pub fn run(folder: &Sandbox, launch: &Launch, limit: Duration, progress: &dyn Progress) -> Result<Ended, LoopError> {
    let _reaper = ReapOrphansOnDrop::new(folder.isolation())?;
    let started = Instant::now();
    let mut process = Process::spawn(launch, folder.isolation(), folder.outputs())?;
    let deadline = started + limit;
    let exit = loop {
        let step = (Instant::now() + Duration::from_millis(100)).min(deadline);
        match process.wait(step) {
            Some(exit) => break Some(exit),
            None if progress.is_stop_requested() => {
                return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
            }
            None if Instant::now() >= deadline => break None,
            None => {}
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    process.kill();
    let outputs = process.outputs();
    Ok(Ended { exit, seconds, stdout: outputs.stdout(), last_words: outputs.last_words() })
}

impl Ended {
    /// Returns itself if the program succeeded, else an error that says whose `what` failed.
    pub fn success(self, whose: &str, what: &str) -> Result<Ended, LoopError> {
        match self.exit {
            Some(exit) if exit.success() => Ok(self),
            Some(exit) => Err(LoopError::failed(format!("the {whose}'s `{what}` failed ({exit}){}", self.last_words))),
            None => Err(LoopError::failed(format!("the {whose}'s `{what}` did not end in time{}", self.last_words))
                .hint("`turn_timeout` of `loop.toml` is the limit")),
        }
    }
}

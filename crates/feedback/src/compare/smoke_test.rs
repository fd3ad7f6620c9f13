//! Runs the 5-step test: baseline and candidate alternately, three times each, more where runs disagree.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use pairbench::{
    Arm,
    pair::timed_command,
    process::{
        command::{self, Ended},
        sandbox::{Sandbox, SandboxSpec},
    },
};

use crate::{
    ErrorKind, LoopError, Progress,
    compare::{
        built_arms::BuiltArms,
        smoke::{self, Ending, SmokeRow, SmokeRun, SmokeVerdict},
    },
    config::SmokeConfig,
    parity::trajectory::{DEFAULT_COUNTERS, Trajectory},
    store::session::Session,
};

/// Runs of each arm.
const RUNS: usize = 3;
/// Most runs of each arm, where they disagree.
const MAX_RUNS: usize = 7;
/// Longest run.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// No further run begins after this time.
const TIME: Duration = Duration::from_secs(10);

/// Runs the test on both arms.
pub fn run(session: &Session, built_arms: &BuiltArms, progress: &dyn Progress) -> Result<SmokeVerdict, LoopError> {
    let Some(smoke) = &session.config.smoke else {
        return Err(
            LoopError::usage("`loop.toml` has no `[smoke]`").hint("name the command of a run of a few steps there")
        );
    };
    let started = Instant::now();
    let mut runs: [Vec<SmokeRun>; 2] = [Vec::new(), Vec::new()];
    loop {
        for arm in Arm::BOTH {
            runs[arm.index()].push(run_once(session, smoke, &built_arms.specs[arm.index()], progress)?);
        }
        if runs[0].len() < RUNS {
            continue;
        }
        let verdict = smoke::judge(smoke.steps, Some(&runs[0]), &runs[1]);
        let may_go_on = runs[0].len() < MAX_RUNS && started.elapsed() < TIME;
        match &verdict.unsettled {
            Some(why) if may_go_on => progress.note(&format!("smoke: one more run of each: {why}")),
            _ => return Ok(verdict),
        }
    }
}

fn run_once(
    session: &Session,
    smoke: &SmokeConfig,
    spec: &SandboxSpec,
    progress: &dyn Progress,
) -> Result<SmokeRun, LoopError> {
    let spec = SandboxSpec { inputs: smoke.inputs.clone(), ..spec.clone() };
    let folder = Sandbox::create(&session.work()?.join("s"), &spec)?;
    let words = timed_command::fill(&smoke.command, &[("steps", &smoke.steps.to_string()), ("seed", "42")])?;
    let ended = match command::run(&folder, &folder.command(&words, &spec)?, RUN_TIMEOUT, progress) {
        Ok(ended) => ended,
        Err(error) if matches!(error.kind, ErrorKind::Failed | ErrorKind::Trainer(_)) => {
            let ending = Ending::NotStarted(error.to_string());
            return Ok(SmokeRun { ending, stderr_tail: String::new(), rows: Vec::new() });
        }
        Err(error) => return Err(error),
    };
    let rows = match Trajectory::read(&folder.written(&smoke.metrics)?, &DEFAULT_COUNTERS) {
        Ok(trajectory) => rows(&trajectory),
        // A run that crashed has no whole record; one that ended well and has none is told by its missing steps.
        Err(_) => Vec::new(),
    };
    Ok(SmokeRun { ending: ending(&ended), stderr_tail: ended.last_words.trim_start_matches("; ").to_owned(), rows })
}

fn ending(ended: &Ended) -> Ending {
    match ended.exit {
        None => Ending::TimedOut(RUN_TIMEOUT.as_secs()),
        Some(exit) => match (exit.code(), exit.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Exited(-1),
        },
    }
}

fn rows(trajectory: &Trajectory) -> Vec<SmokeRow> {
    let finite = |value: f64| value.is_finite().then_some(value);
    let row = |(index, row): (usize, &crate::parity::trajectory::StepRecord)| SmokeRow {
        step: index as u64 + 1,
        loss: finite(row.loss),
        grad_norm: finite(row.grad_norm),
        phases_ms: row.timing_ms.clone(),
    };
    trajectory.rows.iter().enumerate().map(row).collect()
}

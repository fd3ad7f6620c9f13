//! `alpha loop run`: smoke, compare, confirm, commit, and the next bottlenecks, in one go.

use std::time::{Duration, Instant};

use pairbench::verdict::Verdict;
use serde::Serialize;

use crate::{
    ErrorKind, LoopError, Progress,
    compare::{
        self, CompareOptions,
        built_arms::{self, BuiltArms},
        report::CompareReport,
        smoke::SmokeVerdict,
        smoke_test, trace_runs,
    },
    land::commit::{self, CommitOptions, Landed},
    records::claim,
    store::session::Session,
    trace::ranking,
};

/// Version of [`CycleRun`].
pub const SCHEMA: &str = "alpha.loop.run/1";

/// The outcome of a whole cycle.
#[derive(Debug, Serialize)]
pub struct CycleRun {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The 5-step test, if the configuration has one.
    pub smoke: Option<SmokeVerdict>,
    /// The comparison, if it was reached.
    pub compare: Option<CompareReport>,
    /// The commit, if it was made.
    pub landed: Option<Landed>,
    /// Why there is no commit.
    pub refusal: Option<String>,
    /// The bottlenecks of the accepted trainer.
    pub next: Option<ranking::Report>,
    /// Where the time went.
    pub seconds: RunSeconds,
    /// Exit code of the command.
    pub exit_code: u8,
}

/// Where the time of a cycle went.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RunSeconds {
    /// Builds of both arms that were not cached.
    pub build: f64,
    /// The 5-step test.
    pub smoke: f64,
    /// Comparison with parity and guards.
    pub compare: f64,
    /// Attribution, confirmation and the commit.
    pub commit: f64,
    /// Ranking.
    pub next: f64,
    /// From the start of the command to its end.
    pub total: f64,
}

impl RunSeconds {
    /// The parts with their names.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("build", self.build),
            ("smoke", self.smoke),
            ("compare", self.compare),
            ("commit", self.commit),
            ("next", self.next),
        ]
    }
}

/// Runs the cycle until it ends or a gate refuses.
pub fn run(
    session: &mut Session,
    options: &CommitOptions,
    budget: Option<Duration>,
    progress: &dyn Progress,
) -> Result<CycleRun, LoopError> {
    claim::check_summary(&options.summary)?;
    let began = Instant::now();
    let mut done = CycleRun {
        schema: SCHEMA,
        smoke: None,
        compare: None,
        landed: None,
        refusal: None,
        next: None,
        seconds: RunSeconds::default(),
        exit_code: 0,
    };
    let compare_options = CompareOptions { budget, ..CompareOptions::default() };
    let built_arms = built_arms::of_working_tree(session, &compare_options, progress)?;
    done.seconds.build = began.elapsed().as_secs_f64();
    let ended = match smoke(session, &built_arms, &mut done, progress) {
        Ok(true) => stages(session, options, &compare_options, &mut done, progress),
        other => other.map(drop),
    };
    done.seconds.total = began.elapsed().as_secs_f64();
    match ended {
        Ok(()) => Ok(done),
        // A refusal by a gate is an answer; the report names it and keeps earlier measurements.
        Err(error) if error.kind == ErrorKind::Refused => {
            done.refusal = Some(error.to_string());
            done.exit_code = 4;
            Ok(done)
        }
        Err(error) => Err(error),
    }
}

/// Runs the 5-step test, if there is one; returns whether the cycle continues.
fn smoke(
    session: &Session,
    built_arms: &BuiltArms,
    done: &mut CycleRun,
    progress: &dyn Progress,
) -> Result<bool, LoopError> {
    if session.config.smoke.is_none() {
        return Ok(true);
    }
    let started = Instant::now();
    let smoke = smoke_test::run(session, built_arms, progress)?;
    done.seconds.smoke = started.elapsed().as_secs_f64();
    let (passed, failed) = (smoke.passed, smoke.problems.iter().any(|problem| problem.kind.is_failure()));
    done.smoke = Some(smoke);
    if !passed {
        done.refusal = Some("the smoke test is not passed".to_owned());
        done.exit_code = if failed { 1 } else { 4 };
    }
    Ok(passed)
}

/// Compares, commits and ranks.
fn stages(
    session: &mut Session,
    options: &CommitOptions,
    compare_options: &CompareOptions,
    done: &mut CycleRun,
    progress: &dyn Progress,
) -> Result<(), LoopError> {
    let started = Instant::now();
    let attempt = compare::compare(session, compare_options, progress)?;
    done.seconds.compare = started.elapsed().as_secs_f64();
    let verdict = attempt.verdict.unwrap_or(Verdict::Undecided);
    done.compare = Some(CompareReport::of(session, &attempt));
    let may_land = verdict.exit_code() == 0 || options.no_claim;
    if !may_land {
        done.refusal = Some(attempt.reason);
        done.exit_code = verdict.exit_code();
        return Ok(());
    }
    let started = Instant::now();
    let landed = commit::commit(session, options, progress);
    done.seconds.commit = started.elapsed().as_secs_f64();
    done.landed = Some(landed?);
    if session.config.trace.is_some() {
        let started = Instant::now();
        // The commit is made; `alpha loop next` can rank again.
        match trace_runs::rank_baseline(session, progress) {
            Ok(report) => done.next = Some(report),
            Err(error) => progress.note(&format!("no ranking, which `alpha loop next` makes again: {error}")),
        }
        done.seconds.next = started.elapsed().as_secs_f64();
    }
    Ok(())
}

//! `alpha loop`: one file for each command. The crate `feedback` does the work; the commands call it and print reports.

mod console;
mod cycle;
mod review;
mod setup;

use clap::{Args, Subcommand};
use feedback::{
    ErrorKind, LoopError, Progress,
    compare::{CompareOptions, built_arms},
    store::session::Session,
    visible,
};
use serde::Serialize;

use crate::{
    exit::{Exit, Failure},
    output,
    signal::StopRequest,
};

use self::{
    console::Console,
    cycle::{commit, compare, drop, next, run, smoke, start, status},
    review::{audit, bisect, history, import, record_benchmark, verify},
    setup::{doctor, hook, init, selftest},
};

/// The loop's flags.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    action: Action,

    /// Print one JSON object instead of text; its `schema` says which (docs/loop-json.md)
    #[arg(long, global = true)]
    json: bool,

    /// Target to make faster: a name of `[targets]` in `loop.toml` [default: the open cycle's, else its own workload]
    #[arg(long, global = true, value_name = "NAME")]
    target: Option<String>,
}

/// The loop's commands.
#[derive(Subcommand, Debug)]
enum Action {
    /// Write a `loop.toml` for this repository
    Init(init::Flags),
    /// Say what disturbs measurements on this machine, and what to do about it
    Doctor(doctor::Flags),
    /// Prove the instrument: it finds no difference where there is none, and finds one that is there
    Selftest(selftest::Flags),
    /// Rank the bottlenecks: what a change there could gain, and what is not worth trying
    Next(next::Flags),
    /// Open a cycle: the hypothesis to show, and the part of the trainer
    Start(start::Flags),
    /// Run the 5-step test on baseline and candidate
    Smoke(smoke::Flags),
    /// Build both, run them in turns, and say which is faster
    Compare(compare::Flags),
    /// Confirm the gain on fresh pairs and commit exactly the tree that was compared
    Commit(commit::Flags),
    /// Smoke, compare, confirm, commit and rank again, in one go
    Run(run::Flags),
    /// Show the open cycle and what to type next
    Status(status::Flags),
    /// End the cycle and keep its record
    Drop(drop::Flags),
    /// Show the accepted gains and the benchmark's series
    History(history::Flags),
    /// Compare the claims with a direct measurement
    Audit(audit::Flags),
    /// Recompute a claim from its record, or measure it again
    Verify(verify::Flags),
    /// Find the commit that lost speed
    Bisect(bisect::Flags),
    /// Say what a benchmark history is worth, whatever tool wrote it
    Import(import::Flags),
    /// Write a row of the benchmark's history, given on stdin under its header, to the ledger
    RecordBenchmark(record_benchmark::Flags),
    /// Refuse commits that claim a gain without evidence
    #[command(subcommand, arg_required_else_help = true)]
    Hook(hook::Action),
}

/// Context of a command.
struct Context {
    console: Console,
    json: bool,
    target: Option<String>,
}

/// Runs the command. With `--json`, an error is an object on stdout too.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let stop = StopRequest::install()?;
    stop.hold(); // an attempt that has begun must be closed
    let context = Context { console: Console::new(stop), json: flags.json, target: flags.target.clone() };
    let done = match &flags.action {
        Action::Init(flags) => init::run(flags, &context),
        Action::Doctor(flags) => doctor::run(flags, &context),
        Action::Selftest(flags) => selftest::run(flags, &context),
        Action::Next(flags) => next::run(flags, &context),
        Action::Start(flags) => start::run(flags, &context),
        Action::Smoke(flags) => smoke::run(flags, &context),
        Action::Compare(flags) => compare::run(flags, &context),
        Action::Commit(flags) => commit::run(flags, &context),
        Action::Run(flags) => run::run(flags, &context),
        Action::Status(flags) => status::run(flags, &context),
        Action::Drop(flags) => drop::run(flags, &context),
        Action::History(flags) => history::run(flags, &context),
        Action::Audit(flags) => audit::run(flags, &context),
        Action::Verify(flags) => verify::run(flags, &context),
        Action::Bisect(flags) => bisect::run(flags, &context),
        Action::Import(flags) => import::run(flags, &context),
        Action::RecordBenchmark(flags) => record_benchmark::run(flags, &context),
        Action::Hook(action) => hook::run(action, &context),
    };
    context.console.finish();
    match done {
        Ok(Done { exit: None }) => Ok(()),
        Ok(Done { exit: Some(exit) }) => Err(Failure::silent(exit)),
        Err(error) => Err(context.failure(&error)),
    }
}

/// A command that has ended, with the exit code of its answer; none means 0.
struct Done {
    exit: Option<Exit>,
}

impl Done {
    const WELL: Done = Done { exit: None };

    fn with(code: u8) -> Done {
        Done {
            exit: match code {
                0 => None,
                4 => Some(Exit::Refused),
                5 => Some(Exit::Undecided),
                _ => Some(Exit::Failed),
            },
        }
    }
}

/// A report without a `schema` of its own.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

/// An error with `--json`.
#[derive(Serialize)]
struct ErrorReport<'a> {
    schema: &'static str,
    error: &'a str,
    hint: Option<&'a str>,
    exit_code: u8,
}

impl Context {
    /// Opens the repository of the current folder.
    fn session(&self) -> Result<Session, LoopError> {
        self.session_against(None)
    }

    /// The same, with a baseline that the user names.
    fn session_against(&self, baseline: Option<&str>) -> Result<Session, LoopError> {
        let session = Session::open(std::path::Path::new("."), self.target.as_deref(), baseline)?;
        if let Some(note) = session.config_note() {
            self.console.note(&note);
        }
        Ok(session)
    }

    /// Prints the report: as an object with `--json`, else as text without control characters.
    fn show<T: Serialize>(&self, report: &T, text: impl FnOnce(&T) -> String) -> Result<(), LoopError> {
        self.console.finish();
        let shown = if self.json { to_json(report)? } else { visible::lines(&text(report)) };
        output::print(&shown).map_err(|error| LoopError::failed(format!("cannot print: {error}")))
    }

    fn failure(&self, error: &LoopError) -> Failure {
        let (message, hint) = (error.message.as_str(), error.hint.as_deref());
        let exit = match error.kind {
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::Failed | ErrorKind::Trainer(_) => Exit::Failed,
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Undecided => Exit::Undecided,
            ErrorKind::Interrupted => return self.console.interrupted(&visible::lines(message)),
        };
        if self.json {
            let report = ErrorReport { schema: "alpha.loop.error/1", error: message, hint, exit_code: exit as u8 };
            if let Ok(json) = to_json(&report) {
                // If stdout cannot be written to, stderr still has the error.
                let _ = output::print(&json);
            }
        }
        let failure = Failure::new(exit, visible::lines(message));
        match hint {
            Some(hint) => failure.hint(visible::lines(hint)),
            None => failure,
        }
    }
}

fn to_json<T: Serialize>(report: &T) -> Result<String, LoopError> {
    match serde_json::to_string(report) {
        Ok(json) => Ok(visible::json(&json) + "\n"),
        Err(error) => Err(LoopError::failed(format!("the report cannot be written as JSON: {error}"))),
    }
}

/// `0.5%` or `0.5`, for clap.
fn percentage(text: &str) -> Result<f64, LoopError> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(number) if (0.01..=50.0).contains(&number) => Ok(number),
        Ok(_) => Err(LoopError::usage(format!("`{text}`: 0.01 % to 50 % can be asked for"))),
        Err(_) => Err(LoopError::usage(format!("`{text}` is not a percentage"))),
    }
}

/// Set for the baseline's program, which judges in place of this process.
const JUDGING: &str = "ALPHA_LOOP_JUDGING";

/// Where the trainer is the loop's own program, the baseline's program judges: unless this process is that program, it
/// becomes it.
fn judge_with_baseline(session: &Session, options: &CompareOptions, console: &Console) -> Result<(), LoopError> {
    use std::os::unix::process::CommandExt;
    let Some(judge) = built_arms::judge(session, options, console)? else { return Ok(()) };
    if std::env::var_os(JUDGING).is_some() {
        return Ok(());
    }
    console.note("the baseline's program judges");
    console.finish();
    // `exec` only returns if it fails. The baseline's program takes the lock itself.
    let error = std::process::Command::new(&judge).args(std::env::args_os().skip(1)).env(JUDGING, "1").exec();
    Err(LoopError::failed(format!("cannot start the baseline's `{}`: {error}", judge.display())))
}

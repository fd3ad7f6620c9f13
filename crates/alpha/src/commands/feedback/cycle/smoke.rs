//! `alpha loop smoke`.

use clap::Args;
use feedback::{
    LoopError,
    compare::{CompareOptions, built_arms, smoke::SmokeVerdict, smoke_test},
};

use super::{Context, Done, Versioned};

/// The baseline of the test.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Against this commit; the open cycle's baseline unless named, or HEAD
    #[arg(long, value_name = "REV")]
    baseline: Option<String>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session_against(flags.baseline.as_deref())?;
    let _lock = session.state.lock()?;
    let options = CompareOptions { baseline: flags.baseline.clone(), ..CompareOptions::default() };
    let built_arms = built_arms::of_working_tree(&session, &options, &context.console)?;
    let verdict = smoke_test::run(&session, &built_arms, &context.console)?;
    let report = Versioned { schema: "alpha.loop.smoke/1", report: &verdict };
    context.show(&report, |versioned| text(versioned.report))?;
    Ok(Done::with(exit_code(&verdict)))
}

/// 1 if a trainer failed, 4 if the test refused.
pub(super) fn exit_code(verdict: &SmokeVerdict) -> u8 {
    match (verdict.passed, verdict.problems.iter().any(|problem| problem.kind.is_failure())) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 4,
    }
}

/// Phases, notes and problems.
pub(crate) fn text(verdict: &SmokeVerdict) -> String {
    let mut text = String::new();
    for phase in &verdict.phases {
        text.push_str(&format!("  {phase}\n"));
    }
    for note in &verdict.notes {
        text.push_str(&format!("  {note}\n"));
    }
    for problem in &verdict.problems {
        text.push_str(&format!("  {problem}\n"));
    }
    text.push_str(if verdict.passed { "smoke: passed\n" } else { "smoke: FAILED\n" });
    text
}

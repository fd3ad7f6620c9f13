//! `alpha loop status`.

use clap::Args;
use feedback::{
    LoopError,
    land::cycle::{self, Status},
    visible::{self, short},
};

use super::{Context, Done};

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    context.show(&cycle::status(&session)?, text)?;
    Ok(Done::WELL)
}

/// The open cycle and what to type next.
pub(crate) fn text(status: &Status) -> String {
    let mut text = String::new();
    match &status.cycle {
        None => text.push_str("no cycle is open\n"),
        Some(cycle) => {
            text.push_str(&format!("cycle      {}\n", visible::line(&cycle.hypothesis)));
            text.push_str(&format!("area       {}\n", cycle.area.as_deref().unwrap_or("not declared")));
            text.push_str(&format!("parity     {}\n", cycle.tier));
            text.push_str(&format!("baseline   {}\n", short(&cycle.baseline)));
        }
    }
    if let Some(attempt) = &status.attempt {
        text.push_str(&format!("attempt    {attempt}\n"));
    }
    if let Some(accepted) = &status.accepted {
        let built = if accepted.built { "" } else { ", not built here yet" };
        text.push_str(&format!("accepted   {}{built}\n", short(&accepted.commit)));
    }
    text.push_str(&format!(
        "attempts   {} on this target; {:.4} false commits to expect of them\n",
        status.attempts, status.expected_false_commits
    ));
    if let Some(missing) = &status.attempts_missing {
        text.push_str(&format!("missing    {missing}\n"));
    }
    for weakened in &status.weaker {
        text.push_str(&format!("weaker     {}\n", weakened.line()));
    }
    if let Some(layout) = &status.layout {
        text.push_str(&format!("layout     {layout}\n"));
    }
    for problem in &status.ledger_problems {
        text.push_str(&format!("ledger     {problem}\n"));
    }
    text.push_str(&format!("next       {}\n", status.next));
    text
}

//! `alpha loop status`.

use clap::Args;
use feedback::{
    LoopError,
    land::status::{self, Status, WorkingTree},
    visible::{self, short},
};

use super::{Context, Done};

/// At most this many changed files are named.
const SHOWN_FILES: usize = 5;

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    context.show(&status::status(&session)?, text)?;
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
    if let Some(process) = &status.running {
        text.push_str(&format!("running    another command of the loop ({process})\n"));
    }
    text.push_str(&working_tree(&status.working_tree));
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
    if !status.weaker.is_empty() {
        let (count, reasonless) =
            (status.weaker.len(), status.weaker.iter().filter(|weakened| weakened.reason.is_none()).count());
        text.push_str(&format!(
            "weaker     {count} rules of `loop.toml` than in its history, {reasonless} without a reason; `alpha loop \
             audit` lists them\n"
        ));
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

/// The files of the candidate, and its build if that failed.
fn working_tree(working_tree: &WorkingTree) -> String {
    match working_tree {
        WorkingTree::Unchanged => "changed    nothing that is measured\n".to_owned(),
        WorkingTree::Unusable { why } => format!("changed    cannot be told: {}\n", visible::line(why)),
        WorkingTree::Changed { files, failed_build } => {
            let shown: Vec<String> =
                files.iter().take(SHOWN_FILES).map(|path| visible::line(&path.display().to_string())).collect();
            let more = files.len().saturating_sub(SHOWN_FILES);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let mut text = format!("changed    {}{more}\n", shown.join(", "));
            if let Some(log) = failed_build {
                text.push_str(&format!("build      it failed or was stopped; its output is in `{}`\n", log.display()));
            }
            text
        }
    }
}

//! `alpha loop audit`.

use std::time::Duration;

use clap::Args;
use feedback::{LoopError, review::audit, visible::short};

use super::{Context, Done};

/// The anchor and the budget.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Measure from this commit; from before the first claim unless named
    #[arg(long, value_name = "REV")]
    anchor: Option<String>,

    /// Longest measurement: `90s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = feedback::config::parse_duration, default_value = "3m")]
    budget: Duration,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = context.session()?;
    let _lock = session.state.lock()?;
    let audit = audit::audit(&mut session, flags.anchor.as_deref(), flags.budget, &context.console)?;
    context.show(&audit, |audit| {
        let mut text = format!(
            "from       {} to {}\nclaims     {} commits, product x{:.3} ({:+.2} %)\n",
            short(&audit.anchor),
            short(&audit.head),
            audit.claims,
            audit.claims_product,
            audit.claims_pct
        );
        match (&audit.measured, &audit.agreement) {
            (Some(measured), Some(agreement)) => {
                text.push_str(&format!("measured   {measured}\n"));
                text.push_str(&format!("verdict    {}: {}\n", agreement.outcome.name(), agreement.reason));
            }
            _ => text.push_str("measured   both ends build the same program\n"),
        }
        for commit in &audit.broken_claims {
            text.push_str(&format!("broken     {}: `alpha loop verify {}`\n", short(commit), short(commit)));
        }
        for file in &audit.dropped_records {
            text.push_str(&format!("gone       {file}: a commit before held it\n"));
        }
        for weakened in &audit.weaker {
            text.push_str(&format!("weaker     {}\n", weakened.line()));
        }
        text.push_str(&format!(
            "attempts   {}; {:.4} false commits to expect of them\n",
            audit.attempts, audit.expected_false_commits
        ));
        if let Some(missing) = &audit.attempts_missing {
            text.push_str(&format!("missing    {missing}\n"));
        }
        text
    })?;
    let disagrees =
        audit.agreement.as_ref().is_some_and(|found| found.outcome == feedback::review::verify::Agreement::Disagrees);
    Ok(Done::with(if disagrees || !audit.broken_claims.is_empty() || !audit.dropped_records.is_empty() {
        4
    } else {
        0
    }))
}

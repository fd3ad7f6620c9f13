//! `alpha loop verify`.

use std::time::Duration;

use clap::Args;
use feedback::{
    LoopError, Progress,
    records::registry::Registry,
    review::verify::{self, Agreement, Verification, VerifyReport},
    visible::short,
};

use super::{Context, Done};

/// Which commits, and whether to measure.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// A commit, or a range `A..B`
    #[arg(value_name = "COMMIT")]
    what: String,

    /// Measure again
    #[arg(long)]
    rerun: bool,

    /// Longest measurement of a commit: `90s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = feedback::config::parse_duration, default_value = "3m")]
    budget: Duration,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = context.session()?;
    let mut claims = verify::verify(&session, &flags.what)?;
    if flags.rerun {
        let _lock = session.state.lock()?;
        for verification in claims.iter_mut().filter(|verification| verification.claim_pct.is_some()) {
            verify::rerun(&mut session, verification, flags.budget, &context.console)?;
        }
    }
    if let Some(missing) = Registry::read(&session)?.missing(&session) {
        context.console.note(&missing);
    }
    let report = VerifyReport::new(claims, verify::dropped_records(&session)?);
    context.show(&report, |report| {
        let gone = report.dropped_records.iter().map(|file| format!("gone       {file}: a commit before held it\n"));
        report.claims.iter().map(text).chain(gone).collect()
    })?;
    let unresolved = report
        .claims
        .iter()
        .any(|claim| claim.rerun.as_ref().is_some_and(|rerun| rerun.outcome == Agreement::CannotResolve));
    Ok(Done::with(match (report.holds, unresolved) {
        (false, _) => 4,
        (true, true) => 5,
        (true, false) => 0,
    }))
}

fn text(verification: &Verification) -> String {
    let mut text = format!("{} {}\n", short(&verification.commit), verification.subject);
    match verification.claim_pct {
        None if verification.record.is_none() && verification.problems.is_empty() => {
            text.push_str("  claims nothing\n");
        }
        None if verification.problems.is_empty() => text.push_str("  claims no percentage; its record holds\n"),
        Some(_) if verification.problems.is_empty() => {
            let how = if verification.measured_here {
                "measured on exactly this tree"
            } else {
                "not measured here: the same patch on another tree"
            };
            text.push_str(&format!("  follows from its record; {how}\n"));
        }
        None | Some(_) => {}
    }
    for problem in &verification.problems {
        text.push_str(&format!("  does not hold: {problem}\n"));
    }
    for note in &verification.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    if let Some(rerun) = &verification.rerun {
        text.push_str(&format!("  measured again: {}, {}\n", rerun.outcome.name(), rerun.reason));
    }
    text
}

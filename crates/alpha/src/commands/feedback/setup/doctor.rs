//! `alpha loop doctor`.

use std::time::Duration;

use clap::Args;
use feedback::{
    LoopError, Progress,
    advise::doctor::{self, Finding, Probes, Severity},
    compare::selftest,
};
use serde::Serialize;

use super::{Context, Done};

/// How long the load is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// Nothing to choose.
#[derive(Args, Debug)]
pub(crate) struct Flags {}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    findings: Vec<Finding>,
}

pub(crate) fn run(_flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    // The machine can be examined anywhere; in a repository, problems with its `loop.toml` are reported too.
    let session = context.session();
    let state = session.as_ref().map_or_else(|_| std::env::temp_dir(), |session| session.state.folder().to_path_buf());
    let report = Report { schema: "alpha.loop.doctor/1", findings: doctor::examine(&Probes::take(INTERVAL, &state)) };
    context.show(&report, text)?;
    match session {
        Ok(session) => {
            if let Some(proof) = selftest::cached(&session)? {
                context.console.note(&format!("layout: {}", proof.floors(&session.config)));
            }
            for problem in session.ledger.problems() {
                context.console.note(&format!("ledger: {problem}"));
            }
            Ok(Done::WELL)
        }
        Err(error) => {
            context.console.note(&format!("this folder: {error}"));
            Ok(Done::WELL)
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for Finding { what, found, why_it_matters, what_to_do, severity } in &report.findings {
        let mark = match severity {
            Severity::Severe => "!!",
            Severity::Warning => "! ",
            Severity::Info => "  ",
        };
        text.push_str(&format!("{mark} {what}: {found}\n     {why_it_matters}\n     -> {what_to_do}\n"));
    }
    if report.findings.iter().all(|finding| finding.severity == Severity::Info) {
        text.push_str("nothing disturbs\n");
    }
    text
}

//! `alpha loop compare`.

use clap::Args;
use feedback::{
    LoopError,
    compare::{self, CompareOptions, report::CompareReport},
    parity::Tier,
};

use super::{Context, Done};

/// The arms and the limits of a comparison.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Compare against this commit; the open cycle's baseline unless named, or HEAD
    #[arg(long, value_name = "REV")]
    baseline: Option<String>,

    /// Run the baseline against itself: shows the noise, and is never a claim
    #[arg(long)]
    identical: bool,

    /// Longest comparison, builds and confirmation aside: `90s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = feedback::config::parse_duration)]
    budget: Option<std::time::Duration>,

    /// Smallest gain that counts: `0.2%`
    #[arg(long, value_name = "PCT", value_parser = super::percentage)]
    epsilon: Option<f64>,

    /// How equal the training must stay, where no cycle says so: t0, t1 or t2
    #[arg(long, value_name = "TIER")]
    parity: Option<Tier>,
}

impl Flags {
    /// The library's options.
    pub(crate) fn options(&self) -> CompareOptions {
        CompareOptions {
            baseline: self.baseline.clone(),
            is_identical: self.identical,
            budget: self.budget,
            epsilon_pct: self.epsilon,
            tier: self.parity,
        }
    }
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = context.session_against(flags.baseline.as_deref())?;
    super::judge_with_baseline(&session, &flags.options(), &context.console)?;
    let _lock = session.state.lock()?;
    let attempt = compare::compare(&mut session, &flags.options(), &context.console)?;
    let report = CompareReport::of(&session, &attempt);
    context.show(&report, text)?;
    Ok(Done::with(report.verdict.exit_code()))
}

/// A line with the verdict, and the evidence below.
pub(crate) fn text(report: &CompareReport) -> String {
    let mut text = format!("{}: {}\n", report.verdict.name(), report.reason);
    text.push_str(&format!("  pairs      {} in {:.0} s\n", report.pairs, report.seconds));
    if report.lost > 0 {
        text.push_str(&format!(
            "  lost       {} pairs that began and did not end count against the candidate\n",
            report.lost
        ));
    }
    if let Some(parity) = &report.parity {
        text.push_str(&format!("  parity     {parity}\n"));
    }
    for row in &report.counters {
        text.push_str(&format!("  counter    {} {} -> {}\n", row.name, row.baseline, row.candidate));
    }
    for guard in &report.guards {
        text.push_str(&format!("  guard      {}{}\n", guard, if guard.holds { "" } else { "  FAILS" }));
    }
    if let Some(record) = &report.record {
        text.push_str(&format!("  record     {record}\n"));
    }
    text
}

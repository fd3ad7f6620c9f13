//! `alpha loop bisect`.

use std::time::Duration;

use clap::Args;
use feedback::{LoopError, review::bisect, visible::short};

use super::{Context, Done};

/// The two ends.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// The older commit, which is fast
    good: String,

    /// The newer commit, which is slow
    #[arg(default_value = "HEAD")]
    bad: String,

    /// Longest measurement of a commit: `90s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = feedback::config::parse_duration, default_value = "2m")]
    budget: Duration,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = context.session()?;
    let _lock = session.state.lock()?;
    let found = bisect::bisect(&mut session, &flags.good, &flags.bad, flags.budget, &context.console)?;
    context.show(&found, |found| {
        let mut text =
            format!("{} {}\n  lost       {:.2} % in all\n", short(&found.culprit), found.subject, found.lost_pct);
        for measured in &found.measured {
            let estimate =
                measured.estimate.map_or_else(|| "the same program".to_owned(), |estimate| estimate.to_string());
            let name = if measured.is_slow { "slow" } else { "fast" };
            text.push_str(&format!("  {name}       {} {estimate}\n", short(&measured.commit)));
        }
        text
    })?;
    Ok(Done::WELL)
}

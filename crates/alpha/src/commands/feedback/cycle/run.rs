//! `alpha loop run`.

use clap::Args;
use feedback::{LoopError, compare::CompareOptions, land::cycle_run};

use super::{Context, Done, commit, compare};

/// The commit's flags and the comparison's.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    landing: commit::Landing,

    /// Longest comparison, builds and confirmation aside: `90s`, `5m`
    #[arg(long, value_name = "TIME", value_parser = feedback::config::parse_duration)]
    budget: Option<std::time::Duration>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let mut session = context.session()?;
    super::judge_with_baseline(&session, &CompareOptions::default(), &context.console)?;
    let _lock = session.state.lock()?;
    let done = cycle_run::run(&mut session, &flags.landing.options(), flags.budget, &context.console)?;
    let exit = done.exit_code;
    context.show(&done, |done| {
        let mut text = String::new();
        if let Some(smoke) = &done.smoke {
            text.push_str(&super::smoke::text(smoke));
        }
        if let Some(report) = &done.compare {
            text.push_str(&compare::text(report));
        }
        match (&done.landed, &done.refusal) {
            (Some(landed), _) => text.push_str(&commit::text(landed)),
            (None, Some(refusal)) => text.push_str(&format!("refused: {refusal}\n")),
            (None, None) => {}
        }
        text.push_str(&format!("time {:.0} s:", done.seconds.total));
        for (name, seconds) in done.seconds.parts() {
            text.push_str(&format!(" {name} {seconds:.1}"));
        }
        text.push('\n');
        if let Some(next) = &done.next {
            text.push_str(&super::next::text(next, 3));
        }
        text
    })?;
    Ok(Done::with(exit))
}

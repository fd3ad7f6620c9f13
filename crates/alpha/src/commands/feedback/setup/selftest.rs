//! `alpha loop selftest`.

use clap::Args;
use feedback::{
    LoopError,
    attempt::layout,
    compare::{
        built_arms,
        selftest::{self, SelfTestOptions},
    },
};

use super::{Context, Done};

/// How thorough the test is.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Number of layouts of the program to measure, however long it takes
    #[arg(long, value_parser = clap::value_parser!(u32).range(i64::from(layout::FEWEST)..=i64::from(layout::MOST)))]
    layouts: Option<u32>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    let _lock = session.state.lock()?;
    let head = session.repository.head()?.commit;
    let built_arms = built_arms::of_commits(&session, &head, &head, &context.console)?;
    let made = selftest::run(&session, &built_arms, SelfTestOptions { layouts: flags.layouts }, &context.console)?;
    context.show(&made, |made| {
        let mut text = format!(
            "the program against itself   {:+.2} % (p = {:.2}), noise of a pair {:.2} %\ndelayed by {:.1} %            found as {:.2} % (p = {:.4})\na pair takes                 {:.1} s\n",
            made.identical_pct, made.identical_p, made.sd_pct, made.injected_delay_pct, made.found_pct, made.found_p, made.seconds_per_pair,
        );
        for resolution in &made.resolves {
            text.push_str(&format!(
                "resolved in {:>2} min           {:.2} % ({} pairs)\n",
                resolution.minutes, resolution.effect_pct, resolution.pairs
            ));
        }
        text.push_str(&format!("layout                       {}\n", made.floors(&session.config)));
        if let Some(peaks) = made.peaks {
            text.push_str(&format!("peaks                        {:.0} GFLOP/s, {:.1} GB/s\n", peaks.gflops, peaks.gb_s));
        }
        text.push_str(&match &made.failure {
            None => "the instrument works here\n".to_owned(),
            Some(failure) => format!("the instrument fails its test: {failure}\n"),
        });
        text
    })?;
    Ok(Done::with(if made.failure.is_some() { 4 } else { 0 }))
}

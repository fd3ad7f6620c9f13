//! `alpha loop init`.

use clap::{ArgAction, Args};
use feedback::{
    LoopError, Progress,
    advise::init::{self, Initialised, Probed},
    git::Repository,
};

use super::{Context, Done};

/// Whether the trainer is tried.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Run a few steps of the trainer to find out steps, tokens and times, where it can be done without an edit
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    probe: bool,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let repository = Repository::open(std::path::Path::new("."))?;
    let made = init::init(&repository, flags.probe, &context.console)?;
    for guess in &made.guesses {
        context.console.note(&format!("to be read over: {guess}"));
    }
    context.show(&made, text)?;
    Ok(if made.problem.is_some() { Done::with(1) } else { Done::WELL })
}

fn text(made: &Initialised) -> String {
    let mut text = format!("`loop.toml` is written ({} repository)\n", made.kind);
    if let Some(probed) = &made.probed {
        text.push_str(&understood(probed));
    }
    text.push_str(match &made.problem {
        Some(_) => "the trainer did not run with it:\n",
        None => {
            "next: read it over and commit it, it is part of the evidence; then `alpha loop start \"<hypothesis>\"`, an edit, \
             and `alpha loop run -m \"<summary>\"`\n"
        }
    });
    if let Some(problem) = &made.problem {
        text.push_str(&format!(
            "  {problem}\nmend `loop.toml`; `alpha loop selftest` tries it again once it is committed\n"
        ));
    }
    text
}

/// What the probe showed.
fn understood(probed: &Probed) -> String {
    let seen = |what: &str, is_seen: bool| if is_seen { what.to_owned() } else { format!("no {what}") };
    let seen = [
        seen("losses", probed.has_losses),
        seen("gradient norms", probed.has_grad_norms),
        seen("token hashes", probed.has_data_hashes),
    ];
    format!(
        "  a step     {:.1} ms, {} tokens; {:.1} s until the first\n  \
         seen       {}, at full precision\n  \
         a pair     {} steps in turns on each side, {:.0} s; {:.0} pairs in five minutes\n",
        probed.step_ms,
        probed.tokens_per_step,
        probed.start_s,
        seen.join(", "),
        probed.steps,
        probed.pair_s,
        300.0 / probed.pair_s
    )
}

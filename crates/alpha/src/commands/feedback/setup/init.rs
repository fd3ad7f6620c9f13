//! `alpha loop init`.

use clap::{ArgAction, Args};
use feedback::{
    LoopError, Progress,
    advise::init::{self, Initialised, Probed},
    git::Repository,
};

use super::{Context, Done};

/// What the user says of the trainer.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// The kind of trainer, instead of what its files look like, such as `nanogpt`, `torchtitan` or `make`
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// The command of a short run, with `{steps}` where it takes its number of steps and, if it can, `{seed}`
    #[arg(long, value_name = "LINE")]
    command: Option<String>,
    /// Run a few steps of the trainer to find out how it takes turns, its steps, tokens and times
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    probe: bool,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let repository = Repository::open(std::path::Path::new("."))?;
    let request =
        init::Request { preset: flags.preset.clone(), command: flags.command.clone(), is_probed: flags.probe };
    let made = init::init(&repository, &request, &context.console)?;
    for guess in &made.guesses {
        context.console.note(&format!("to be read over: {guess}"));
    }
    context.show(&made, text)?;
    Ok(if made.problem.is_some() { Done::with(1) } else { Done::WELL })
}

fn text(made: &Initialised) -> String {
    let mut text = format!("`loop.toml` is written ({} repository)\n", made.kind);
    if !made.command.is_empty() {
        text.push_str(&format!("  command    {}\n", made.command));
    }
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
            "  {problem}\nmend `loop.toml`; `alpha loop selftest` tries it again once it is committed. Or remove it, and\n\
             `alpha loop init` again with `--command=…` or `--preset=…`\n"
        ));
    }
    text
}

/// What the probe showed.
fn understood(probed: &Probed) -> String {
    if probed.turns == "whole" {
        return format!(
            "  a run      {:.1} s; no step lines found: whole runs are compared, which is far noisier than turns\n",
            probed.start_s
        );
    }
    let seen = |what: &str, is_seen: bool| if is_seen { what.to_owned() } else { format!("no {what}") };
    let seen = [
        seen("losses", probed.has_losses),
        seen("gradient norms", probed.has_grad_norms),
        seen("token hashes", probed.has_data_hashes),
    ];
    let tokens = if probed.tokens_per_step > 0 { probed.tokens_per_step.to_string() } else { "?".to_owned() };
    let turns = match probed.turns {
        "lines" => "by the lines that it prints for its steps",
        _ => "by a module in its Python, without an edit",
    };
    format!(
        "  a step     {:.1} ms, {tokens} tokens; {:.1} s until {}\n  \
         turns      {turns}\n  \
         seen       {}, {}\n  \
         a pair     {} steps on each side, {:.0} s; a comparison has up to {} pairs\n",
        probed.step_ms,
        probed.start_s,
        if probed.turns == "lines" { "the end of the first" } else { "the first" },
        seen.join(", "),
        digits(probed),
        probed.steps,
        probed.pair_s,
        probed.pairs,
    )
}

/// What the recorded digits can carry: `docs/parity.md` has the limits.
fn digits(probed: &Probed) -> String {
    let unit = probed.loss_unit;
    if unit == 0.0 {
        return "at full precision: T0, T1 and T2".to_owned();
    }
    let decimals = -unit.log10().round();
    let carries =
        if unit <= FINE_ENOUGH { "T0 to the printed digits, T1, T2" } else { "T2 alone; T1 needs a digit more" };
    format!("losses with {decimals:.0} decimals: {carries}")
}

/// The largest unit of a loss of 1 or more that tells the limits of T1 apart.
const FINE_ENOUGH: f64 = 1e-4;

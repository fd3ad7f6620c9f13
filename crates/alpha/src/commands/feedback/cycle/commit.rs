//! `alpha loop commit`.

use clap::Args;
use feedback::{
    LoopError,
    compare::CompareOptions,
    land::commit::{self, CommitOptions, Landed},
};

use super::{Context, Done};

/// How to commit.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    #[command(flatten)]
    landing: Landing,

    /// Commit a change of the instrument's own files, with both instruments measured beside each other
    #[arg(long, conflicts_with = "no_claim")]
    instrument: bool,

    /// Why the instrument may ask for less than before; shown with every claim until it is restored
    #[arg(long, value_name = "REASON", requires = "instrument")]
    weakens: Option<String>,
}

/// The flags that `alpha loop run` has too.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct Landing {
    /// The change, in a few words
    #[arg(short, long, value_name = "SUMMARY")]
    message: String,

    /// Commit without a percentage
    #[arg(long)]
    no_claim: bool,

    /// Why gains outside the declared area are all right
    #[arg(long, value_name = "REASON")]
    widen: Option<String>,
}

impl Landing {
    /// The library's options.
    pub(crate) fn options(&self) -> CommitOptions {
        CommitOptions {
            summary: self.message.clone(),
            no_claim: self.no_claim,
            instrument: false,
            widen: self.widen.clone(),
            weakens: None,
        }
    }
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let (instrument, weakens) = (flags.instrument, flags.weakens.clone());
    let options = CommitOptions { instrument, weakens, ..flags.landing.options() };
    let mut session = context.session()?;
    // The baseline's program may be unable to read a new instrument's configuration; nothing is judged there.
    if !flags.instrument {
        super::judge_with_baseline(&session, &CompareOptions::default(), &context.console)?;
    }
    let _lock = session.state.lock()?;
    let landed = commit::commit(&mut session, &options, &context.console)?;
    context.show(&landed, text)?;
    Ok(Done::WELL)
}

/// The commit in a line.
pub(crate) fn text(landed: &Landed) -> String {
    let mut text = format!("{} {}\n", feedback::visible::short(&landed.commit), landed.subject);
    if let Some(reference) = &landed.reference {
        text.push_str(&format!("  {reference}\n"));
    }
    if let Some(record) = &landed.record {
        text.push_str(&format!("  record     {record}\n"));
    }
    if landed.audit_is_due {
        text.push_str("  audit      ten commits were accepted since the last: `alpha loop audit`\n");
    }
    text
}

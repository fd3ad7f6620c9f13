//! `alpha loop next`.

use std::path::PathBuf;

use clap::Args;
use feedback::{LoopError, compare::trace_runs, trace::ranking::Report};

use super::{Context, Done};

/// The run to rank.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// A run folder with `kernels.json`, instead of traces of the baseline
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let session = context.session()?;
    let ranking = if let Some(folder) = &flags.run {
        trace_runs::rank_run(&session, folder)?
    } else {
        let _lock = session.state.lock()?;
        trace_runs::rank_baseline(&session, &context.console)?
    };
    context.show(&ranking, |ranking| text(ranking, usize::MAX))?;
    Ok(Done::WELL)
}

/// The first `count` bottlenecks.
pub(crate) fn text(report: &Report, count: usize) -> String {
    let mut text = format!("a step takes {:.3} ms ({} processes)\n", report.step_ms, report.processes);
    for (place, entry) in report.ranked.iter().take(count).enumerate() {
        let share = &entry.share;
        let interval =
            share.share_interval_pct.map_or_else(String::new, |(low, high)| format!(" ({low:.1} to {high:.1})"));
        let floor = entry.floor_ms.map_or_else(|| "unknown".to_owned(), |floor| format!("{floor:.3} ms"));
        text.push_str(&format!(
            "{:>2}. {:<26} {:>5.1} %{interval} of the step, {:.3} ms, floor {floor}: at best {:+.1} %\n",
            place + 1,
            share.name,
            share.share_pct,
            share.time_ms,
            entry.potential_pct
        ));
        if !entry.areas.is_empty() {
            text.push_str(&format!("      area {}: {}\n", entry.areas.join(", "), entry.files.join(" ")));
        }
        if entry.attempts > 0 {
            text.push_str(&format!("      {} attempts, {} accepted\n", entry.attempts, entry.accepted));
        }
        if let Some(remark) = &entry.remark {
            text.push_str(&format!("      {remark}\n"));
        }
    }
    if count < usize::MAX {
        return text;
    }
    for (title, list) in [("not worth trying", &report.hidden), ("not to be believed", &report.quarantined)] {
        if !list.is_empty() {
            text.push_str(&format!("{title}:\n"));
        }
        for hidden in list {
            text.push_str(&format!("    {:<26} {}\n", hidden.share.name, hidden.reason));
        }
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

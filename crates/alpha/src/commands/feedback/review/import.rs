//! `alpha loop import`.

use std::path::PathBuf;

use clap::Args;
use feedback::{
    LoopError,
    advise::import::{self, ClaimSource, Columns, ImportReport, Request},
};

use super::{Context, Done, Versioned};

/// The history and the source of claims.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// A benchmark history: our own CSV, or a file of another tool (docs/guide/import.md has the list), or a folder of
    /// modded-nanogpt's logs
    #[arg(value_name = "FILE")]
    history: PathBuf,

    /// The column of the measured value, in a table of no known tool
    #[arg(long, value_name = "COLUMN")]
    value: Option<String>,

    /// The column of the commit
    #[arg(long, value_name = "COLUMN", requires = "value")]
    commit: Option<String>,

    /// The column of the time
    #[arg(long, value_name = "COLUMN", requires = "value")]
    time: Option<String>,

    /// The column that says `keep`, `discard` or `crash`
    #[arg(long, value_name = "COLUMN", requires = "value")]
    status: Option<String>,

    /// Lower values are better
    #[arg(long, requires = "value")]
    lower: bool,

    /// Claims: a CSV with `commit`, `time`, `claim_pct`
    #[arg(long, value_name = "CSV", conflicts_with = "repo")]
    claims: Option<PathBuf>,

    /// Claims: the subjects of this repository's commits
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
}

pub(crate) fn run(flags: &Flags, context: &Context) -> Result<Done, LoopError> {
    let source = match (&flags.claims, &flags.repo) {
        (Some(path), _) => Some(ClaimSource::Csv(path)),
        (None, Some(path)) => Some(ClaimSource::Repository(path)),
        (None, None) => None,
    };
    let columns = flags.value.as_ref().map(|value| Columns {
        value: value.clone(),
        commit: flags.commit.clone(),
        time: flags.time.clone(),
        status: flags.status.clone(),
        is_lower_better: flags.lower,
    });
    let request = Request { history: &flags.history, claims: source, columns: columns.as_ref() };
    let report = import::import(&request)?;
    let report = Versioned { schema: "alpha.loop.import/1", report: &report };
    context.show(&report, |versioned| text(versioned.report))?;
    Ok(Done::WELL)
}

fn text(report: &ImportReport) -> String {
    let mut text = if report.format == "alpha" {
        format!(
            "{} rows ({} ok, {} unstable, {} smoke_fail, {} failed, {} compile_failed)\n",
            report.rows, report.ok, report.unstable, report.smoke_fail, report.failed, report.compile_failed
        )
    } else {
        let others: usize = report.other_statuses.values().sum();
        format!(
            "{} rows, of {} ({} measured or kept, {others} discarded, {} failed)\n",
            report.rows, report.format, report.ok, report.failed
        )
    };
    let noise = &report.noise;
    if let (Some(sd), Some(band)) = (noise.noise_sd_pct, noise.noise_band_pct) {
        // A quiet machine is not one without noise.
        let digits = if sd < 0.1 { 3 } else { 1 };
        text.push_str(&format!(
            "noise      {sd:.digits$} % a run (robust, {} repeats of one program); one run against one: +-{band:.digits$} %\n",
            noise.noise_steps
        ));
    }
    let claims = &report.claims;
    if let Some(product) = claims.claims_product {
        text.push_str(&format!("claims     {} claims, product x{product:.1}\n", claims.claims));
    }
    if let Some(inside) = claims.claims_inside_noise {
        text.push_str(&format!(
            "           {inside} of {} positive ones lie inside the noise\n",
            claims.claims_positive
        ));
    }
    if let Some(ratio) = report.measured_ratio {
        text.push_str(&format!("measured   x{ratio:.2} (last five ok rows over the first five)\n"));
    }
    for series in &report.series {
        let of = &series.configuration;
        text.push_str(&format!("series     {} {} {} ({} rows)\n", of.backend, of.workload, of.device, series.rows));
        for level in &series.levels {
            let change = level.change_pct.map_or_else(String::new, |pct| format!("  {pct:+.1} %"));
            text.push_str(&format!(
                "           from {} x{:.3} over {} rows{change}\n",
                level.time, level.ratio, level.points
            ));
        }
    }
    for note in &report.notes {
        text.push_str(&format!("note       {note}\n"));
    }
    text
}

//! `alpha loop import`: judges a benchmark history and the claims made from it.
//!
//! A claim is looked up among the rows between the previous claim and its own commit: those are its attempts. Its row
//! is the last one whose `speedup_pct` is the claimed figure.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

mod claims;
mod foreign;
mod judge;
mod noise;
mod rows;
mod table;

pub use self::{
    claims::{Claim, ClaimSource, Claims, claimed_pct, claims_from_csv, claims_from_log},
    foreign::Columns,
    judge::{ClaimsReport, judge},
    noise::{Noise, noise},
    rows::{Row, Rows, Status},
    table::HeaderError,
};
use pairbench::stats::robust::median;

use crate::{
    LoopError,
    advise::series::{Configuration, Level, Measurement, series},
};

/// The report. A figure that the files do not give is absent (`null`); `notes` say why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImportReport {
    /// Whose history it is: `alpha`, or the tool whose form the file has.
    pub format: String,
    /// Rows of the history, whatever their status.
    pub rows: usize,
    /// … with this status.
    pub ok: usize,
    /// … with this status.
    pub unstable: usize,
    /// … with this status.
    pub smoke_fail: usize,
    /// … with this status.
    pub failed: usize,
    /// … with this status.
    pub compile_failed: usize,
    /// … with a status that this version does not know, by name.
    pub other_statuses: BTreeMap<String, usize>,
    /// Lines that are cut short, which are not rows.
    pub torn_lines: usize,
    /// How far apart two runs of one binary are.
    #[serde(flatten)]
    pub noise: Noise,
    /// Median speed of the last five `ok` rows over that of the first five; of half the rows, where there are less than
    /// ten.
    pub measured_ratio: Option<f64>,
    /// Each configuration's `ok` rows: where speed changed.
    pub series: Vec<Levels>,
    /// The claims, and how far the history supports them.
    #[serde(flatten)]
    pub claims: ClaimsReport,
    /// Notes for the reader: lines that could not be read, and why a figure is absent.
    pub notes: Vec<String>,
}

/// A series without its points.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Levels {
    /// The rows' common configuration.
    pub configuration: Configuration,
    /// `ok` rows.
    pub rows: usize,
    /// Stretches without a change; ratios are relative to the first five rows.
    pub levels: Vec<Level>,
}

/// At most this many flaws are listed.
const TOLD_FLAWS: usize = 10;

/// What is imported.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A file, or a folder of logs.
    pub history: &'a Path,
    /// Where claims come from, beside those that the history itself makes.
    pub claims: Option<ClaimSource<'a>>,
    /// The columns of a table that is of no known tool.
    pub columns: Option<&'a Columns>,
}

/// Reads and judges a history, and judges the claims by it.
///
/// # Errors
/// Where a file cannot be read, or has a form that is not known.
pub fn import(request: &Request<'_>) -> Result<ImportReport, LoopError> {
    let foreign = match request.columns {
        Some(columns) => Some(foreign::open_columns(request.history, columns)?),
        None => foreign::open(request.history)?,
    };
    let claims = request.claims.map(Claims::open).transpose()?;
    Ok(match foreign {
        Some(found) => {
            let mut report = report(found.format, found.rows, claims.unwrap_or(found.claims));
            report.notes.extend(found.notes);
            report
        }
        None => report("alpha", Rows::open(request.history)?, claims.unwrap_or_default()),
    })
}

fn report(format: &str, history: Rows, claims: Claims) -> ImportReport {
    let Rows { rows, torn, flaws } = history;
    let measurements: Vec<Measurement> = rows.iter().filter_map(Row::measurement).collect();
    let noise = noise(&rows);
    let mut notes = told(flaws);
    notes.extend(told(claims.flaws));
    if noise.noise_steps == 0 {
        notes.push("no binary ran twice in a row, so the history does not tell its noise".into());
    }
    if let Some((first, last)) = ends(&measurements)
        && first.iter().chain(last).any(|end| end.configuration != first[0].configuration)
    {
        notes.push(
            "the first and the last rows differ in configuration: their ratio does not compare like with like".into(),
        );
    }
    let other = rows.iter().filter_map(|row| if let Status::Other(name) = &row.status { Some(name) } else { None });
    let mut other_statuses = BTreeMap::new();
    for name in other {
        *other_statuses.entry(name.clone()).or_default() += 1;
    }
    let with = |status: Status| rows.iter().filter(|row| row.status == status).count();
    ImportReport {
        format: format.to_owned(),
        rows: rows.len(),
        ok: with(Status::Ok),
        unstable: with(Status::Unstable),
        smoke_fail: with(Status::SmokeFail),
        failed: with(Status::Failed),
        compile_failed: with(Status::CompileFailed),
        other_statuses,
        torn_lines: torn,
        measured_ratio: ends(&measurements).map(|(first, last)| median_tok_s(last) / median_tok_s(first)),
        series: series(&measurements)
            .into_iter()
            .map(|series| Levels {
                configuration: series.configuration,
                rows: series.points.len(),
                levels: series.levels,
            })
            .collect(),
        claims: judge(&claims.claims, &rows, &noise),
        noise,
        notes,
    }
}

/// The first and the last five, or fewer where they would overlap.
fn ends(measurements: &[Measurement]) -> Option<(&[Measurement], &[Measurement])> {
    let count = 5.min(measurements.len() / 2);
    (count > 0).then(|| (&measurements[..count], &measurements[measurements.len() - count..]))
}

fn median_tok_s(measurements: &[Measurement]) -> f64 {
    median(&measurements.iter().map(|measurement| measurement.tok_s).collect::<Vec<_>>())
}

fn told(mut flaws: Vec<String>) -> Vec<String> {
    if flaws.len() > TOLD_FLAWS {
        let more = flaws.len() - TOLD_FLAWS;
        flaws.truncate(TOLD_FLAWS);
        flaws.push(format!("… and {more} more like these"));
    }
    flaws
}

#[cfg(test)]
mod tests;

//! Histories of other tools, recognised by their content.
//!
//! Each becomes rows as our own are: a speed is the value where higher is better, and its reciprocal where lower is.
//! Only ratios are computed from it. What was kept claims to be better than what was kept before.

mod json;
mod tables;
mod training_logs;

use std::{fs, path::Path};

use super::{
    claims::{Claim, Claims},
    rows::{Row, Rows, Status},
};
use crate::{LoopError, advise::series::Configuration};

/// A history of another tool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Foreign {
    /// The tool whose form it has.
    pub format: &'static str,
    /// Its rows.
    pub rows: Rows,
    /// What was kept, as claims.
    pub claims: Claims,
    /// What has to be known to read the figures.
    pub notes: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// What is measured: the name of a metric or of a benchmark.
    metric: String,
    /// The commit, or what stands for it.
    commit: String,
    /// As written; empty if it is not known.
    time: String,
    value: f64,
    is_lower_better: bool,
    fate: Fate,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is part of what follows.
    Kept,
    /// It is not.
    Discarded,
    /// It did not run.
    Crashed,
    /// A measurement that decides nothing.
    Measured,
}

impl Fate {
    fn of(status: &str) -> Fate {
        match status.to_ascii_lowercase().as_str() {
            "keep" | "kept" | "baseline" | "initial" => Fate::Kept,
            "crash" | "crashed" | "failed" | "checks_failed" => Fate::Crashed,
            "verify" | "stability" => Fate::Measured,
            _ => Fate::Discarded,
        }
    }
}

/// The columns of a CSV that nobody else knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The measured value.
    pub value: String,
    /// The commit.
    pub commit: Option<String>,
    /// The time.
    pub time: Option<String>,
    /// What became of the attempt: `keep`, `discard`, `crash`.
    pub status: Option<String>,
    /// Whether lower values are better.
    pub is_lower_better: bool,
}

/// Reads a file, or a folder of logs, of a known tool; none if it is of none.
pub(super) fn open(path: &Path) -> Result<Option<Foreign>, LoopError> {
    if path.is_dir() {
        return training_logs::of_folder(path).map(Some);
    }
    let text = text(path)?;
    let found = json::read(&text).or_else(|| tables::read(&text)).or_else(|| training_logs::of_file(path, &text));
    Ok(found)
}

/// Reads a CSV whose columns the user names.
pub(super) fn open_columns(path: &Path, columns: &Columns) -> Result<Foreign, LoopError> {
    tables::of_columns(&text(path)?, columns)
        .map_err(|fault| LoopError::failed(format!("`{}` {fault}", path.display())))
}

fn text(path: &Path) -> Result<String, LoopError> {
    let bytes = fs::read(path).map_err(|error| LoopError::io("read", path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Rows and claims from samples in their order. `decides` says whether the tool keeps and discards: then every kept
/// sample beside the first of its metric is a claim against the one before.
fn history(format: &'static str, samples: Vec<Sample>, decides: bool) -> Foreign {
    let mut found = Foreign { format, ..Foreign::default() };
    let mut kept: Vec<(String, f64)> = Vec::new();
    for sample in samples {
        let is_usable = sample.value.is_finite() && sample.value > 0.0 && sample.fate != Fate::Crashed;
        let speed = is_usable.then(|| if sample.is_lower_better { 1.0 / sample.value } else { sample.value });
        let time = time_of(&sample.time);
        if speed.is_none() && sample.fate != Fate::Crashed {
            let row = found.rows.rows.len() + 1;
            found.rows.flaws.push(format!("row {row} of the history has no value above zero"));
        }
        let mut gain_pct = None;
        if let Some(speed) = speed.filter(|_| decides && sample.fate == Fate::Kept) {
            if let Some((_, before)) = kept.iter_mut().find(|(metric, _)| *metric == sample.metric) {
                let claim_pct = 100.0 * (speed / *before - 1.0);
                gain_pct = Some(claim_pct);
                let commit = sample.commit.clone();
                found.claims.claims.push(Claim { commit, time, claim_pct, only_benchmark_script: None });
                *before = speed;
            } else {
                kept.push((sample.metric.clone(), speed));
            }
        }
        found.rows.rows.push(Row {
            timestamp: sample.time,
            time,
            // Only then are two rows of one commit two runs of one program.
            is_clean: !sample.commit.is_empty() && sample.fate != Fate::Discarded,
            commit: sample.commit,
            configuration: Configuration { workload: sample.metric, ..Configuration::default() },
            compile_ms: None,
            tok_s: speed,
            speedup_pct: gain_pct,
            status: match sample.fate {
                Fate::Kept | Fate::Measured => Status::Ok,
                Fate::Discarded => Status::Other("discard".to_owned()),
                Fate::Crashed => Status::Failed,
            },
        });
    }
    if decides {
        found.notes.push(
            "a kept attempt counts as a claim against the one kept before it; each rests on one measurement".to_owned(),
        );
    }
    found
}

/// ISO 8601, or milliseconds since 1970.
fn time_of(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(ms) = text.parse::<i64>() {
        return jiff::Timestamp::from_millisecond(ms).ok();
    }
    let civil = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| civil().map(|zoned| zoned.timestamp()))
}

#[cfg(test)]
mod tests;

//! Logs of modded-nanogpt's records: the source of the trainer, then its lines. A run's result is its last line with a
//! validation loss, the only ones that wait for the device.

use std::{fs, path::Path};

use regex::Regex;

use super::{Fate, Foreign, Sample, history, text};
use crate::LoopError;

/// Such a line of the last step.
const LAST: &str = r"(?m)^step:(?<step>\d+)/(?<steps>\d+) val_loss:(?<loss>[\d.]+) train_time:(?<ms>\d+)ms step_avg:";
/// What stands between the source and the lines.
const RULE: &str = "====================";

/// One log: one run.
pub(super) fn of_file(path: &Path, text: &str) -> Option<Foreign> {
    let sample = sample(path, text)?;
    Some(history("modded-nanogpt", vec![sample], false))
}

/// The logs of a folder: one run each, of one program where the sources are the same.
pub(super) fn of_folder(folder: &Path) -> Result<Foreign, LoopError> {
    let entries = fs::read_dir(folder).map_err(|error| LoopError::io("read", folder, &error))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    let mut samples = Vec::new();
    for path in &paths {
        samples.extend(sample(path, &text(path)?));
    }
    if samples.is_empty() {
        return Err(LoopError::failed(format!("no file of `{}` is a log that is known", folder.display()))
            .hint("a folder holds logs of modded-nanogpt, one a run; other histories are files"));
    }
    // Runs of one program follow each other, so that they show its noise.
    samples.sort_by(|one, other| one.commit.cmp(&other.commit));
    let mut found = history("modded-nanogpt", samples, false);
    found.notes.push(
        "the logs are in the order of their programs, not of time: the measured ratio compares programs".to_owned(),
    );
    Ok(found)
}

fn sample(path: &Path, text: &str) -> Option<Sample> {
    let line = Regex::new(LAST).ok()?;
    let last = line.captures_iter(text).filter(|found| found["step"] == found["steps"]).last()?;
    let source = text.split(RULE).next().unwrap_or_default();
    Some(Sample {
        metric: "train_time".to_owned(),
        commit: if source.len() == text.len() {
            path.display().to_string()
        } else {
            blake3::hash(source.as_bytes()).to_hex()[..12].to_owned()
        },
        time: String::new(),
        value: last["ms"].parse().unwrap_or(f64::NAN),
        is_lower_better: true,
        fate: Fate::Measured,
    })
}

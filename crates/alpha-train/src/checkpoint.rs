//! Checkpoints: a folder `checkpoint-<step>` in Hugging Face's GPT-2 layout.
//!
//! | file | holds |
//! | --- | --- |
//! | `model.safetensors` | weights, f32, Hugging Face names |
//! | `config.json` | the model's shape; see [`config_json`] for what stock GPT-2 cannot hold |
//! | `tokenizer.json` | where the run has a tokenizer |
//! | `training_state.safetensors` | both moments of `AdamW` and the counters of the run |
//!
//! A folder has its name only once everything in it, and the run's metrics up to its step, are on
//! disk. Weights go straight between the backend and the file, a chunk at a time: there is never
//! a second copy of them in memory.

pub mod config_json;
mod loss_scale;
pub mod safetensors;
pub mod training_state;
pub mod weights;

use std::{
    io,
    path::{Path, PathBuf},
};

use alpha_nn::{ModelConfig, ParamLayout};
use alpha_tensor::Backend;

pub use self::{
    config_json::read_config,
    loss_scale::LossScale,
    training_state::{DataRecord, TrainingState, has_training_state, load_training_state, read_training_state},
    weights::{load_finite_params, load_params},
};
use crate::{
    error::TrainError,
    files::{self, PendingDir},
    metrics::MetricsWriter,
};

/// What a checkpoint holds beyond the backend's regions.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Shape of the model.
    pub config: &'a ModelConfig,
    /// Places of its parameters.
    pub layout: &'a ParamLayout,
    /// Bytes of `tokenizer.json`, where the run has a tokenizer.
    pub tokenizer_json: Option<&'a [u8]>,
    /// The token that separates documents, where there is one.
    pub end_of_text: Option<u32>,
    /// Counters; `state.step` names the folder.
    pub state: &'a TrainingState,
}

/// Writes `checkpoint-<step>` into the run folder and returns its path. The metrics are synced
/// before the folder gets its name. Must be called by the holder of the run folder's lock: unfinished
/// files of earlier processes are deleted first.
pub fn save(
    run_dir: &Path,
    contents: &Contents<'_>,
    metrics: &MetricsWriter,
    backend: &mut dyn Backend,
) -> Result<PathBuf, TrainError> {
    files::remove_leftovers(run_dir)?;
    let target = run_dir.join(folder_name(contents.state.step));
    let pending = PendingDir::create(&target)?;
    pending.write("config.json", |out| config_json::write_config(out, contents.config, contents.end_of_text))?;
    if let Some(tokenizer_json) = contents.tokenizer_json {
        pending.write("tokenizer.json", |out| out.write_all(tokenizer_json))?;
    }
    pending.write(weights::FILE_NAME, |out| weights::write_params(out, contents.layout, backend))?;
    pending.write(training_state::FILE_NAME, |out| {
        training_state::write_training_state(out, contents.state, contents.layout, backend)
    })?;
    metrics.sync()?;
    pending.publish()?;
    Ok(target)
}

/// Writes only the weights, those after `step` steps, to `weights-<step>.safetensors` in the run folder, for
/// comparisons while the run goes on. This is not a checkpoint: it is neither synced nor pruned nor resumed from.
pub fn save_weights(
    run_dir: &Path,
    step: u64,
    layout: &ParamLayout,
    backend: &mut dyn Backend,
) -> Result<(), TrainError> {
    let path = run_dir.join(format!("{WEIGHTS_PREFIX}{step}.safetensors"));
    files::write_unsynced(&path, |out| weights::write_params(out, layout, backend))
}

/// Names of the files of [`save_weights`] begin so.
const WEIGHTS_PREFIX: &str = "weights-";

const FOLDER_PREFIX: &str = "checkpoint-";

fn folder_name(step: u64) -> String {
    format!("{FOLDER_PREFIX}{step}")
}

/// A checkpoint of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Saved {
    /// The step after which it was written.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The checkpoints of a run folder, oldest first; none where the folder does not exist.
pub fn list(run_dir: &Path) -> Result<Vec<Saved>, TrainError> {
    let entries = match files::entries(run_dir) {
        Err(TrainError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    let mut checkpoints: Vec<Saved> = entries
        .into_iter()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix(FOLDER_PREFIX)?.parse().ok()?;
            (name == folder_name(step) && entry.path().is_dir()).then(|| Saved { step, path: entry.path() })
        })
        .collect();
    checkpoints.sort();
    Ok(checkpoints)
}

/// The newest checkpoint of a run folder.
pub fn newest(run_dir: &Path) -> Result<Option<Saved>, TrainError> {
    Ok(list(run_dir)?.pop())
}

/// Deletes all but the `keep` newest checkpoints (at least one) and the best. Returns the steps
/// of those deleted.
pub fn prune(run_dir: &Path, keep: usize, best_step: Option<u64>) -> Result<Vec<u64>, TrainError> {
    let mut checkpoints = list(run_dir)?;
    checkpoints.truncate(checkpoints.len().saturating_sub(keep.max(1)));
    checkpoints.retain(|saved| Some(saved.step) != best_step);
    remove(checkpoints)
}

/// Deletes the checkpoints of steps after `step`, for a run that goes on from there: they belong
/// to rows of `metrics.jsonl` that are cut. Returns their steps.
pub fn remove_after(run_dir: &Path, step: u64) -> Result<Vec<u64>, TrainError> {
    let mut checkpoints = list(run_dir)?;
    checkpoints.retain(|saved| saved.step > step);
    remove(checkpoints)
}

fn remove(checkpoints: Vec<Saved>) -> Result<Vec<u64>, TrainError> {
    checkpoints.into_iter().map(|saved| files::remove_dir_atomically(&saved.path).map(|()| saved.step)).collect()
}

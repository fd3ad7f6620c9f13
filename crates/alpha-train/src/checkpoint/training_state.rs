//! What a run needs beyond its weights to go on: `training_state.safetensors`.
//!
//! The moments of `AdamW` are tensors `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`, as
//! PyTorch calls them; the counters are JSON under the key `training_state` of the metadata. Data
//! position, learning rate and random streams follow from the step and the seed.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use alpha_data::{DataHash, DataIdentity};
use alpha_nn::ParamLayout;
use alpha_tensor::{Backend, Region};
use serde::{Deserialize, Serialize};

use super::{
    loss_scale::LossScale,
    safetensors::{SafetensorsFile, TensorSpec, write_f32},
};
use crate::error::TrainError;

/// Name of the file.
pub const FILE_NAME: &str = "training_state.safetensors";

const METADATA_KEY: &str = "training_state";

const MOMENTS: [(&str, Region); 2] = [("exp_avg", Region::Moment1), ("exp_avg_sq", Region::Moment2)];

/// The data of a run, by which a resumed run sees whether it is still the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Hashes of the content of the files.
    #[serde(flatten)]
    pub identity: DataIdentity,
    /// Tokens that are trained on; the rest validates.
    pub train_tokens: u64,
    /// The folder that relative paths of the configuration count from.
    pub folder: PathBuf,
}

/// Counters of a run after a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Steps done.
    pub step: u64,
    /// Updates applied; fewer than steps where updates were left out.
    pub updates: u64,
    /// The run's seed.
    pub seed: u64,
    /// Updates left out because the gradient norm exceeded the spike threshold.
    #[serde(default)]
    pub spikes_skipped: u64,
    /// Updates left out because the loss or the gradient was not finite.
    #[serde(default)]
    pub nonfinite_skipped: u64,
    /// Updates left out because a gradient overflowed f16.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overflows_skipped: u64,
    /// The loss scale of a run in f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Tokens trained on.
    #[serde(default)]
    pub tokens: u64,
    /// Hash of all data consumed; none in checkpoints of earlier versions, and in runs that go on from these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<DataHash>,
    /// The data; none in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataRecord>,
    /// The settings that a resumed run keeps ([`TrainConfig::kept_settings`]); empty in checkpoints of earlier versions.
    ///
    /// [`TrainConfig::kept_settings`]: crate::config::TrainConfig::kept_settings
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Hash of the tokenizer; none without one, and in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// The lowest validation loss so far.
    #[serde(default)]
    pub best_val_loss: Option<f32>,
    /// The step of that loss.
    #[serde(default)]
    pub best_step: Option<u64>,
    /// Whether the last step was to be evaluated and was not, because the run was asked to stop.
    #[serde(default, skip_serializing_if = "is_false")]
    pub evaluation_due: bool,
    /// Wall time of the run so far, all its processes together.
    #[serde(default)]
    pub elapsed_ms: f64,
    /// Anything else; kept as it is.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn specs(layout: &ParamLayout) -> Vec<(TensorSpec, Region, usize)> {
    let mut specs = Vec::with_capacity(2 * layout.params.len());
    for (prefix, region) in MOMENTS {
        for param in &layout.params {
            let spec = TensorSpec { name: format!("{prefix}.{}", param.name), dims: param.dims.clone() };
            specs.push((spec, region, param.tensor.offset));
        }
    }
    specs
}

/// Writes `training_state.safetensors`.
pub fn write_training_state(
    out: &mut dyn io::Write,
    state: &TrainingState,
    layout: &ParamLayout,
    backend: &mut dyn Backend,
) -> io::Result<()> {
    let metadata =
        BTreeMap::from([("format".into(), "pt".into()), (METADATA_KEY.into(), serde_json::to_string(state)?)]);
    let (specs, places): (Vec<TensorSpec>, Vec<(Region, usize)>) =
        specs(layout).into_iter().map(|(spec, region, offset)| (spec, (region, offset))).unzip();
    write_f32(out, metadata, &specs, |index, first, values| {
        let (region, offset) = places[index];
        backend.read(region, offset + first, values).map_err(io::Error::other)
    })
}

/// Whether a folder holds the state of a training, and so is a checkpoint of a run and not only a model.
pub fn has_training_state(dir: &Path) -> bool {
    dir.join(FILE_NAME).exists()
}

/// Reads only the counters of a checkpoint.
pub fn read_training_state(dir: &Path) -> Result<TrainingState, TrainError> {
    Ok(open(dir)?.1)
}

/// Reads the counters of a checkpoint, and the moments into their regions. Everything is checked
/// by name and shape before the first element is written.
pub fn load_training_state(
    dir: &Path,
    layout: &ParamLayout,
    backend: &mut dyn Backend,
) -> Result<TrainingState, TrainError> {
    let (mut file, state) = open(dir)?;
    let specs = specs(layout);
    check(&file, &specs)?;
    for (spec, region, offset) in &specs {
        file.read_f32(&spec.name, spec.dims.iter().product(), |first, values| {
            Ok(backend.write(*region, offset + first, values)?)
        })?;
    }
    Ok(state)
}

fn open(dir: &Path) -> Result<(SafetensorsFile, TrainingState), TrainError> {
    let path: PathBuf = dir.join(FILE_NAME);
    if !path.exists() {
        let hint = "only a checkpoint of a run can be resumed; start a new run from weights alone with `--init`";
        return Err(TrainError::MissingFile { path, hint });
    }
    let file = SafetensorsFile::open(&path)?;
    let json = file.header().metadata.as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let json = json.ok_or_else(|| TrainError::broken(&path, format!("its metadata has no `{METADATA_KEY}`")))?;
    let state = serde_json::from_str(json)
        .map_err(|error| TrainError::broken(&path, format!("`{METADATA_KEY}` of its metadata: {error}")))?;
    Ok((file, state))
}

fn check(file: &SafetensorsFile, specs: &[(TensorSpec, Region, usize)]) -> Result<(), TrainError> {
    let path = || file.path().to_path_buf();
    let tensors = &file.header().tensors;
    for (TensorSpec { name, dims }, ..) in specs {
        let (tensor, expected) = (name.clone(), dims.clone());
        match tensors.get(name) {
            None => {
                let there = tensors.keys().cloned().collect();
                return Err(TrainError::MissingTensor { path: path(), tensor, expected, there });
            }
            Some(info) if info.shape != *dims => {
                let found = info.shape.clone();
                return Err(TrainError::TensorShape { path: path(), tensor, found, expected });
            }
            Some(info) if info.dtype != "F32" => {
                let found = info.dtype.clone();
                return Err(TrainError::TensorDtype { path: path(), tensor, found, expected: "`F32`" });
            }
            Some(_) => {}
        }
    }
    let is_known = |name: &&String| specs.iter().any(|(spec, ..)| spec.name == **name);
    if let Some(extra) = tensors.keys().find(|name| !is_known(name)) {
        return Err(TrainError::ExtraTensor { path: path(), tensor: extra.clone() });
    }
    Ok(())
}

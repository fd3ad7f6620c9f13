//! Checkpoints: round trips, folders as other programs write them, and broken ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

mod config_json;
mod folders;
mod malformed;
mod memory_backend;
mod weights;

use std::path::{Path, PathBuf};

use alpha_nn::{FeedForward, ModelConfig, ParamLayout};
use alpha_tensor::{Region, op::Activation};
use alpha_train::{
    checkpoint::{self, Contents, TrainingState},
    metrics::MetricsWriter,
};

use crate::memory_backend::MemoryBackend;

fn small_config() -> ModelConfig {
    ModelConfig {
        layers: 2,
        dim: 12,
        heads: 3,
        block: 7,
        vocab: 11,
        ffn_dim: 48,
        feed_forward: FeedForward::Pointwise(Activation::Gelu),
        is_tied: true,
        has_bias: true,
        dropout: 0.0,
        layer_norm_eps: 1e-5,
    }
}

/// A backend whose parameters and moments are all different, padding zero.
fn filled_backend(layout: &ParamLayout) -> MemoryBackend {
    let mut backend = MemoryBackend::new(layout);
    let mut next = 1.0;
    for region in [Region::Params, Region::Moment1, Region::Moment2] {
        for param in &layout.params {
            let values = &mut backend.region_mut(region)[param.tensor.offset..][..param.tensor.len()];
            for value in values {
                *value = next / 64.0;
                next += 1.0;
            }
        }
    }
    backend
}

fn state(step: u64) -> TrainingState {
    TrainingState { step, updates: step, seed: 42, ..TrainingState::default() }
}

/// Saves a checkpoint into a run folder.
fn save(run_dir: &Path, config: &ModelConfig, backend: &mut MemoryBackend, state: &TrainingState) -> PathBuf {
    let layout = ParamLayout::new(config);
    let contents = Contents { config, layout: &layout, tokenizer_json: Some(b"{}"), end_of_text: None, state };
    let metrics = MetricsWriter::open(run_dir, state.step).unwrap();
    checkpoint::save(run_dir, &contents, &metrics, backend).unwrap()
}

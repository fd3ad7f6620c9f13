//! A model from a folder, ready to run: what `sample` and `eval` begin with.

use std::path::Path;

use alpha_data::Tokenizer;
use alpha_nn::{ModelConfig, ParamLayout};
use alpha_tensor::{Backend, cpu::CpuBackend, cpu_ref::RefBackend};
use alpha_train::{checkpoint, config};

use crate::{exit::Failure, resolve::Place};

/// A model's shape, the places of its parameters, and its tokenizer if it has one.
pub(crate) struct Model {
    /// Shape.
    pub(crate) config: ModelConfig,
    /// Places.
    pub(crate) layout: ParamLayout,
    /// From `tokenizer.json`.
    pub(crate) tokenizer: Option<Tokenizer>,
}

impl Model {
    /// Reads everything but the weights.
    pub(crate) fn open(folder: &Path) -> Result<Model, Failure> {
        let config = checkpoint::read_config(folder)?;
        let layout = ParamLayout::new(&config);
        let tokenizer_path = folder.join("tokenizer.json");
        let tokenizer = tokenizer_path.exists().then(|| Tokenizer::load(&tokenizer_path)).transpose()?;
        Ok(Model { config, layout, tokenizer })
    }
}

/// The backend that was chosen.
pub(crate) fn backend(place: &Place) -> Result<Box<dyn Backend>, Failure> {
    match place.backend {
        config::Backend::CpuRef => Ok(Box::new(RefBackend::<f32>::new())),
        _ => Ok(Box::new(CpuBackend::new(place.threads).map_err(alpha_train::TrainError::from)?)),
    }
}

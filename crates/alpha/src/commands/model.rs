//! A model from a folder, ready to run: what `sample` and `eval` begin with.

use std::path::Path;

use alpha_data::Tokenizer;
use alpha_nn::{ModelConfig, ParamLayout};
use alpha_tensor::Backend;
use alpha_train::{
    checkpoint,
    config::{Dtype, backend::make_backend},
};

use crate::{exit::Failure, output, resolve::Place};

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
    let mut backend = make_backend(&place.choice(Dtype::F32))?;
    backend.take_notes().iter().for_each(|note| output::note(note));
    Ok(backend)
}

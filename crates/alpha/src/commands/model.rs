//! The model and the backend that `sample`, `eval` and `check` run.

use std::path::Path;

use alpha_data::Tokenizer;
use alpha_nn::{ModelConfig, ParamLayout};
use alpha_tensor::Backend;
use alpha_train::{
    checkpoint,
    config::{
        Dtype,
        backend::{BackendChoice, make_backend},
    },
};

use crate::{exit::Failure, flags::train::BackendFlags, output, resolve};

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

/// Decides where operations run, in single precision, and prints the notes on that choice.
pub(crate) fn choose_backend(flags: &BackendFlags) -> Result<BackendChoice, Failure> {
    let (choice, notes) = resolve::choose_backend(flags, Dtype::F32)?;
    for note in notes {
        output::note(&note);
    }
    Ok(choice)
}

/// Opens the backend that was chosen, and prints what it has to say.
pub(crate) fn open_backend(choice: &BackendChoice) -> Result<Box<dyn Backend>, Failure> {
    let mut backend = make_backend(choice)?;
    backend.take_notes().iter().for_each(|note| output::note(note));
    Ok(backend)
}

//! What a run begins with: a checkpoint that it resumes, the weights of a folder, or nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use alpha_data::{Kind, Tokenizer};
use alpha_nn::ModelConfig;

use crate::{
    TrainError,
    checkpoint::{self, DataRecord, Saved, TrainingState},
    config::{Resume, TrainConfig},
    files, run_dir,
};

/// What a run begins with, and the folder that it writes to.
pub(super) struct Origin<'a> {
    pub(super) config: &'a TrainConfig,
    pub(super) run_path: PathBuf,
    /// The checkpoint to resume.
    pub(super) saved: Option<Saved>,
    /// Whether that checkpoint lies in the run folder. A run that resumes another run's checkpoint begins a new folder.
    pub(super) is_in_place: bool,
    /// The data that the resumed run began with.
    pub(super) data: Option<DataRecord>,
    /// Hash of the tokenizer that the resumed run was trained with.
    tokenizer: Option<String>,
    /// Whether the resumed run has nothing left to do.
    pub(super) is_finished: bool,
}

impl<'a> Origin<'a> {
    /// Finds the checkpoint and checks that it belongs to this configuration. Refuses a folder that is not the run's to use.
    pub(super) fn find(config: &'a TrainConfig) -> Result<Origin<'a>, TrainError> {
        let (run_path, saved) = find_saved(config)?;
        let is_in_place = saved.as_ref().is_some_and(|saved| is_inside(&saved.path, &run_path));
        if !is_in_place {
            run_dir::check_is_free(&run_path)?;
        }
        let mut origin =
            Origin { config, run_path, saved, is_in_place, data: None, tokenizer: None, is_finished: false };
        if let Some(saved) = &origin.saved {
            let state = checkpoint::read_training_state(&saved.path)?;
            check_settings(&saved.path, config, &state)?;
            let TrainingState { step, data, evaluation_due, tokenizer, .. } = state;
            let name = saved.path.file_name().and_then(|name| name.to_str());
            if name.and_then(|name| name.strip_prefix("checkpoint-")).is_some_and(|named| named != step.to_string()) {
                return Err(TrainError::broken(&saved.path, format!("its training state is that of step {step}")));
            }
            (origin.data, origin.tokenizer) = (data, tokenizer);
            origin.is_finished = step >= config.steps && !evaluation_due;
        }
        Ok(origin)
    }

    /// The folder of the checkpoint to resume.
    pub(super) fn checkpoint(&self) -> Option<&Path> {
        self.saved.as_ref().map(|saved| saved.path.as_path())
    }

    /// The folder that a new run takes its weights from.
    pub(super) fn init(&self) -> Option<&'a Path> {
        self.config.init.as_deref().filter(|_| self.saved.is_none())
    }

    /// The folder that the weights come from.
    pub(super) fn weights(&self) -> Option<&Path> {
        self.checkpoint().or(self.init())
    }

    /// Which tokenizer: a resumed run's own; else the one asked for; else that of the folder whose weights the model
    /// begins with.
    pub(super) fn tokenizer(&self) -> Result<Option<Kind>, TrainError> {
        let of_folder =
            |folder: &Path| Some(folder.join("tokenizer.json")).filter(|path| path.exists()).map(Kind::File);
        if let Some(own) = self.checkpoint().and_then(of_folder) {
            return Ok(Some(own));
        }
        match &self.config.tokenizer {
            Some(name) => Ok(Some(name.parse()?)),
            None if self.config.tokenizer_artifacts.is_some() => Ok(None),
            None => Ok(self.init().and_then(of_folder)),
        }
    }

    /// Checks that a resumed run has the tokenizer that it was trained with, and that weights get the tokenizer that lies
    /// beside them: they know its ids.
    pub(super) fn check_tokenizer(&self, tokenizer: Option<&Tokenizer>) -> Result<(), TrainError> {
        let Some(tokenizer) = tokenizer else { return Ok(()) };
        if let (Some(checkpoint), Some(hash)) = (self.checkpoint(), &self.tokenizer)
            && tokenizer.hash() != *hash
        {
            return Err(TrainError::TokenizerEdited { path: checkpoint.join("tokenizer.json") });
        }
        let Some(folder) = self.init() else { return Ok(()) };
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Ok(()); // the user named one
        }
        let own = Tokenizer::load(&path)?;
        match tokenizer.token_that_differs(&own) {
            Some(token) => Err(TrainError::OtherTokenizer { path, token }),
            None => Ok(()),
        }
    }

    /// The model of the run. `stored` is the one whose weights it begins with: a resumed run goes on with that very shape.
    pub(super) fn model(&self, vocab: usize, stored: Option<&ModelConfig>) -> Result<ModelConfig, TrainError> {
        let mut model = self.config.model(vocab);
        if let Some(stored) = stored {
            model.layer_norm_eps = stored.layer_norm_eps;
        }
        if let (Some(checkpoint), Some(stored)) = (self.checkpoint(), stored) {
            check_shape(checkpoint, &model, stored)?;
        }
        model.validate()?;
        Ok(model)
    }
}

fn find_saved(config: &TrainConfig) -> Result<(PathBuf, Option<Saved>), TrainError> {
    let new_path = || config.run_dir.clone().unwrap_or_else(|| PathBuf::from("runs").join(run_dir::new_run_id()));
    match &config.resume {
        None => Ok((new_path(), None)),
        Some(Resume::Auto) => {
            let path = new_path();
            let newest = checkpoint::newest(&path)?;
            Ok((path, newest))
        }
        Some(Resume::From(folder)) => {
            let step = checkpoint::read_training_state(folder)?.step;
            let path = config.run_dir.clone().unwrap_or_else(|| files::parent(folder).to_path_buf());
            Ok((path, Some(Saved { step, path: folder.clone() })))
        }
    }
}

fn is_inside(checkpoint: &Path, run_dir: &Path) -> bool {
    match (checkpoint.canonicalize(), run_dir.canonicalize()) {
        (Ok(checkpoint), Ok(run_dir)) => checkpoint.parent() == Some(run_dir.as_path()),
        _ => false,
    }
}

/// Checks the settings that a resumed run keeps against those that its checkpoint was made with.
fn check_settings(checkpoint: &Path, config: &TrainConfig, state: &TrainingState) -> Result<(), TrainError> {
    if state.seed != config.seed {
        return Err(edited(checkpoint, "seed", &config.seed, &state.seed));
    }
    for (key, now) in config.kept_settings() {
        if let Some(then) = state.settings.get(&key).filter(|then| **then != now) {
            return Err(edited(checkpoint, &key, &now, then));
        }
    }
    Ok(())
}

fn check_shape(checkpoint: &Path, now: &ModelConfig, then: &ModelConfig) -> Result<(), TrainError> {
    let same = |key: &str, now: &dyn fmt::Debug, then: &dyn fmt::Debug| {
        let (now, then) = (format!("{now:?}"), format!("{then:?}"));
        if now == then { Ok(()) } else { Err(edited(checkpoint, key, &now, &then)) }
    };
    same("layers", &now.layers, &then.layers)?;
    same("dim", &now.dim, &then.dim)?;
    same("heads", &now.heads, &then.heads)?;
    same("block", &now.block, &then.block)?;
    same("ffnDim", &now.ffn_dim, &then.ffn_dim)?;
    same("activation", &now.feed_forward, &then.feed_forward)?;
    same("tie", &now.is_tied, &then.is_tied)?;
    same("bias", &now.has_bias, &then.has_bias)
}

fn edited(checkpoint: &Path, key: &str, now: &dyn fmt::Display, then: &dyn fmt::Display) -> TrainError {
    TrainError::ConfigEdited {
        checkpoint: checkpoint.into(),
        key: key.into(),
        now: now.to_string(),
        then: then.to_string(),
    }
}

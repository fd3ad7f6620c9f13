//! The folder in which trees are built, and what is known of the build that lies there.
//!
//! What an incremental build leaves shapes the next. So only the accepted tree, HEAD's, is built in the stage itself, from
//! one accepted commit to the next; everything else is built in a [`Layer`] on top of it, and no attempt leaves anything
//! to another. A build that was cut off counts for nothing: what it left may be half written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layer::{self, Layer};
use pairbench::files;

use crate::{LoopError, Progress};

/// Beside the tree; not there while a build works in it.
const BASE: &str = "base.json";

/// What was built in the stage last, to its end.
#[derive(Serialize, Deserialize)]
pub(super) struct Base {
    /// Of this commit.
    pub(super) commit: String,
    /// Its measured tree; none where the build failed.
    pub(super) measured_tree: Option<String>,
}

/// The stage.
pub(super) struct Stage {
    tree: PathBuf,
    folder: PathBuf,
}

impl Stage {
    /// With the tree in `tree`; the folder above is the stage's own.
    pub(super) fn new(tree: PathBuf) -> Stage {
        let folder = tree.parent().map_or_else(|| tree.clone(), Path::to_owned);
        Stage { tree, folder }
    }

    /// Where trees are laid out.
    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Empties it unless a build came to its end there that what is to be built may go on from.
    pub(super) fn prepare(
        &self,
        is_usable: impl FnOnce(&Base) -> bool,
        progress: &dyn Progress,
    ) -> Result<(), LoopError> {
        layer::recover(&self.folder)?;
        let why = match self.base() {
            Some(base) if is_usable(&base) => None,
            Some(_) => Some("HEAD does not descend from what was built last"),
            None if self.tree.exists() => Some("the last build was cut off"),
            None => None,
        };
        if let Some(why) = why {
            progress.note(&format!("{why}: building from the beginning"));
            files::remove(&self.folder)?;
        }
        fs::create_dir_all(&self.folder).map_err(|error| LoopError::io("make", &self.folder, &error))
    }

    /// What lies there, if a build came to its end. A torn file stands for one that did not.
    pub(super) fn base(&self) -> Option<Base> {
        fs::read(self.folder.join(BASE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// A build begins in the stage itself.
    pub(super) fn begin(&self) -> Result<(), LoopError> {
        files::remove(&self.folder.join(BASE))
    }

    /// It came to its end.
    pub(super) fn finish(&self, base: &Base) -> Result<(), LoopError> {
        let json = serde_json::to_vec(base)
            .map_err(|error| LoopError::failed(format!("a build cannot be written down: {error}")))?;
        files::write(&self.folder.join(BASE), &json)
    }

    /// A layer on top of what lies there.
    pub(super) fn layer(&self) -> Result<Layer, LoopError> {
        Layer::over(&self.folder)
    }
}

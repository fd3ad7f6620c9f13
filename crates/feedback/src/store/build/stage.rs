//! The folder in which trees are built, and a record of the last build there.
//!
//! An incremental build's leftovers affect the next build. So only the accepted tree, HEAD's, is built in the stage
//! itself, from one accepted commit to the next; everything else is built in a [`Layer`] on top of it, so that no
//! attempt affects another. After an interrupted build the stage is not used: its files may be half written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layer::{self, Layer};
use pairbench::files;

use crate::{LoopError, Progress};

/// The file beside the tree; it does not exist while a build works in the tree.
const BASE: &str = "base.json";

/// The last build in the stage that completed.
#[derive(Serialize, Deserialize)]
pub(super) struct Base {
    /// The commit that was built.
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
    /// A stage with the tree in `tree`; the folder above belongs to the stage.
    pub(super) fn new(tree: PathBuf) -> Stage {
        let folder = tree.parent().map_or_else(|| tree.clone(), Path::to_owned);
        Stage { tree, folder }
    }

    /// Where trees are laid out.
    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Empties it unless it holds a completed build that the next build may continue from.
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
            None => {
                progress.note("building everything once in a folder of the loop's own: later builds go on from it");
                None
            }
        };
        if let Some(why) = why {
            progress.note(&format!("{why}: building from the beginning"));
            files::remove(&self.folder)?;
        }
        fs::create_dir_all(&self.folder).map_err(|error| LoopError::io("make", &self.folder, &error))
    }

    /// The last build, if it completed. A torn file counts as a build that did not.
    pub(super) fn base(&self) -> Option<Base> {
        fs::read(self.folder.join(BASE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// Notes that a build starts in the stage itself.
    pub(super) fn begin(&self) -> Result<(), LoopError> {
        files::remove(&self.folder.join(BASE))
    }

    /// Notes that the build completed.
    pub(super) fn finish(&self, base: &Base) -> Result<(), LoopError> {
        let json = serde_json::to_vec(base)
            .map_err(|error| LoopError::failed(format!("a build cannot be written down: {error}")))?;
        files::write(&self.folder.join(BASE), &json)
    }

    /// A layer on top of the stage.
    pub(super) fn layer(&self) -> Result<Layer, LoopError> {
        Layer::over(&self.folder)
    }
}

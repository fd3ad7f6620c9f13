//! The baseline's inputs as files: data, tokenizers, whatever the workload's command reads.
//!
//! They come from the baseline's tree, not from the working tree, and lie read-only in a folder that
//! is named after the tree, made once.

use std::path::{Path, PathBuf};

use crate::{LoopError, git::Repository};

/// The folder of the inputs of `tree`, made if it is not there. `paths` are files or folders of the tree.
pub fn folder(repository: &Repository, state: &Path, tree: &str, paths: &[PathBuf]) -> Result<PathBuf, LoopError> {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let key = blake3::hash(format!("{tree}\n{}", names.join("\n")).as_bytes()).to_hex();
    let folder = state.join("inputs").join(&key[..32]);
    if !folder.is_dir() {
        let new = folder.with_extension(format!("new-{}", std::process::id()));
        crate::arm::remove(&new)?;
        std::fs::create_dir_all(&new).map_err(|error| LoopError::io("make", &new, &error))?;
        repository.extract(tree, paths, &new)?;
        std::fs::rename(&new, &folder).map_err(|error| LoopError::io("make", &folder, &error))?;
    }
    Ok(folder)
}

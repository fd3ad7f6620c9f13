//! The baseline's inputs as files: data, tokenizers and whatever else the workload's command reads.
//!
//! They come from the baseline's tree, not from the working tree, and are in a folder that is named after the tree. The
//! folder is read-only, and before each use every file is read again: if one differs from the baseline's, the folder is
//! extracted again. Each arm has its own files: an arm could have the system drop a shared file from memory
//! (`posix_fadvise`) before the other's turn.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pairbench::{Arm, files};

use crate::{LoopError, Progress, git::Repository};

/// Number of folders that stay, those used last: comparisons go back and forth between a few trees.
const MOST_KEPT: usize = 16;

/// The inputs of one arm.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The baseline's tree.
    pub tree: &'a str,
    /// Files or folders of that tree.
    pub paths: &'a [PathBuf],
    /// The arm that reads them.
    pub arm: Arm,
}

/// The folder of the inputs, made below the loop's folder `state` if it is not there.
pub fn folder(
    repository: &Repository,
    state: &Path,
    inputs: Inputs<'_>,
    progress: &dyn Progress,
) -> Result<PathBuf, LoopError> {
    let Inputs { tree, paths, arm } = inputs;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let key = blake3::hash(format!("{tree} {}\n{}", arm.index(), names.join("\n")).as_bytes()).to_hex();
    let all = state.join("inputs");
    let folder = all.join(&key[..32]);
    if folder.symlink_metadata().is_ok() {
        let differences = repository.differences(tree, paths, &folder)?;
        if let Some(first) = differences.first() {
            progress.note(&format!(
                "the kept inputs are not the baseline's any more (`{}`, {} in all): laid out anew",
                first.display(),
                differences.len()
            ));
            files::remove(&folder)?;
        }
    }
    if !folder.is_dir() {
        let new = folder.with_extension(format!("new-{}", std::process::id()));
        files::remove(&new)?;
        fs::create_dir_all(&all).map_err(|error| LoopError::io("make", &all, &error))?;
        repository.extract(tree, paths, &new)?;
        files::make_read_only(&new)?;
        fs::rename(&new, &folder).map_err(|error| LoopError::io("make", &folder, &error))?;
    }
    let used = fs::File::open(&folder).and_then(|file| file.set_modified(SystemTime::now()));
    used.map_err(|error| LoopError::io("touch", &folder, &error))?;
    for old in all_but_newest(&all).map_err(|error| LoopError::io("read", &all, &error))? {
        files::remove(&old)?;
    }
    Ok(folder)
}

/// The folders beyond [`MOST_KEPT`].
fn all_but_newest(all: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        folders.push((entry.metadata()?.modified()?, entry.path()));
    }
    folders.sort_unstable_by(|one, other| other.cmp(one));
    Ok(folders.into_iter().skip(MOST_KEPT).map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_used_last_stay() {
        let folder = tempfile::tempdir().unwrap();
        for age in 0..MOST_KEPT as u64 + 2 {
            let path = folder.path().join(format!("{age}"));
            fs::create_dir(&path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(60 * (age + 1));
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        let mut gone = all_but_newest(folder.path()).unwrap();
        gone.sort();
        assert_eq!(gone, ["16", "17"].map(|name| folder.path().join(name)));
    }
}

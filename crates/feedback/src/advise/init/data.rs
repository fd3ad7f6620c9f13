//! Finds the data that a trainer reads, by names and endings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{LoopError, git::Repository};

/// Names of folders and files that do not hold data: caches, environments, results.
const NOT_DATA: [&str; 16] = [
    "__pycache__",
    ".venv",
    "venv",
    "env",
    "node_modules",
    "wandb",
    "out",
    "runs",
    "logs",
    "checkpoints",
    ".idea",
    ".vscode",
    ".ipynb_checkpoints",
    "build",
    "dist",
    "perf",
];
/// Endings of file names that do not belong to data.
const NOT_DATA_FILES: [&str; 8] = [".pyc", ".pt", ".pth", ".ckpt", ".log", ".egg-info", ".DS_Store", ".so"];
/// Endings of files that hold data.
const DATA_FILES: [&str; 14] = [
    ".bin",
    ".txt",
    ".npy",
    ".npz",
    ".json",
    ".jsonl",
    ".csv",
    ".parquet",
    ".model",
    ".yaml",
    ".yml",
    ".safetensors",
    ".gz",
    ".zst",
];
/// Folders that hold data.
const DATA_FOLDERS: [&str; 3] = ["data", "datasets", "dataset"];

/// Tracked entries of the top folder that hold data, for programs that are built.
pub(super) fn tracked(repository: &Repository) -> Result<Vec<String>, LoopError> {
    let files = repository.files(&repository.head()?.tree)?;
    let top: BTreeSet<String> = files
        .iter()
        .filter_map(|path| Some(path.components().next()?.as_os_str().to_string_lossy().into_owned()))
        .collect();
    let is_data = |name: &String| {
        let is_file = repository.root().join(name).is_file();
        DATA_FOLDERS.contains(&name.as_str())
            || is_file && name != "requirements.txt" && DATA_FILES.iter().any(|end| name.ends_with(end))
    };
    Ok(top.into_iter().filter(is_data).collect())
}

/// The text of the tracked sources, as far as it is quickly read.
pub(super) fn sources(repository: &Repository) -> Result<String, LoopError> {
    let files = repository.files(&repository.head()?.tree)?;
    let is_source =
        |path: &&PathBuf| path.extension().is_some_and(|ending| SOURCES.iter().any(|known| ending == *known));
    let read = |path: &PathBuf| fs::read_to_string(repository.root().join(path)).unwrap_or_default();
    let mut text = String::new();
    for path in files.iter().filter(is_source) {
        text.push_str(&read(path));
        if text.len() > MAX_SOURCE_BYTES {
            break;
        }
    }
    Ok(text)
}

/// Endings of sources.
const SOURCES: [&str; 11] = ["c", "cc", "cpp", "cu", "h", "rs", "jl", "py", "sh", "go", "zig"];
/// Most text that is looked through.
const MAX_SOURCE_BYTES: usize = 4 << 20;

/// Ignored files that hold data, for programs whose builds leave other files.
pub(super) fn ignored_beside_builds(ignored: &[PathBuf]) -> BTreeSet<PathBuf> {
    let is_data = |path: &PathBuf| {
        let in_folder = path.components().any(|part| DATA_FOLDERS.iter().any(|name| part.as_os_str() == *name));
        let name = path.to_string_lossy();
        in_folder || DATA_FILES.iter().any(|end| name.ends_with(end))
    };
    ignored_data(&ignored.iter().filter(|path| is_data(path)).cloned().collect::<Vec<_>>())
}

/// Files that git ignores and that look like data; of several in a folder, the folder.
pub(super) fn ignored_data(ignored: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let is_below_another = |path: &Path| path.ancestors().skip(1).any(|above| ignored.iter().any(|path| path == above));
    for path in ignored.iter().filter(|path| !is_below_another(path)) {
        let is_other = path.components().any(|part| NOT_DATA.iter().any(|name| part.as_os_str() == *name));
        let name = path.to_string_lossy();
        let name = name.trim_end_matches('/');
        if !is_other && !NOT_DATA_FILES.iter().any(|end| name.ends_with(end)) {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            folders.entry(folder).or_default().push(PathBuf::from(name));
        }
    }
    let is_top = |folder: &PathBuf| folder.as_os_str().is_empty();
    folders
        .into_iter()
        .flat_map(|(folder, files)| match files[..] {
            [_, _, ..] if !is_top(&folder) => vec![folder],
            _ => files,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_what_is_ignored_and_is_not_a_cache() {
        let ignored = [
            "data/a/train.bin",
            "data/a/val.bin",
            "__pycache__/",
            "out/ckpt.pt",
            "tokens.npy",
            "more/one.bin",
            "m.pt",
            ".venv/",
            "a/b/__pycache__/",
        ];
        let found = ignored_data(&ignored.map(PathBuf::from));
        assert_eq!(found, ["data/a", "more/one.bin", "tokens.npy"].map(PathBuf::from).into());
    }

    #[test]
    fn builds_leave_files_that_are_not_data() {
        let ignored = ["train", "target/", "a.o", "tokens.bin", "data/x/", "obj/a.d"].map(PathBuf::from);
        assert_eq!(ignored_beside_builds(&ignored), ["data/x", "tokens.bin"].map(PathBuf::from).into());
    }
}

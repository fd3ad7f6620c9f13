//! The identity of data that git does not track: what a comparison was made with is part of its record.
//!
//! A hash of gigabytes takes seconds. It is kept with the names, sizes and times of the files, and computed again where
//! one of these differs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pairbench::files;
use serde::{Deserialize, Serialize};

use crate::{LoopError, Progress};

/// Above this, hashing is announced.
const LARGE_BYTES: u64 = 1 << 30;

/// A hash, and what it is of.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Hash of the names, sizes and times.
    looks: String,
    content: String,
}

/// What the files below a path look like from outside.
struct Looks {
    hash: String,
    bytes: u64,
    files: Vec<PathBuf>,
}

/// BLAKE3 of the content of each path, by its name. Hashes are kept below the loop's folder `state`.
///
/// # Errors
/// [`LoopError::usage`] where a path is not there.
pub fn hashes(
    data: &[(PathBuf, PathBuf)],
    state: &Path,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, String>, LoopError> {
    if data.is_empty() {
        return Ok(BTreeMap::new());
    }
    let path = state.join("data.json");
    let mut kept: BTreeMap<String, Kept> =
        fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut found = BTreeMap::new();
    let mut is_new = false;
    for (from, name) in data {
        let real = fs::canonicalize(from).map_err(|error| {
            LoopError::usage(format!("`data` of `loop.toml` names `{}`: {error}", from.display()))
                .hint("prepare the data as the trainer's instructions say, or name the place where it is")
        })?;
        let failed = |error: io::Error| LoopError::io("read", &real, &error);
        let looks = looks(&real).map_err(failed)?;
        let key = real.display().to_string();
        if kept.get(&key).is_none_or(|kept| kept.looks != looks.hash) {
            if looks.bytes >= LARGE_BYTES {
                progress.note(&format!(
                    "reading {} ({:.1} GiB) once, to know it again",
                    key,
                    looks.bytes as f64 / (1 << 30) as f64
                ));
            }
            let content = content(&real, &looks.files).map_err(failed)?;
            kept.insert(key.clone(), Kept { looks: looks.hash, content });
            is_new = true;
        }
        if let Some(kept) = kept.get(&key) {
            found.insert(name.display().to_string(), kept.content.clone());
        }
    }
    if is_new {
        let json = serde_json::to_vec_pretty(&kept)
            .map_err(|error| LoopError::failed(format!("hashes of data cannot be written: {error}")))?;
        files::write(&path, &json)?;
    }
    Ok(found)
}

/// The files below a path, links followed, in the order of their names.
fn looks(path: &Path) -> io::Result<Looks> {
    let (mut hasher, mut bytes, mut files) = (blake3::Hasher::new(), 0, Vec::new());
    let mut folders = Vec::new();
    if path.is_dir() {
        folders.push((path.to_owned(), vec![fs::canonicalize(path)?]));
    } else {
        files.push(path.to_owned());
    }
    while let Some((folder, above)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let real = fs::canonicalize(&path)?;
            if !real.is_dir() {
                files.push(path);
            } else if !above.contains(&real) {
                folders.push((path, [above.clone(), vec![real]].concat()));
            }
        }
    }
    files.sort();
    for file in &files {
        let data = fs::metadata(file)?;
        bytes += data.len();
        let seen =
            [data.len() as i64, data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec(), data.ino() as i64];
        hasher.update(format!("{} {seen:?}\n", file.display()).as_bytes());
    }
    Ok(Looks { hash: hasher.finalize().to_hex().to_string(), bytes, files })
}

/// Hash of the names below `root` and the content of each.
fn content(root: &Path, files: &[PathBuf]) -> io::Result<String> {
    let mut all = blake3::Hasher::new();
    for file in files {
        let mut content = blake3::Hasher::new();
        io::copy(&mut fs::File::open(file)?, &mut content)?;
        let name = file.strip_prefix(root).unwrap_or(file);
        all.update(format!("{} {}\n", name.display(), content.finalize().to_hex()).as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use pairbench::progress::Quiet;

    use super::*;

    #[test]
    fn content_and_names_count_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (data, state) = (dir.path().join("data"), dir.path().join("state"));
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::create_dir_all(&state).unwrap();
        fs::write(data.join("train.bin"), [1; 5000]).unwrap();
        fs::write(data.join("sub/val.bin"), [2; 5000]).unwrap();
        // A link to the folder above is not followed for ever.
        std::os::unix::fs::symlink("..", data.join("sub/up")).unwrap();
        let of =
            |name: &str| hashes(&[(dir.path().join(name), "data".into())], &state, &Quiet).unwrap()["data"].clone();
        let first = of("data");
        assert_eq!(of("data"), first);
        fs::rename(&data, dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &data).unwrap();
        assert_eq!((of("data"), of("moved")), (first.clone(), first.clone()));
        fs::write(dir.path().join("moved/train.bin"), [3; 5000]).unwrap();
        let other = of("data");
        assert_ne!(other, first);
        fs::rename(dir.path().join("moved/train.bin"), dir.path().join("moved/training.bin")).unwrap();
        assert_ne!(of("data"), other);
        // A broken file of kept hashes costs time only.
        fs::write(state.join("data.json"), "{").unwrap();
        fs::rename(dir.path().join("moved/training.bin"), dir.path().join("moved/train.bin")).unwrap();
        assert_eq!(of("data"), other);
        let error = hashes(&[(dir.path().join("nowhere"), "data".into())], &state, &Quiet).unwrap_err();
        assert!(error.to_string().contains("nowhere") && error.exit_code() == 2, "{error}");
    }
}

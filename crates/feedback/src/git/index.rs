//! A private index: trees are made in it, and the user's index stays as it is.
//!
//! Git takes a file for unchanged when size and times are those in the index, unless the file is as young as the index
//! itself: then git reads the file ("racily clean"). A copy of the index must therefore keep the original's own time; a
//! younger copy would hide a change made in the second in which the original was written.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Git, Repository, diff::RawChange};
use crate::LoopError;

const PREFIX: &str = "alpha-loop-index-";

/// An index of this age was left by a process that died.
const LEFT_BEHIND_S: u64 = 24 * 3600;

/// Vanishes when dropped.
pub(super) struct PrivateIndex<'a> {
    repository: &'a Repository,
    path: PathBuf,
}

impl<'a> PrivateIndex<'a> {
    /// An index without entries.
    pub(super) fn empty(repository: &'a Repository) -> PrivateIndex<'a> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        remove_left_behind(&repository.git_dir);
        let name = format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        PrivateIndex { repository, path: repository.git_dir.join(name) }
    }

    /// A copy of the user's index.
    pub(super) fn copy_of_users(repository: &'a Repository) -> Result<PrivateIndex<'a>, LoopError> {
        let index = PrivateIndex::empty(repository);
        if let Some(content) = IndexFile::read(&repository.index_path())? {
            content.write(&index.path)?;
        }
        Ok(index)
    }

    /// `git` on this index, in the repository's root.
    pub(super) fn git<const N: usize>(&self, arguments: [&str; N]) -> Git {
        self.repository.git(arguments).private_index(&self.path)
    }

    /// Sets entries, removes those with mode 0; conflicting entries are removed.
    pub(super) fn set_entries(&self, entries: Vec<u8>) -> Result<(), LoopError> {
        set_entries(self.git([]), entries)
    }

    /// The index as a tree.
    pub(super) fn write_tree(&self) -> Result<String, LoopError> {
        self.git(["write-tree"]).line()
    }
}

impl Drop for PrivateIndex<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // not there where nothing was written
    }
}

/// Sets entries of the index that `git` works on.
pub(super) fn set_entries(git: Git, entries: Vec<u8>) -> Result<(), LoopError> {
    if entries.is_empty() {
        return Ok(());
    }
    git.args(["update-index", "-z", "--add", "--remove", "--replace", "--index-info"]).input(entries).output().map(drop)
}

/// Appends what sets the entry to the new side of a change.
pub(super) fn push_new(entries: &mut Vec<u8>, change: &RawChange) {
    push(entries, &change.new_mode, &change.new_id, &change.path);
}

/// Appends what sets the entry to the old side of a change.
pub(super) fn push_old(entries: &mut Vec<u8>, change: &RawChange) {
    push(entries, &change.old_mode, &change.old_id, &change.path);
}

fn push(entries: &mut Vec<u8>, mode: &str, id: &str, path: &Path) {
    entries.extend_from_slice(format!("{mode} {id}\t").as_bytes());
    entries.extend_from_slice(path.as_os_str().as_bytes());
    entries.push(0);
}

/// The bytes of an index and its own time.
#[derive(PartialEq, Eq)]
pub(super) struct IndexFile {
    bytes: Vec<u8>,
    modified: SystemTime,
}

impl IndexFile {
    /// Reads an index file; none if there is none, which git treats as an empty index.
    pub(super) fn read(path: &Path) -> Result<Option<IndexFile>, LoopError> {
        // Git replaces the file by renaming, so bytes and time of an open one belong together.
        let read = |mut file: File| -> io::Result<IndexFile> {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(IndexFile { bytes, modified: file.metadata()?.modified()? })
        };
        match File::open(path).and_then(read) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LoopError::io("read", path, &error)),
        }
    }

    /// Writes it to a path that nobody reads yet.
    pub(super) fn write(&self, path: &Path) -> Result<(), LoopError> {
        File::create(path)
            .and_then(|mut file| {
                file.write_all(&self.bytes)?;
                file.set_modified(self.modified)
            })
            .map_err(|error| LoopError::io("write", path, &error))
    }

    /// Replaces the file at `path`, which may be read at any moment.
    pub(super) fn put_back(&self, path: &Path) -> Result<(), LoopError> {
        let temporary = path.with_file_name(format!("{PREFIX}{}-back", process::id()));
        self.write(&temporary)?;
        fs::rename(&temporary, path).map_err(|error| LoopError::io("write", path, &error))
    }
}

impl Repository {
    /// The user's index.
    pub(super) fn index_path(&self) -> PathBuf {
        self.git_dir.join("index")
    }
}

/// Uses the change time of the file's inode: a copied index has the modification time of its original.
fn remove_left_behind(folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
        let is_old = || entry.metadata().is_ok_and(|data| data.ctime() as u64 + LEFT_BEHIND_S < now);
        if is_ours && is_old() {
            let _ = fs::remove_file(entry.path()); // another process may be at it
        }
    }
}

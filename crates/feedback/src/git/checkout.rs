//! A folder that holds a tree, for builds: one tree after the other in the same place.
//!
//! Only files that differ are written, so that incremental builds stay incremental. Build tools compare times of
//! files, so a file that is written must be younger than all that an earlier build made of its old content, also when
//! both happened within one tick of the clock, or the clock was set back.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Git, Repository,
    diff::{self, SYMLINK},
    path_of, split_nul,
};
use crate::{LoopError, files::remove};

impl Repository {
    /// Makes the folder `into` hold exactly `tree`. Files that differ from it, also those that a build has changed, are
    /// written; others keep their times. What git ignores stays (that is where builds leave their intermediate files),
    /// all else that is not in the tree goes. Folders of submodules are left empty.
    ///
    /// The folder is no working tree that git knows of: its index is the file `<into>.index`, and HEAD, index and files
    /// of the user are not touched. The caller is the only one who works in `into`.
    pub fn checkout(&self, tree: &str, into: &Path) -> Result<(), LoopError> {
        let tree = &self.tree_of(tree)?;
        let stage = Stage { repository: self, folder: into, index: beside(into, ".index") };
        if stage.switch(tree).is_ok() {
            return Ok(());
        }
        // Git was cut off in here earlier (its lock makes it fail now), or the index is damaged: nothing tells which
        // files are what they seem. If that was not the reason, it comes up again.
        for leftover in [into, &stage.index, &beside(&stage.index, ".lock")] {
            remove(leftover)?;
        }
        stage.switch(tree)
    }
}

struct Stage<'a> {
    repository: &'a Repository,
    folder: &'a Path,
    index: PathBuf,
}

impl Stage<'_> {
    fn switch(&self, tree: &str) -> Result<(), LoopError> {
        fs::create_dir_all(self.folder).map_err(|error| LoopError::io("create", self.folder, &error))?;
        remove(&self.folder.join(".git"))?; // git itself would neither see nor remove it
        // Files that were touched only get their new times noted; exit code 1 says that some are really changed.
        self.git(["update-index", "-q", "--refresh"]).run()?;
        let on_disk = self.git(["diff-files", "--raw", "-z", "--no-abbrev", "--no-renames"]).output()?;
        let in_index =
            self.git(["diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", tree]).output()?;
        let mut changes = diff::raw_changes(&on_disk)?;
        changes.extend(diff::raw_changes(&in_index)?);
        let newest = if changes.is_empty() { None } else { newest_time(self.folder)? };
        self.git(["read-tree", "--reset", "-u", tree]).output()?;
        self.git(["clean", "-ffdq"]).output()?;
        let Some(newest) = newest else { return Ok(()) };
        // A link that points elsewhere shows other content with that content's old time.
        let is_link = |mode: &str| mode == SYMLINK;
        let paths = if changes.iter().any(|change| is_link(&change.old_mode) || is_link(&change.new_mode)) {
            split_nul(&self.git(["ls-files", "-z"]).output()?).map(path_of).collect()
        } else {
            changes.into_iter().map(|change| change.path).collect::<Vec<_>>()
        };
        paths.iter().try_for_each(|path| {
            let path = self.folder.join(path);
            make_younger(&path, newest).map_err(|error| LoopError::io("set the time of", &path, &error))
        })
    }

    fn git<const N: usize>(&self, arguments: [&str; N]) -> Git {
        Git::new(self.folder)
            .private_index(&self.index)
            .setting("core.sparseCheckout=false")
            .variable("GIT_DIR", &self.repository.git_dir)
            .variable("GIT_WORK_TREE", self.folder)
            .args(arguments)
    }
}

/// The latest time of anything below a folder.
fn newest_time(folder: &Path) -> Result<Option<SystemTime>, LoopError> {
    let mut newest = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut look = || -> io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let data = entry.metadata()?; // of a link itself
                newest = newest.max(Some(data.modified()?));
                if data.is_dir() {
                    folders.push(entry.path());
                }
            }
            Ok(())
        };
        look().map_err(|error| LoopError::io("read", &folder, &error))?;
    }
    Ok(newest)
}

/// Sees to it that a file's time lies after `newest`.
fn make_younger(path: &Path, newest: SystemTime) -> io::Result<()> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|data| data.is_file()); // else deleted, or a link
    // File systems differ in how finely they keep times: the coarsest in steps of two seconds.
    for step in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(2)] {
        if !is_file || fs::metadata(path)?.modified()? > newest {
            break;
        }
        File::open(path)?.set_modified(SystemTime::now().max(newest + step))?;
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

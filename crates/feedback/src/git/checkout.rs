//! A folder that holds a tree, for builds: one tree after the other in the same place.
//!
//! Only files that differ are written, so that incremental builds stay incremental. Build tools compare times of files,
//! so a written file must be younger than everything that an earlier build made of its old content, even if both
//! happened within one clock tick or the clock was set back.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{
    Repository,
    diff::{self, SYMLINK},
    path_of,
    plain::{Elsewhere, PlainGit},
    split_nul,
};
use pairbench::files::remove;

use crate::LoopError;

impl Repository {
    /// Makes the folder `into` hold exactly `tree`, byte for byte. Files that differ from it, also those that a build
    /// has changed, are written; others keep their times. Files that the tree's own `.gitignore` names stay (builds
    /// leave their intermediate files there); all other files that are not in the tree are removed. Folders of
    /// submodules are left empty.
    ///
    /// The user's git does not know the folder as a working tree: its git folder is `<into>.git`, and the user's HEAD,
    /// index and files are not touched. Nobody but the caller works in `into`.
    ///
    /// # Errors
    /// [`LoopError::refused`] where the tree has a link that leads outside of it, or a pointer of git-lfs.
    pub fn checkout(&self, tree: &str, into: &Path) -> Result<(), LoopError> {
        self.lay_out(tree, &PlainGit::new(self, into))
    }

    /// The same for a folder that git sees elsewhere.
    pub fn checkout_elsewhere(&self, tree: &str, into: &Path, elsewhere: Elsewhere) -> Result<(), LoopError> {
        self.lay_out(tree, &PlainGit::elsewhere(self, into, elsewhere))
    }

    fn lay_out(&self, tree: &str, git: &PlainGit<'_>) -> Result<(), LoopError> {
        let tree = &self.tree_of(tree)?;
        self.check_layout(tree, &[])?;
        if git.prepare().and_then(|()| switch(git, tree)).is_ok() {
            return Ok(());
        }
        // Git was killed here earlier (its lock makes it fail now), or the index is damaged: no file can be trusted. If
        // that was not the reason, the second attempt fails too.
        remove(git.outside())?;
        git.forget()?;
        git.prepare()?;
        switch(git, tree)
    }
}

fn switch(git: &PlainGit<'_>, tree: &str) -> Result<(), LoopError> {
    let folder = git.outside();
    remove(&folder.join(".git"))?; // git itself would neither see nor remove it
    // For files that were only touched this notes the new times; exit code 1 means that some have really changed.
    git.git(["update-index", "-q", "--refresh"]).run()?;
    let on_disk = git.git(["diff-files", "--raw", "-z", "--no-abbrev", "--no-renames"]).output()?;
    let in_index = git.git(["diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", tree]).output()?;
    let mut changes = diff::raw_changes(&on_disk)?;
    changes.extend(diff::raw_changes(&in_index)?);
    let newest = if changes.is_empty() { None } else { newest_time(folder)? };
    git.git(["read-tree", "--reset", "-u", tree]).output()?;
    git.git(["clean", "-ffdq"]).output()?;
    let Some(newest) = newest else { return Ok(()) };
    // A link with a new target shows other content with that content's old time.
    let is_link = |mode: &str| mode == SYMLINK;
    let paths = if changes.iter().any(|change| is_link(&change.old_mode) || is_link(&change.new_mode)) {
        split_nul(&git.git(["ls-files", "-z"]).output()?).map(path_of).collect()
    } else {
        changes.into_iter().map(|change| change.path).collect::<Vec<_>>()
    };
    paths.iter().try_for_each(|path| {
        let path = folder.join(path);
        make_younger(&path, newest).map_err(|error| LoopError::io("set the time of", &path, &error))
    })
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

/// Makes a file's time later than `newest`.
fn make_younger(path: &Path, newest: SystemTime) -> io::Result<()> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|data| data.is_file()); // else deleted, or a link
    // File systems differ in the resolution of times: the coarsest is two seconds.
    for step in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(2)] {
        if !is_file || fs::metadata(path)?.modified()? > newest {
            break;
        }
        File::open(path)?.set_modified(SystemTime::now().max(newest + step))?;
    }
    Ok(())
}

//! Reads the content of trees and the order of commits.

use std::path::{Path, PathBuf};

use super::{LogEntry, Repository, index::set_entries, path_of, plain::PlainGit, split_nul};
use crate::LoopError;

impl Repository {
    /// Makes the folder `into`, which must not exist yet, with files and folders of a tree under their paths, byte for
    /// byte.
    ///
    /// # Errors
    /// [`LoopError::usage`] where the tree has none of that name; [`LoopError::refused`] where it has a link that leads
    /// outside or a pointer of git-lfs.
    pub fn extract(&self, tree: &str, paths: &[PathBuf], into: &Path) -> Result<(), LoopError> {
        self.check_layout(tree, paths)?;
        let git = self.part_of(tree, paths, into)?;
        let done = git.git(["checkout-index", "--all", "--quiet"]).output().map(drop);
        git.forget()?;
        done
    }

    /// The files in which `folder` differs from what [`Repository::extract`] would make: changed, gone or added.
    pub fn differences(&self, tree: &str, paths: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>, LoopError> {
        let git = self.part_of(tree, paths, folder)?;
        let found = git.differences();
        git.forget()?;
        found
    }

    /// A git folder whose index holds a part of a tree, and which knows nothing yet of the files in `folder`.
    fn part_of<'a>(&'a self, tree: &str, paths: &[PathBuf], folder: &'a Path) -> Result<PlainGit<'a>, LoopError> {
        let mut listed = Vec::new();
        for path in paths {
            let found =
                self.git(["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", tree, "--"]).args([path]);
            let found = found.output()?;
            if found.is_empty() {
                return Err(LoopError::usage(format!("`{}` is not in the tree of the baseline", path.display()))
                    .hint("`inputs` of `loop.toml` are files that git tracks"));
            }
            listed.extend(found);
        }
        let git = PlainGit::new(self, folder);
        git.forget()?;
        git.prepare()?;
        set_entries(git.git([]), listed)?;
        Ok(git)
    }

    /// The content of a file of a tree; none if the tree has no such file.
    pub fn read_file(&self, tree: &str, path: &str) -> Result<Option<Vec<u8>>, LoopError> {
        let listed = self.git(["ls-tree", "-z", "--full-tree", tree, "--", path]).output()?;
        if listed.is_empty() {
            return Ok(None);
        }
        self.git(["cat-file", "blob", &format!("{tree}:{path}")]).output().map(Some)
    }

    /// Whether a tree has a file or folder.
    pub fn holds(&self, tree: &str, path: &Path) -> Result<bool, LoopError> {
        let listed =
            self.git(["--literal-pathspecs", "ls-tree", "-z", "--full-tree", tree, "--"]).args([path]).output()?;
        Ok(!listed.is_empty())
    }

    /// Hash of files and whole folders of a tree: names, modes and contents.
    pub fn hash_of(&self, tree: &str, paths: &[PathBuf]) -> Result<String, LoopError> {
        if paths.is_empty() {
            return Ok(String::new());
        }
        let named = paths.iter().map(|path| path.as_os_str().to_owned());
        let listed = self.git(["--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", tree, "--"]).args(named);
        Ok(blake3::hash(&listed.output()?).to_hex().to_string())
    }

    /// Every file of a tree.
    pub fn files(&self, tree: &str) -> Result<Vec<PathBuf>, LoopError> {
        let listed = self.git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", tree]).output()?;
        Ok(super::split_nul(&listed).map(super::path_of).collect())
    }

    /// Files and folders that git ignores, relative to the root; of a folder that is ignored as a whole only the folder,
    /// with a `/` at its end.
    pub fn ignored(&self) -> Result<Vec<PathBuf>, LoopError> {
        let listed =
            self.git(["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"]).output()?;
        Ok(split_nul(&listed).map(path_of).collect())
    }

    /// The commits after `from` up to `to` along first parents, the oldest first.
    pub fn first_parents(&self, from: &str, to: &str) -> Result<Vec<LogEntry>, LoopError> {
        let mut line = Vec::new();
        let mut next = to.to_owned();
        while next != from {
            let Some(entry) = self.log(&format!("{next}^!"))?.into_iter().next() else {
                return Err(LoopError::failed(format!("the commit `{next}` is not in this repository")));
            };
            let Some(parent) = entry.parents.first().cloned() else {
                return Err(LoopError::usage("the good commit is not among the first parents of the bad one"));
            };
            line.push(entry);
            next = parent;
        }
        line.reverse();
        Ok(line)
    }
}

impl LogEntry {
    /// Subject and body, as they were written.
    pub fn message(&self) -> String {
        format!("{}\n\n{}", self.subject, self.body)
    }
}

//! The working tree as a tree object, and references that keep it.
//!
//! A snapshot has the tracked files and the untracked ones that git does not ignore, as they are on disk; deleted files
//! are not in it. Submodules are as the index has them. Other repositories inside this one are not part of it. Files
//! that match `unmeasured` (ledger, runs) are taken from HEAD, whatever is on disk or staged. Files that git was told
//! not to check (`skip-worktree`, `assume-unchanged`) are checked; files that a sparse checkout leaves out are as the
//! index has them.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use globset::GlobSet;

use super::{
    Repository,
    diff::{self, ABSENT},
    index::{PrivateIndex, push_new, push_old},
    path_of, split_nul,
};
use crate::LoopError;

/// Untracked files of more than this are probably not meant to be part of a change.
const MAX_UNTRACKED_BYTES: u64 = 256 << 20;

const REFERENCES: &str = "refs/alpha-loop";
/// The number of measured trees that stay in the repository.
const MOST_KEPT: usize = 50;

/// Identity for scratch commits of users without one.
const FALLBACK_NAME: &str = "alpha loop";
const FALLBACK_EMAIL: &str = "alpha-loop@localhost";

/// The working tree at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The tree object.
    pub tree: String,
    /// Files of it that the index did not have.
    pub untracked: Vec<PathBuf>,
    /// Files in which it differs from HEAD, the untracked ones included.
    pub changed: Vec<PathBuf>,
}

impl Repository {
    /// Makes a tree of the working tree. The user's index, stash and files stay untouched; no reference keeps the tree
    /// yet, see [`Repository::keep`].
    ///
    /// # Errors
    /// [`LoopError::usage`] if a merge or the like is in progress, or untracked files are too large to be meant as part
    /// of the change.
    pub fn snapshot(&self, unmeasured: &GlobSet) -> Result<Snapshot, LoopError> {
        if let Some(what) = self.merge_in_progress()? {
            let message = format!("{what} is under way in `{}`", self.root().display());
            return Err(LoopError::usage(message).hint("finish it or abort it first"));
        }
        let head = self.head()?;
        let index = PrivateIndex::copy_of_users(self)?;
        self.look_at_all(&index)?;
        let on_disk =
            index.git(["diff-files", "--raw", "-z", "--no-abbrev", "--no-renames", "--ignore-submodules=all"]);
        let untracked = index.git(["ls-files", "--others", "--exclude-standard", "-z"]).output()?;
        let is_measured = |path: &PathBuf| !unmeasured.is_match(path);
        let untracked: Vec<PathBuf> = split_nul(&untracked)
            .filter(|path| !path.ends_with(b"/")) // a repository of its own
            .map(path_of)
            .filter(is_measured)
            .collect();
        self.check_size(&untracked)?;
        check_names(&untracked)?;

        // Deletions by name, before the rest: a file may have taken the place of a folder or the other way round.
        let (mut deleted, mut written) = (Vec::new(), Vec::new());
        for change in diff::raw_changes(&on_disk.output()?)?.iter().filter(|change| is_measured(&change.path)) {
            if change.new_mode == ABSENT {
                push_new(&mut deleted, change);
            } else {
                push_path(&mut written, &change.path);
            }
        }
        for path in &untracked {
            push_path(&mut written, path);
        }
        index.set_entries(deleted)?;
        index.git(["update-index", "-z", "--add", "--remove", "--replace", "--stdin"]).input(written).output()?;

        let staged = index.git(["diff-index", "--cached", "--raw", "-z", "--no-abbrev", "--no-renames", &head.tree]);
        let mut from_head = Vec::new();
        for change in diff::raw_changes(&staged.output()?)?.iter().filter(|change| !is_measured(&change.path)) {
            push_old(&mut from_head, change);
        }
        index.set_entries(from_head)?;
        let tree = index.write_tree()?;
        let changed = self.changed_files(&head.tree, &tree)?;
        Ok(Snapshot { tree, untracked, changed })
    }

    /// Has an index check every file that is on disk, whatever the user told git.
    fn look_at_all(&self, index: &PrivateIndex<'_>) -> Result<(), LoopError> {
        let listed = index.git(["ls-files", "-v", "-z"]).output()?;
        let (mut assumed, mut skipped) = (Vec::new(), Vec::new());
        for line in split_nul(&listed) {
            let [mark, b' ', path @ ..] = line else { continue };
            let path = path_of(path);
            if mark.is_ascii_lowercase() {
                push_path(&mut assumed, &path);
            }
            if mark.eq_ignore_ascii_case(&b'S') && self.root().join(&path).symlink_metadata().is_ok() {
                push_path(&mut skipped, &path);
            }
        }
        for (option, paths) in [("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)] {
            if !paths.is_empty() {
                index.git(["update-index", option, "-z", "--stdin"]).input(paths).output()?;
            }
        }
        Ok(())
    }

    fn check_size(&self, untracked: &[PathBuf]) -> Result<(), LoopError> {
        let size = |path: &PathBuf| fs::symlink_metadata(self.root().join(path)).map_or(0, |data| data.len());
        let total: u64 = untracked.iter().map(size).sum();
        match untracked.iter().max_by_key(|path| size(path)) {
            Some(largest) if total > MAX_UNTRACKED_BYTES => {
                let message = format!(
                    "untracked files of {} MiB would become part of the candidate, the largest is `{}`; at most {} MiB can",
                    total >> 20,
                    largest.display(),
                    MAX_UNTRACKED_BYTES >> 20
                );
                Err(LoopError::usage(message)
                    .hint("name what does not belong to the trainer in `.gitignore`; `git add` what does"))
            }
            _ => Ok(()),
        }
    }

    /// The tree without the files that match `unmeasured`: two trees with the same one are the same trainer.
    pub fn measured_tree(&self, tree: &str, unmeasured: &GlobSet) -> Result<String, LoopError> {
        let tree = self.tree_of(tree)?;
        let listed = self.git(["ls-tree", "-r", "-z", "--name-only", "--full-tree", &tree]).output()?;
        let mut removed = Vec::new();
        for path in split_nul(&listed).map(path_of).filter(|path| unmeasured.is_match(path)) {
            push_path(&mut removed, &path);
        }
        if removed.is_empty() {
            return Ok(tree);
        }
        let index = PrivateIndex::empty(self);
        index.git(["read-tree", &tree]).output()?;
        index.git(["update-index", "-z", "--force-remove", "--stdin"]).input(removed).output()?;
        index.write_tree()
    }

    /// The tree with these files as they are on disk, byte for byte: whether git ignores them or not, and without
    /// filters. Their names must have no line break.
    pub fn with_files(&self, tree: &str, paths: &[PathBuf]) -> Result<String, LoopError> {
        let index = PrivateIndex::empty(self);
        index.git(["read-tree", tree]).output()?;
        let named: Vec<u8> = paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\n"].concat()).collect();
        let hashes = self.git(["hash-object", "-w", "--no-filters", "--stdin-paths"]).input(named).output()?;
        let hashes = String::from_utf8_lossy(&hashes).into_owned();
        let mut entries = Vec::new();
        for (hash, path) in hashes.lines().zip(paths) {
            entries.extend_from_slice(format!("100644 {hash}\t").as_bytes());
            push_path(&mut entries, path);
        }
        index.git(["update-index", "-z", "--add", "--replace", "--index-info"]).input(entries).output()?;
        index.write_tree()
    }

    /// Makes a commit of a tree and keeps it as `refs/alpha-loop/<label>`, so that what was measured exists. An earlier
    /// commit with that label is released. Moves no branch. Users without a configured name get a neutral one here.
    pub fn keep(&self, tree: &str, parent: &str, label: &str) -> Result<String, LoopError> {
        let message = format!("alpha loop: {label}\n\nThe working tree as it was measured.\n");
        let mut call = self.git(["commit-tree", "--no-gpg-sign", "-F", "-", "-p", parent, tree]);
        if !self.has_identity()? {
            for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
                call = call.variable(name, FALLBACK_NAME);
            }
            for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
                call = call.variable(name, FALLBACK_EMAIL);
            }
        }
        let commit = call.input(message.into_bytes()).line()?;
        self.git(["update-ref", "-m", "alpha loop: keep", &reference(label), &commit]).output()?;
        self.forget_oldest()?;
        Ok(commit)
    }

    /// Releases all but the newest [`MOST_KEPT`].
    fn forget_oldest(&self) -> Result<(), LoopError> {
        let listed = self.git(["for-each-ref", "--sort=-committerdate", "--format=%(refname)", REFERENCES]).output()?;
        let names = String::from_utf8_lossy(&listed);
        // References that other clones share do not hold measured trees.
        let measured = names.lines().filter(|name| !name.ends_with("/attempts"));
        measured.skip(MOST_KEPT).try_for_each(|name| self.git(["update-ref", "-d", name]).output().map(drop))
    }

    /// Whether git knows who the user is.
    pub(super) fn has_identity(&self) -> Result<bool, LoopError> {
        for name in ["GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"] {
            if !self.git(["var", name]).run()?.is_success() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Refuses untracked files with names that hold secrets, before a byte of them gets into git.
fn check_names(untracked: &[PathBuf]) -> Result<(), LoopError> {
    let Some(secret) = untracked.iter().find(|path| is_named_as_a_secret(path)) else { return Ok(()) };
    let message =
        format!("the untracked file `{}` would become part of the candidate and of its commit", secret.display());
    Err(LoopError::usage(message)
        .hint("such names hold secrets: put it in `.gitignore`, or `git add` it if it belongs to the trainer"))
}

fn is_named_as_a_secret(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_public = ["example", "sample", "template", ".pub"].iter().any(|word| name.contains(word));
    let begins = ["credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".env."];
    let ends = [".pem", ".key", ".p12", ".pfx", ".kdbx"];
    let is = [".env", ".netrc", ".pgpass", ".npmrc", ".pypirc", ".git-credentials", ".htpasswd"];
    !is_public
        && (is.contains(&name.as_str())
            || begins.iter().any(|start| name.starts_with(start))
            || ends.iter().any(|end| name.ends_with(end)))
}

fn reference(label: &str) -> String {
    format!("{REFERENCES}/{label}")
}

fn push_path(paths: &mut Vec<u8>, path: &Path) {
    paths.extend_from_slice(path.as_os_str().as_bytes());
    paths.push(0);
}

//! Differences between trees. A rename is a deletion and an addition.

use std::path::PathBuf;

use globset::GlobSet;

use super::{Git, Repository, path_of, split_nul};
use crate::LoopError;

/// Modes of git that matter here.
pub(super) const ABSENT: &str = "000000";
pub(super) const SYMLINK: &str = "120000";

/// An entry of the form `:100644 100755 <id> <id> M`, and its path.
pub(super) struct RawChange {
    /// [`ABSENT`] where the file was added.
    pub(super) old_mode: String,
    /// [`ABSENT`] where the file was deleted.
    pub(super) new_mode: String,
    pub(super) old_id: String,
    /// All zeros where the new side is a file of the working tree.
    pub(super) new_id: String,
    pub(super) path: PathBuf,
}

/// How large a change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffStat {
    /// Files that differ.
    pub files: usize,
    /// Lines that are only in the new tree; binary files have none.
    pub insertions: u64,
    /// Lines that are only in the old tree.
    pub deletions: u64,
}

impl Repository {
    /// Files that differ between two trees or commits, in git's order.
    pub fn changed_files(&self, old: &str, new: &str) -> Result<Vec<PathBuf>, LoopError> {
        let listed = self.diff_tree(["--name-only", "-z"], old, new).output()?;
        Ok(split_nul(&listed).map(path_of).collect())
    }

    /// How large the change between two trees or commits is.
    pub fn diff_stat(&self, old: &str, new: &str) -> Result<DiffStat, LoopError> {
        let listed = self.diff_tree(["--numstat", "-z"], old, new).output()?;
        let mut stat = DiffStat::default();
        for line in split_nul(&listed) {
            let text = String::from_utf8_lossy(line);
            let mut columns = text.splitn(3, '\t').map(|count| count.parse().unwrap_or(0)); // `-` for binary files
            stat.files += 1;
            stat.insertions += columns.next().unwrap_or(0);
            stat.deletions += columns.next().unwrap_or(0);
        }
        Ok(stat)
    }

    /// An id of a change that stays the same when its commit is rebased or cherry-picked. None where the trees are
    /// equal. Files that match `unmeasured` do not count.
    ///
    /// It is `git patch-id --verbatim` of the diff, which is `--stable` but respects white space: in Python white space
    /// has meaning.
    pub fn patch_id(&self, old: &str, new: &str, unmeasured: &GlobSet) -> Result<Option<String>, LoopError> {
        let (old, new) = (self.measured_tree(old, unmeasured)?, self.measured_tree(new, unmeasured)?);
        let options = ["--patch", "--full-index", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"];
        let diff = self
            .diff_tree(options, &old, &new)
            .setting("core.attributesFile=/dev/null")
            .variable("GIT_ATTR_NOSYSTEM", "1")
            .output()?;
        let answer = self.git(["patch-id", "--verbatim"]).input(diff).line()?;
        Ok(answer.split_whitespace().next().map(String::from))
    }

    /// Changes between two trees, with modes and ids.
    pub(super) fn raw_changes(&self, old: &str, new: &str) -> Result<Vec<RawChange>, LoopError> {
        raw_changes(&self.diff_tree(["--raw", "-z"], old, new).output()?)
    }

    fn diff_tree<const N: usize>(&self, options: [&str; N], old: &str, new: &str) -> Git {
        self.git(["diff-tree", "-r", "--no-commit-id", "--no-renames", "--no-abbrev", "--no-color", "--no-ext-diff"])
            .args(["--no-textconv", "--diff-algorithm=myers", "--ignore-submodules=none", "--submodule=short"])
            .args(options)
            .args([old, new])
    }
}

/// Reads what `--raw -z` prints.
pub(super) fn raw_changes(listed: &[u8]) -> Result<Vec<RawChange>, LoopError> {
    let parts: Vec<&[u8]> = split_nul(listed).collect();
    let change = |pair: &[&[u8]]| {
        let [head, path] = pair else { return None };
        let head = str::from_utf8(head).ok()?.strip_prefix(':')?;
        let fields: Vec<String> = head.split(' ').map(String::from).collect();
        let [old_mode, new_mode, old_id, new_id, _] = <[String; 5]>::try_from(fields).ok()?;
        Some(RawChange { old_mode, new_mode, old_id, new_id, path: path_of(path) })
    };
    parts
        .chunks(2)
        .map(change)
        .collect::<Option<_>>()
        .ok_or_else(|| LoopError::failed("git listed changes in a form that is not known").hint("update git"))
}

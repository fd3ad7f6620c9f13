//! The repository, driven through the `git` program: trees are compared, kept and committed.
//!
//! Trees and commits are named by their full object ids. Everything works on trees: a private index turns the user's
//! working tree into one, so that the user's index, stash and files stay as they are. Only [`Repository::commit`] moves
//! a branch. Paths are relative to the repository's root and may hold any bytes.

mod checkout;
mod contents;
mod command;
mod commit;
mod diff;
mod index;
mod plain;
mod shared_files;
mod snapshot;

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use self::command::Git;
use crate::LoopError;

pub use self::{diff::DiffStat, plain::Elsewhere, shared_files::SharedFiles, snapshot::Snapshot};

/// The first version with `git patch-id --verbatim`, which also covers binary files.
const OLDEST_GIT: (u32, u32) = (2, 39);

/// A git repository with a working tree and at least one commit. Also one of several linked worktrees.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
    git_dir: PathBuf,
    common_dir: PathBuf,
}

/// The user's HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// Full name of the branch, such as `refs/heads/main`; none where HEAD is detached.
    pub branch: Option<String>,
}

/// A commit of the history, without its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The commit.
    pub id: String,
    /// Its parents, none for a root, several for a merge.
    pub parents: Vec<String>,
    /// When it was committed.
    pub time: Timestamp,
    /// First paragraph of the message, as one line.
    pub subject: String,
    /// The message after the first paragraph, including trailers.
    pub body: String,
    /// `Name: value` lines at the end of the message, unfolded, in order.
    pub trailers: Vec<(String, String)>,
}

impl Repository {
    /// The repository that `path` lies in.
    ///
    /// # Errors
    /// [`LoopError::usage`] where git is missing or too old, and where there is no repository, no working tree or no
    /// commit.
    pub fn open(path: &Path) -> Result<Repository, LoopError> {
        if !path.is_dir() {
            return Err(
                LoopError::usage(format!("`{}` is not a folder", path.display())).hint("name the trainer's repository")
            );
        }
        check_version(&Git::new(path).args(["version"]).line()?)?;
        let ask = |question: &str| Git::new(path).args(["rev-parse", "--path-format=absolute", question]);
        let kind = ask("--is-inside-work-tree").run()?;
        if !kind.is_success() {
            let message = format!("`{}` is in no git repository: {}", path.display(), kind.message());
            return Err(LoopError::usage(message).hint("go to the trainer's repository, or make one with `git init`"));
        }
        if kind.stdout != b"true\n" {
            let message = format!("`{}` is in a git repository without a working tree there", path.display());
            return Err(LoopError::usage(message).hint("`git worktree add` makes a working tree; work in that"));
        }
        let repository = Repository {
            root: ask("--show-toplevel").path()?,
            git_dir: ask("--git-dir").path()?,
            common_dir: ask("--git-common-dir").path()?,
        };
        if !repository.git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).run()?.is_success() {
            let message = format!("the repository `{}` has no commit yet", repository.root.display());
            return Err(LoopError::usage(message).hint("commit the trainer first: it is the first baseline"));
        }
        Ok(repository)
    }

    /// The working tree's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The git folder of this working tree: its HEAD and index.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The git folder that all linked worktrees share; elsewhere the same as [`Repository::git_dir`].
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// The folders of all working trees of this repository.
    pub fn worktrees(&self) -> Result<Vec<PathBuf>, LoopError> {
        let listed = self.git(["worktree", "list", "--porcelain", "-z"]).output()?;
        Ok(split_nul(&listed).filter_map(|line| line.strip_prefix(b"worktree ")).map(path_of).collect())
    }

    /// The user's HEAD.
    pub fn head(&self) -> Result<Head, LoopError> {
        let symbolic = self.git(["symbolic-ref", "--quiet", "HEAD"]).run()?;
        let branch = symbolic.is_success().then(|| symbolic.line());
        let commit = self.git(["rev-parse", "--verify", "HEAD^{commit}"]).line()?;
        let tree = self.tree_of(&commit)?;
        Ok(Head { commit, tree, branch })
    }

    /// The commit that a revision of the user's names: a branch, a tag, an abbreviated id, `HEAD~2`.
    ///
    /// # Errors
    /// [`LoopError::usage`] where it names none, or several.
    pub fn resolve(&self, revision: &str) -> Result<String, LoopError> {
        self.object(revision, "commit")
    }

    /// The tree of a commit. Of a tree, itself.
    pub fn tree_of(&self, commit: &str) -> Result<String, LoopError> {
        self.object(commit, "tree")
    }

    fn object(&self, revision: &str, kind: &str) -> Result<String, LoopError> {
        let unknown = || {
            LoopError::usage(format!("`{revision}` names no {kind} of this repository"))
                .hint("`git log --oneline` lists commits")
        };
        if revision.starts_with('-') || revision.contains('\0') {
            return Err(unknown()); // would be an option
        }
        let peeled = format!("{revision}^{{{kind}}}");
        let found = self.git(["rev-parse", "--verify", "--quiet", &peeled]).run()?;
        if found.is_success() { Ok(found.line()) } else { Err(unknown()) }
    }

    /// Whether `descendant` has `ancestor` in its history, or is it.
    pub fn is_ancestor(&self, ancestor: &str, descendant: &str) -> Result<bool, LoopError> {
        let answer = self.git(["merge-base", "--is-ancestor", ancestor, descendant]).run()?;
        match answer.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(answer.error()),
        }
    }

    /// The commits of a range such as `main~5..main`, or all that a revision reaches: children before parents.
    pub fn log(&self, range: &str) -> Result<Vec<LogEntry>, LoopError> {
        self.log_with(range, &[], None)
    }

    /// The commits of a range that changed a file, on any branch that was merged.
    pub fn log_of(&self, range: &str, path: &Path) -> Result<Vec<LogEntry>, LoopError> {
        self.log_with(range, &["--full-history"], Some(path))
    }

    /// A commit and its ancestors on all merged branches, children before parents, at most `most`.
    pub fn ancestors(&self, revision: &str, most: usize) -> Result<Vec<LogEntry>, LoopError> {
        self.log_with(revision, &[&format!("--max-count={most}")], None)
    }

    /// Files below a folder that some commit of a revision's history removed.
    pub fn taken_away(&self, revision: &str, folder: &Path) -> Result<Vec<PathBuf>, LoopError> {
        let listed = self
            .git(["--literal-pathspecs", "log", "-z", "-m", "--full-history", "--diff-filter=D", "--no-renames"])
            .args(["--name-only", "--format=", "--end-of-options", revision, "--"])
            .args([folder])
            .output()?;
        // Between commits there are line ends.
        Ok(split_nul(&listed).map(|name| path_of(name.trim_ascii_start())).collect())
    }

    fn log_with(&self, range: &str, options: &[&str], path: Option<&Path>) -> Result<Vec<LogEntry>, LoopError> {
        if range.starts_with('-') || range.contains('\0') {
            return Err(LoopError::usage(format!("`{range}` is not a range of commits")).hint("write `<from>..<to>`"));
        }
        let format = "--format=%H%x00%P%x00%ct%x00%s%x00%b%x00%(trailers:only=true,unfold=true)";
        let listed = self
            .git(["log", "-z", "--topo-order", "--no-show-signature", "--encoding=UTF-8", "--no-color", format])
            .args(options)
            .args(["--end-of-options", range, "--"])
            .args(path)
            .run()?;
        if !listed.is_success() {
            let message = format!("`{range}` is not a range of commits: {}", listed.message());
            return Err(LoopError::usage(message).hint("write `<from>..<to>`; `git log --oneline` lists commits"));
        }
        let text = String::from_utf8_lossy(&listed.stdout);
        let fields: Vec<&str> = text.split('\0').collect();
        let (commits, _) = fields.as_chunks();
        commits.iter().map(log_entry).collect()
    }

    /// An operation in progress in this working tree that moves HEAD or leaves files half done: a merge, a rebase, a
    /// cherry-pick, a revert, a bisection, or unresolved conflicts. Callers refuse then.
    pub fn merge_in_progress(&self) -> Result<Option<&'static str>, LoopError> {
        let files = [
            ("MERGE_HEAD", "a merge"),
            ("rebase-merge", "a rebase"),
            ("rebase-apply", "a rebase"),
            ("BISECT_LOG", "a bisection"),
        ];
        if let Some((_, what)) = files.into_iter().find(|(name, _)| self.git_dir.join(name).exists()) {
            return Ok(Some(what));
        }
        for (name, what) in [("CHERRY_PICK_HEAD", "a cherry-pick"), ("REVERT_HEAD", "a revert")] {
            if self.git(["rev-parse", "--verify", "--quiet", name]).run()?.is_success() {
                return Ok(Some(what));
            }
        }
        // Left between two picks of several.
        if self.git_dir.join("sequencer").exists() {
            return Ok(Some("a cherry-pick or revert of several commits"));
        }
        let unmerged = self.git(["ls-files", "--unmerged", "-z"]).output()?;
        Ok((!unmerged.is_empty()).then_some("a conflict that is not resolved"))
    }

    /// `git` in the repository's root.
    fn git<const N: usize>(&self, arguments: [&str; N]) -> Git {
        Git::new(&self.root).args(arguments)
    }
}

fn check_version(line: &str) -> Result<(), LoopError> {
    let mut numbers = line
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let found = numbers.next().zip(numbers.next());
    if found.is_some_and(|version| version >= OLDEST_GIT) {
        return Ok(());
    }
    let (major, minor) = OLDEST_GIT;
    Err(LoopError::usage(format!("found `{line}`; git {major}.{minor} or newer is needed")).hint("update git"))
}

fn log_entry([id, parents, seconds, subject, body, trailers]: &[&str; 6]) -> Result<LogEntry, LoopError> {
    let time = seconds.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let time = time.ok_or_else(|| LoopError::failed(format!("commit `{id}` has the impossible time `{seconds}`")))?;
    let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.trim().into(), value.trim().into()));
    Ok(LogEntry {
        id: (*id).into(),
        parents: parents.split_whitespace().map(String::from).collect(),
        time,
        subject: (*subject).into(),
        body: body.trim_end().into(),
        trailers: trailers.lines().filter_map(pair).collect(),
    })
}

/// The parts of output with `-z`.
fn split_nul(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty())
}

/// A path as git prints it.
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_dialect() {
        for line in ["git version 2.39.0", "git version 2.50.1 (Apple Git-155)", "git version 3.0.rc1"] {
            check_version(line).unwrap();
        }
        for line in ["git version 2.38.5", "git version 1.99", "git version", ""] {
            let error = check_version(line).unwrap_err();
            assert!(error.to_string().contains("2.39 or newer"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}

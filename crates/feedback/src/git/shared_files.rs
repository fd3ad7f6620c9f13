//! Small files that all clones of a repository share: the tree of a commit under a reference of the loop, which is on
//! no branch. Linked worktrees see the same reference; push and fetch transfer it; two of its histories merge by having
//! the files of both.

use std::collections::BTreeMap;

use super::{Repository, split_nul};
use crate::LoopError;

/// Fetched references of other clones.
const REMOTES: &str = "refs/alpha-loop/remotes";
/// How often we try again because another loop has written meanwhile.
const TRIES: usize = 10;
/// The loop's own files are far shorter.
const MAX_FILE_BYTES: usize = 16_384;
/// Commits of the reference name a neutral author.
const IDENTITY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "alpha loop"),
    ("GIT_COMMITTER_NAME", "alpha loop"),
    ("GIT_AUTHOR_EMAIL", "alpha-loop@localhost"),
    ("GIT_COMMITTER_EMAIL", "alpha-loop@localhost"),
];

/// File name → bytes.
pub type SharedFiles = BTreeMap<String, Vec<u8>>;

impl Repository {
    /// The files of `refs/alpha-loop/<name>` here, and those of each clone that were fetched as
    /// `refs/alpha-loop/remotes/<remote>/<name>`: a set of files for each.
    pub fn shared_files(&self, name: &str) -> Result<Vec<SharedFiles>, LoopError> {
        self.shared_commits(name)?.iter().map(|commit| self.files_of(commit)).collect()
    }

    /// Replaces the files of `refs/alpha-loop/<name>` by the result of `merge` on all known sets. The commit descends
    /// from those of all clones, so that pushing it fast-forwards theirs.
    pub fn share_files(
        &self,
        name: &str,
        merge: &dyn Fn(Vec<SharedFiles>) -> Result<SharedFiles, LoopError>,
    ) -> Result<(), LoopError> {
        let reference = format!("refs/alpha-loop/{name}");
        let mut last = None;
        for _ in 0..TRIES {
            let own = self.reference(&reference)?;
            let commits = self.shared_commits(name)?;
            let known: Vec<SharedFiles> =
                commits.iter().map(|commit| self.files_of(commit)).collect::<Result<_, _>>()?;
            let own_files = own.as_ref().and_then(|_| known.first().cloned()).unwrap_or_default();
            let merged = merge(known)?;
            let mut parents: Vec<&String> = own.iter().collect();
            for commit in &commits {
                let is_known = match &own {
                    Some(own) => self.is_ancestor(commit, own)?,
                    None => false,
                };
                if !is_known {
                    parents.push(commit);
                }
            }
            if own.is_some() && merged == own_files && parents.len() == 1 {
                return Ok(());
            }
            let commit = self.commit_files(&merged, &parents)?;
            let before = own.as_deref().unwrap_or_default();
            let moved = self.git(["update-ref", "-m", "alpha loop: share", &reference, &commit, before]).run()?;
            if moved.is_success() {
                return Ok(());
            }
            last = Some(moved.error());
        }
        Err(last.unwrap_or_else(|| LoopError::failed(format!("cannot write `{reference}`"))))
    }

    /// The remotes from which `git fetch` does not yet fetch the shared files, each with the refspec to add.
    pub fn remotes_without_shared(&self, name: &str) -> Result<Vec<(String, String)>, LoopError> {
        let remotes = self.git(["remote"]).output()?;
        let mut found = Vec::new();
        for remote in String::from_utf8_lossy(&remotes).lines() {
            let refspec = format!("+refs/alpha-loop/{name}:{REMOTES}/{remote}/{name}");
            let configured = self.git(["config", "--get-all", &format!("remote.{remote}.fetch")]).run()?;
            if !String::from_utf8_lossy(&configured.stdout).lines().any(|line| line == refspec) {
                found.push((remote.to_owned(), refspec));
            }
        }
        Ok(found)
    }

    /// The commits of a shared reference: our own first, then those of other clones.
    fn shared_commits(&self, name: &str) -> Result<Vec<String>, LoopError> {
        let mut commits: Vec<String> = self.reference(&format!("refs/alpha-loop/{name}"))?.into_iter().collect();
        let listed = self.git(["for-each-ref", "--format=%(objectname) %(refname)", REMOTES]).output()?;
        for line in String::from_utf8_lossy(&listed).lines() {
            if let Some((commit, reference)) = line.split_once(' ')
                && reference.rsplit('/').next() == Some(name)
                && !commits.iter().any(|known| known == commit)
            {
                commits.push(commit.to_owned());
            }
        }
        Ok(commits)
    }

    fn reference(&self, name: &str) -> Result<Option<String>, LoopError> {
        let found = self.git(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]).run()?;
        Ok(found.is_success().then(|| found.line()))
    }

    fn files_of(&self, commit: &str) -> Result<SharedFiles, LoopError> {
        let listed = self.git(["ls-tree", "-z", "--full-tree", commit]).output()?;
        let (mut names, mut wanted) = (Vec::new(), Vec::new());
        for entry in split_nul(&listed) {
            let entry = String::from_utf8_lossy(entry);
            let Some((head, name)) = entry.split_once('\t') else { continue };
            let mut head = head.split(' ').skip(1);
            if head.next() == Some("blob")
                && let Some(hash) = head.next()
            {
                names.push(name.to_owned());
                wanted.extend(format!("{hash}\n").into_bytes());
            }
        }
        if names.is_empty() {
            return Ok(SharedFiles::new());
        }
        let bytes = self.git(["cat-file", "--batch"]).input(wanted).output()?;
        let broken = || LoopError::failed(format!("the files of `{commit}` cannot be read"));
        let mut rest = bytes.as_slice();
        let mut files = SharedFiles::new();
        for name in names {
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
            let head = String::from_utf8_lossy(&rest[..end]);
            let size: usize = head.rsplit(' ').next().and_then(|size| size.parse().ok()).ok_or_else(broken)?;
            let content = rest.get(end + 1..).and_then(|rest| rest.get(..size)).ok_or_else(broken)?;
            files.insert(name, content[..size.min(MAX_FILE_BYTES)].to_vec());
            rest = rest.get(end + size + 2..).unwrap_or_default();
        }
        Ok(files)
    }

    fn commit_files(&self, files: &SharedFiles, parents: &[&String]) -> Result<String, LoopError> {
        let mut tree = Vec::new();
        for (name, content) in files {
            let hash = self.git(["hash-object", "-w", "--no-filters", "--stdin"]).input(content.clone()).line()?;
            tree.extend(format!("100644 blob {hash}\t{name}\0").into_bytes());
        }
        let tree = self.git(["mktree", "-z"]).input(tree).line()?;
        let mut call = self.git(["commit-tree", "--no-gpg-sign", "-F", "-"]);
        for parent in parents {
            call = call.args(["-p", parent]);
        }
        for (name, value) in IDENTITY {
            call = call.variable(name, value);
        }
        call.args([tree]).input(b"alpha loop: attempts\n".to_vec()).line()
    }
}

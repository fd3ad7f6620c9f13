//! Landing a tree on the user's branch.

use super::{
    Head, Repository,
    index::{IndexFile, push_new, set_entries},
};
use crate::LoopError;

impl Repository {
    /// Commits a tree on top of `expected`, the user's HEAD when the tree was made, and returns the commit. Identity
    /// and `commit.gpgsign` are the user's. No hook is run: the loop has its own gate, and a hook could change what was
    /// measured. The working tree's files stay as they are.
    ///
    /// In the user's index, the files that the commit changes are updated, and everything else that is staged stays.
    ///
    /// A crash at any moment leaves one of three states, none of which loses anything: everything as before; the change
    /// staged but HEAD as before (calling again continues from there); or everything done. This is why the index is
    /// written before the branch: in the other order, the user's next `git commit` would revert the change.
    ///
    /// # Errors
    /// [`LoopError::refused`] where HEAD is not at `expected` any more: nothing is changed then.
    pub fn commit(&self, tree: &str, message: &str, expected: &Head) -> Result<String, LoopError> {
        if let Some(what) = self.merge_in_progress()? {
            return Err(LoopError::refused(format!("{what} is under way")).hint("finish it or abort it first"));
        }
        self.check_head(expected)?;
        if !self.has_identity()? {
            return Err(LoopError::usage("git does not know who commits")
                .hint("`git config user.name <name>` and `git config user.email <address>`"));
        }
        let signs = self.git(["config", "--type=bool", "--default=false", "--get", "commit.gpgsign"]).line()?;
        let sign = if signs == "true" { "--gpg-sign" } else { "--no-gpg-sign" };
        let commit = self
            .git(["commit-tree", sign, "-F", "-", "-p", &expected.commit, tree])
            .interactive()
            .input(format!("{}\n", message.trim_end()).into_bytes())
            .line()?;

        let mut entries = Vec::new();
        for change in &self.raw_changes(&expected.tree, tree)? {
            push_new(&mut entries, change);
        }
        let before = IndexFile::read(&self.index_path())?;
        set_entries(self.git([]), entries)?;
        let after = IndexFile::read(&self.index_path())?;

        let subject = message.lines().next().unwrap_or_default();
        if let Err(error) = self.move_branch(&commit, subject, expected) {
            // Only if the index is still ours: whoever moved HEAD may have written one, too.
            if IndexFile::read(&self.index_path())? == after
                && let Some(before) = before
            {
                before.put_back(&self.index_path())?;
            }
            self.check_head(expected)?; // its message says why
            return Err(error);
        }
        // Exit code 1 says that other files are changed. Without it `git status` does the same work later.
        self.git(["update-index", "-q", "--refresh"]).run()?;
        Ok(commit)
    }

    /// Moves the branch, or a detached HEAD, if it is still at the expected commit.
    fn move_branch(&self, commit: &str, subject: &str, expected: &Head) -> Result<(), LoopError> {
        let reason = format!("commit: {subject}");
        let call = self.git(["update-ref", "-m", &reason]);
        let call = match &expected.branch {
            Some(branch) => call.args([branch]),
            None => call.args(["--no-deref", "HEAD"]),
        };
        call.args([commit, &expected.commit]).output().map(drop)
    }

    fn check_head(&self, expected: &Head) -> Result<(), LoopError> {
        let found = self.head()?;
        if found == *expected {
            return Ok(());
        }
        let message =
            format!("HEAD moved meanwhile: it was {}, it is {}; nothing is committed", expected.place(), found.place());
        Err(LoopError::refused(message)
            .hint("go back there, or measure again from here: what was measured stands on the earlier commit"))
    }
}

impl Head {
    /// Branch and short commit, for a message.
    fn place(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        match &self.branch {
            Some(branch) => format!("`{}` at `{commit}`", branch.strip_prefix("refs/heads/").unwrap_or(branch)),
            None => format!("detached at `{commit}`"),
        }
    }
}

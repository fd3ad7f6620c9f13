//! A git folder of our own beside a folder that trees are laid out in.
//!
//! A tree is laid out byte for byte: no filter, no conversion of line ends or encodings, no `$Id$`. Git has no switch
//! for that, and both its configuration and the attributes of the tree can ask for each of them. So the folder is the
//! working tree of a git folder with neither remotes nor settings, which borrows the repository's objects and whose
//! attributes, which take precedence, turn all of that off. The user's own configuration is not read.

use std::{
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{Git, Repository, diff::SYMLINK, path_of, split_nul};
use pairbench::files;

use crate::LoopError;

/// They take precedence over those of the tree.
const ATTRIBUTES: &str = "* -text -eol -crlf -ident -filter !working-tree-encoding\n";

/// A git-lfs pointer is a file that starts with this text and has at most [`MAX_LFS_POINTER_BYTES`].
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const MAX_LFS_POINTER_BYTES: u64 = 1024;

/// A file of a tree.
struct Entry {
    mode: String,
    id: String,
    /// None for a submodule.
    bytes: Option<u64>,
    path: PathBuf,
}

/// A folder that other processes see at another path than this one does.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where this process sees it.
    pub outside: PathBuf,
    /// The words that go before a command's own to run it where the folder is seen.
    pub wrapper: Vec<String>,
}

/// Works on `folder` as a working tree.
pub(super) struct PlainGit<'a> {
    repository: &'a Repository,
    folder: &'a Path,
    git_dir: PathBuf,
    elsewhere: Elsewhere,
}

impl<'a> PlainGit<'a> {
    /// For `folder`, with `<folder>.git` as its git folder. Nothing is made yet.
    pub(super) fn new(repository: &'a Repository, folder: &'a Path) -> PlainGit<'a> {
        PlainGit::elsewhere(repository, folder, Elsewhere { outside: folder.to_owned(), wrapper: Vec::new() })
    }

    /// The same for a folder that git sees elsewhere.
    pub(super) fn elsewhere(repository: &'a Repository, folder: &'a Path, elsewhere: Elsewhere) -> PlainGit<'a> {
        PlainGit { repository, folder, git_dir: beside(folder), elsewhere }
    }

    /// The folder, as this process sees it.
    pub(super) fn outside(&self) -> &Path {
        &self.elsewhere.outside
    }

    /// Makes both folders if they are not there, and writes the git folder's files.
    pub(super) fn prepare(&self) -> Result<(), LoopError> {
        let git_dir = beside(self.outside());
        for folder in [self.outside(), &git_dir.join("refs"), &git_dir.join("info")] {
            fs::create_dir_all(folder).map_err(|error| LoopError::io("create", folder, &error))?;
        }
        let format = self.repository.git(["rev-parse", "--show-object-format"]).line()?;
        let version = u8::from(format != "sha1");
        let extension =
            if format == "sha1" { String::new() } else { format!("[extensions]\nobjectFormat = {format}\n") };
        let config = format!(
            "[core]\nrepositoryFormatVersion = {version}\nbare = false\nfileMode = true\nsymlinks = true\n\
             ignoreCase = false\nprecomposeUnicode = false\nautocrlf = false\n{extension}"
        );
        for (name, text) in [("HEAD", "ref: refs/heads/none\n"), ("config", &config), ("info/attributes", ATTRIBUTES)] {
            let path = git_dir.join(name);
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                files::write(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Removes the git folder, and with it what git knows about the files in the folder.
    pub(super) fn forget(&self) -> Result<(), LoopError> {
        files::remove(&beside(self.outside()))
    }

    /// `git` in the folder.
    pub(super) fn git<const N: usize>(&self, arguments: [&str; N]) -> Git {
        Git::new(self.folder)
            .plain()
            .through(&self.elsewhere.wrapper)
            .private_index(&self.git_dir.join("index"))
            .variable("GIT_DIR", &self.git_dir)
            .variable("GIT_WORK_TREE", self.folder)
            .variable("GIT_OBJECT_DIRECTORY", self.repository.common_dir.join("objects"))
            .args(arguments)
    }

    /// The files of the index that are not in the folder byte for byte, and other files that are there, ignored or not.
    /// Every file is read; the index's knowledge of them is not trusted.
    pub(super) fn differences(&self) -> Result<Vec<PathBuf>, LoopError> {
        self.git(["update-index", "-q", "--refresh"]).run()?; // its exit code says what the next call says by name
        let mut found = self.git(["diff-files", "--name-only", "-z"]).output()?;
        found.extend(self.git(["ls-files", "--others", "-z"]).output()?);
        Ok(split_nul(&found).map(path_of).collect())
    }
}

impl Repository {
    /// Refuses a tree that cannot be laid out as it is: with links that lead outside of it, or git-lfs pointers in
    /// place of files. Checks only files below `paths`, or all files if that is empty.
    pub(super) fn check_layout(&self, tree: &str, paths: &[PathBuf]) -> Result<(), LoopError> {
        let mut looked_at = self.entries(tree, paths)?;
        looked_at
            .retain(|entry| entry.mode == SYMLINK || entry.bytes.is_some_and(|bytes| bytes <= MAX_LFS_POINTER_BYTES));
        let contents = self.blobs(looked_at.iter().map(|entry| entry.id.as_str()))?;
        for (entry, content) in looked_at.iter().zip(contents) {
            let path = entry.path.display();
            if entry.mode == SYMLINK && !stays_inside(&entry.path, &path_of(&content)) {
                let target = String::from_utf8_lossy(&content).into_owned();
                return Err(LoopError::refused(format!("the link `{path}` leads to `{target}`, outside of the tree"))
                    .hint("what is built must lie in the repository: put a copy there, or a relative link to a file of it"));
            }
            if entry.mode != SYMLINK && content.starts_with(LFS_POINTER) {
                return Err(LoopError::refused(format!("`{path}` is a pointer of git-lfs, not the file itself")).hint(
                    "trees are laid out as git has them: keep the file in git itself, or have the build make it from elsewhere",
                ));
            }
        }
        Ok(())
    }

    /// The files of a tree below `paths`, or all files.
    fn entries(&self, tree: &str, paths: &[PathBuf]) -> Result<Vec<Entry>, LoopError> {
        let named = paths.iter().map(|path| path.as_os_str());
        let listing =
            self.git(["--literal-pathspecs", "ls-tree", "-r", "-l", "-z", "--full-tree", tree, "--"]).args(named);
        let listed = listing.output()?;
        let unclear = || LoopError::failed(format!("git lists the tree `{tree}` in a way that is not known"));
        split_nul(&listed)
            .map(|line| {
                let tab = line.iter().position(|byte| *byte == b'\t').ok_or_else(unclear)?;
                let head = String::from_utf8_lossy(&line[..tab]);
                let mut words = head.split_ascii_whitespace();
                let mut word = || words.next().map(str::to_owned).ok_or_else(unclear);
                let (mode, _kind, id, bytes) = (word()?, word()?, word()?, word()?);
                Ok(Entry { mode, id, bytes: bytes.parse().ok(), path: path_of(&line[tab + 1..]) })
            })
            .collect()
    }

    /// The contents of blobs, in their order.
    fn blobs<'b>(&self, ids: impl Iterator<Item = &'b str>) -> Result<Vec<Vec<u8>>, LoopError> {
        let ids: Vec<&str> = ids.collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let said = self.git(["cat-file", "--batch"]).input((ids.join("\n") + "\n").into_bytes()).output()?;
        let mut rest = said.as_slice();
        ids.iter()
            .map(|id| {
                // `<id> blob <bytes>`, a line end, the content, a line end.
                let missing = || LoopError::failed(format!("the object `{id}` cannot be read"));
                let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(missing)?;
                let head = String::from_utf8_lossy(&rest[..end]).into_owned();
                let bytes = head.strip_prefix(&format!("{id} blob ")).and_then(|bytes| bytes.parse::<usize>().ok());
                let (start, bytes) = (end + 1, bytes.ok_or_else(missing)?);
                let content = rest.get(start..start + bytes).ok_or_else(missing)?.to_vec();
                rest = rest.get(start + bytes + 1..).unwrap_or_default();
                Ok(content)
            })
            .collect()
    }
}

fn beside(folder: &Path) -> PathBuf {
    let mut git_dir = OsString::from(folder);
    git_dir.push(".git");
    PathBuf::from(git_dir)
}

/// Whether a link of a tree leads to a place in the tree. `..` may only come first: after a name that is itself a link
/// it would depend on that link.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let folders_above = link.components().count() - 1;
    let steps_up = target.components().take_while(|part| *part == Component::ParentDir).count();
    let only_names =
        target.components().skip(steps_up).all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    only_names && steps_up <= folders_above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_inside_or_does_not() {
        for (link, target) in [("a", "b"), ("a/b/c", "../../d/e"), ("a", "./b"), ("a/b", ".."), ("a", "b//c/")] {
            assert!(stays_inside(Path::new(link), Path::new(target)), "{link} -> {target}");
        }
        for (link, target) in [("a", "/b"), ("a/b", "../../c"), ("a", ".."), ("a/b", "c/../d"), ("a/b", "./../c/../..")]
        {
            assert!(!stays_inside(Path::new(link), Path::new(target)), "{link} -> {target}");
        }
    }
}

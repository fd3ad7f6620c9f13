//! A repository in a temporary folder, and git's own view of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use feedback::git::Repository;
use globset::{Glob, GlobSet, GlobSetBuilder};
use tempfile::TempDir;

/// Path → (git's mode, content).
pub(crate) type Content = BTreeMap<PathBuf, (String, Vec<u8>)>;

pub(crate) struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// One commit on `main`: `a.txt`, `src/kernel.txt` of twelve lines, `perf/log.csv`, `.gitignore` (`target/`, `*.o`).
    pub(crate) fn new() -> Sandbox {
        let sandbox = Sandbox::without_commit();
        sandbox.write("a.txt", "one\n");
        sandbox.write("src/kernel.txt", lines(1..=12));
        sandbox.write("perf/log.csv", "row 1\n");
        sandbox.write(".gitignore", "target/\n*.o\n");
        sandbox.commit_all("first");
        sandbox
    }

    pub(crate) fn without_commit() -> Sandbox {
        let sandbox = Sandbox { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(sandbox.root()).unwrap();
        sandbox.git(["init", "--quiet", "--initial-branch=main"]);
        let config = "[user]\nname = Ada\nemail = ada@example.org\n[commit]\ngpgsign = false\n";
        File::options().append(true).open(sandbox.path(".git/config")).unwrap().write_all(config.as_bytes()).unwrap();
        sandbox
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Beside the repository.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::open(&self.root()).unwrap()
    }

    /// What git prints, without the last line's end.
    pub(crate) fn git<const N: usize>(&self, arguments: [&str; N]) -> String {
        git(&self.root(), arguments)
    }

    /// Of git where it may fail.
    pub(crate) fn try_git<const N: usize>(&self, arguments: [&str; N]) -> Output {
        git_command(&self.root()).args(arguments).output().unwrap()
    }

    pub(crate) fn commit_all(&self, message: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(["rev-parse", "HEAD"])
    }

    pub(crate) fn tree(&self, revision: &str) -> String {
        self.git(["rev-parse", &format!("{revision}^{{tree}}")])
    }

    /// The content of a tree, according to `git ls-tree` and `git cat-file`.
    pub(crate) fn content(&self, tree: &str) -> Content {
        let listed = self.try_git(["ls-tree", "-r", "-z", "--full-tree", tree]);
        assert!(listed.status.success());
        let entries = listed.stdout.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let tab = entry.iter().position(|byte| *byte == b'\t').unwrap();
                let head: Vec<&str> = str::from_utf8(&entry[..tab]).unwrap().split(' ').collect();
                let path = PathBuf::from(OsStr::from_bytes(&entry[tab + 1..]));
                let bytes = match head[1] {
                    "commit" => head[2].as_bytes().to_vec(),
                    _ => self.try_git(["cat-file", "blob", head[2]]).stdout,
                };
                (path, (head[0].to_owned(), bytes))
            })
            .collect()
    }

    pub(crate) fn names(&self, tree: &str) -> Vec<String> {
        self.content(tree).into_keys().map(|path| path.display().to_string()).collect()
    }

    /// Everything that a snapshot of the candidate must not change.
    pub(crate) fn state(&self) -> State {
        let git_dir = PathBuf::from(self.git(["rev-parse", "--path-format=absolute", "--git-dir"]));
        let index = git_dir.join("index");
        State {
            index: fs::read(&index).unwrap(),
            index_time: fs::metadata(&index).unwrap().modified().unwrap(),
            references: self.git(["for-each-ref"]),
            head: fs::read_to_string(git_dir.join("HEAD")).unwrap(),
            stash: self.git(["stash", "list", "--format=%H"]),
            files: folder_content(&self.root()),
            times: times(&self.root()),
            git_dir: fs::read_dir(&git_dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.starts_with("sharedindex.")) // git itself clears them away later
                .collect(),
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) index: Vec<u8>,
    index_time: SystemTime,
    references: String,
    head: String,
    stash: String,
    pub(crate) files: Content,
    times: BTreeMap<PathBuf, SystemTime>,
    git_dir: BTreeSet<String>,
}

/// What git prints in a folder, undisturbed by the environment that the test runs in.
#[track_caller]
pub(crate) fn git<const N: usize>(folder: &Path, arguments: [&str; N]) -> String {
    let output = git_command(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

/// Git without the settings of whoever runs the tests.
pub(crate) fn git_command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_EDITOR", "true").env("LC_ALL", "C");
    command
}

/// Every file below a folder but `.git`, in git's terms.
pub(crate) fn folder_content(folder: &Path) -> Content {
    walk(folder)
        .into_iter()
        .map(|path| {
            let data = fs::symlink_metadata(folder.join(&path)).unwrap();
            let entry = if data.is_symlink() {
                ("120000".into(), fs::read_link(folder.join(&path)).unwrap().as_os_str().as_bytes().to_vec())
            } else {
                let mode = if data.mode() & 0o100 == 0 { "100644" } else { "100755" };
                (mode.into(), fs::read(folder.join(&path)).unwrap())
            };
            (path, entry)
        })
        .collect()
}

pub(crate) fn times(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let time = |path: &PathBuf| fs::symlink_metadata(folder.join(path)).unwrap().modified().unwrap();
    walk(folder).into_iter().map(|path| (path.clone(), time(&path))).collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() != ".git" => folders.push(entry.path()),
                true => {}
                false if entry.file_name() == ".git" => {}
                false => found.push(entry.path().strip_prefix(folder).unwrap().to_owned()),
            }
        }
    }
    found
}

pub(crate) fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn globs<const N: usize>(globs: [&str; N]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob).unwrap());
    }
    set.build().unwrap()
}

/// `line 1` and so on, each on its line.
pub(crate) fn lines(numbers: impl IntoIterator<Item = u32>) -> String {
    numbers.into_iter().fold(String::new(), |text, number| format!("{text}line {number}\n"))
}

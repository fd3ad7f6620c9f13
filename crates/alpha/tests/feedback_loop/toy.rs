//! A repository made of the toy trainer, and `alpha loop` run in it.
//!
//! When a [`Toy`] is dropped, no process may be left that works in it, stopped or not.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::outcome::{Done, finish};

/// The trainer's source, which most tests change.
pub(crate) const TRAINER: &str = "src/trainer.py";
/// Where its files come from.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/toy");
/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a repository in `repo`, and a home and a folder for temporary files of its own.
pub(crate) struct Toy {
    dir: tempfile::TempDir,
}

impl Toy {
    /// The toy trainer, committed, in a repository where the instrument has proved itself.
    pub(crate) fn new() -> Toy {
        Toy::copy_of("tested", || {
            let toy = Toy::untested();
            toy.alpha(&["selftest"]).succeeded();
            toy
        })
    }

    /// One with an open cycle and [`crate::changes::FASTER`] in its working tree, which was called so.
    pub(crate) fn compared() -> Toy {
        Toy::copy_of("compared", || {
            let toy = Toy::new();
            toy.begin();
            toy.change(crate::changes::FASTER);
            toy.json(&["compare"]).says("FASTER", 0);
            toy
        })
    }

    /// The same, landed: HEAD is its claim.
    pub(crate) fn landed() -> Toy {
        Toy::copy_of("landed", || {
            let toy = Toy::compared();
            toy.alpha(&["commit", "-m", "no waste in attention"]).succeeded();
            toy
        })
    }

    /// A copy of a repository that is made once, by whichever test needs it first.
    fn copy_of(name: &str, make: impl FnOnce() -> Toy) -> Toy {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("toy-{name}"));
        let lock = fs::File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let origin = origin();
        if fs::read_to_string(folder.join("origin")).ok().as_ref() != Some(&origin) {
            let _ = fs::remove_dir_all(&folder); // of another program or toy, or half made
            fs::create_dir(&folder).unwrap();
            copy(&make().root(), &folder.join("repo"));
            fs::write(folder.join("origin"), origin).unwrap();
        }
        let toy = Toy::empty();
        fs::remove_dir_all(toy.root()).unwrap();
        copy(&folder.join("repo"), &toy.root());
        // Another place has other file times; `git` is to know them.
        toy.git(&["update-index", "-q", "--refresh"]);
        toy
    }

    /// The toy trainer, committed.
    pub(crate) fn untested() -> Toy {
        let toy = Toy::empty();
        copy(&Path::new(SOURCE).join("."), &toy.root());
        for left in ["out", "run"] {
            let _ = fs::remove_dir_all(toy.path(left)); // the toy may have been run there
        }
        toy.commit("a toy trainer");
        toy
    }

    /// A repository without a commit.
    pub(crate) fn empty() -> Toy {
        // A short path: sockets lie below it.
        let toy = Toy { dir: tempfile::Builder::new().prefix("toy").tempdir().unwrap() };
        for name in ["repo", "home", "tmp"] {
            fs::create_dir(toy.dir.path().join(name)).unwrap();
        }
        toy.git(&["init", "-q", "-b", "main"]);
        toy.git(&["config", "user.name", "Somebody"]);
        toy.git(&["config", "user.email", "somebody@example.org"]);
        // No process of git's own that outlives its command.
        toy.git(&["config", "maintenance.auto", "false"]);
        toy.git(&["config", "gc.auto", "0"]);
        toy
    }

    /// The repository.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// A file of the repository.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A file beside the repository, which no trainer or build may know of.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Replaces the one place of the trainer's source that reads `from`.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        self.edit_file(TRAINER, from, to);
    }

    /// Replaces the one place of a file that reads `from`.
    #[track_caller]
    pub(crate) fn edit_file(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {name}");
        self.write(name, &text.replace(from, to));
    }

    /// Puts lines in front of the training run: with the arguments read, before data and weights.
    #[track_caller]
    pub(crate) fn edit_start(&self, lines: &[&str]) {
        let lines = lines.join("\n    ");
        self.edit("def train(flags):\n", &format!("def train(flags):\n    {lines}\n"));
    }

    /// As on a machine without bubblewrap: trainers and builds can reach out of their folders, which some tests need.
    pub(crate) fn without_walls(&self) {
        let program = self.outside("bin/bwrap");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Has every training run leave a mark outside, which [`Toy::runs`] counts.
    pub(crate) fn count_runs(&self) {
        self.without_walls();
        self.edit_start(&[&format!("open(\"{}\", \"a\").write(\"x\")", self.outside("runs").display())]);
    }

    /// Training runs so far, of trainers that leave a mark.
    pub(crate) fn runs(&self) -> usize {
        fs::read(self.outside("runs")).map_or(0, |marks| marks.len())
    }

    /// A program that runs in the repository, with nothing of the user's own around it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root()).env("HOME", self.outside("home")).env("TMPDIR", self.outside("tmp"));
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C.UTF-8");
        let bin = self.outside("bin");
        if bin.exists() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path = std::iter::once(bin).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(path).unwrap());
        }
        for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "ALPHA_TURNS", "GIT_DIR", "GIT_INDEX_FILE"]
        {
            command.env_remove(name);
        }
        command
    }

    /// The output of `git`.
    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let done = self.try_git(arguments);
        assert_eq!(done.code, Some(0), "git {arguments:?}\n{}{}", done.stdout, done.stderr);
        done.stdout.trim_end().to_owned()
    }

    pub(crate) fn try_git(&self, arguments: &[&str]) -> Done {
        finish(self.command("git").arg("--no-optional-locks").args(arguments))
    }

    /// Commits everything; returns the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Puts tracked files back as they were committed.
    pub(crate) fn restore(&self) {
        self.git(&["checkout", "-q", "HEAD", "--", "."]);
    }

    /// `alpha loop` with these arguments.
    pub(crate) fn alpha_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_alpha"));
        command.arg("loop").args(arguments);
        command
    }

    /// Runs it to its end.
    pub(crate) fn alpha(&self, arguments: &[&str]) -> Done {
        finish(&mut self.alpha_command(arguments))
    }

    /// The same with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Answer {
        let done = self.alpha(&[arguments, &["--json"]].concat());
        Answer::of(done)
    }

    /// Starts it and lets it run.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.alpha_command(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    /// The user's own files, branches, index and stash; neither the ledger nor ignored files.
    pub(crate) fn belongings(&self) -> BTreeMap<String, Vec<u8>> {
        let listed = self.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let files = listed.split('\0').filter(|name| !name.is_empty() && !name.starts_with("perf/"));
        let mut found: BTreeMap<String, Vec<u8>> =
            files.map(|name| (name.to_owned(), fs::read(self.path(name)).unwrap_or_default())).collect();
        for name in [".git/index", ".git/HEAD", ".git/refs/stash"] {
            found.insert(name.to_owned(), fs::read(self.path(name)).unwrap_or_default());
        }
        let refs = self.git(&["for-each-ref", "refs/heads", "refs/tags", "refs/stash"]);
        found.insert("refs".to_owned(), refs.into_bytes());
        found
    }

    /// Checks that [`Toy::belongings`] are unchanged.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, before: &BTreeMap<String, Vec<u8>>) {
        let now = self.belongings();
        let names = before.keys().chain(now.keys());
        let changed: Vec<&String> = names.filter(|name| before.get(*name) != now.get(*name)).collect();
        assert!(changed.is_empty(), "changed: {changed:?}");
    }

    /// Processes that work here, as `state command line`.
    pub(crate) fn processes(&self) -> Vec<String> {
        let here = self.dir.path().canonicalize().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let folder = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if folder.starts_with(&here) || command.contains(&*here.to_string_lossy()) {
                let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim();
                found.push(format!("{pid} {state} {command}"));
            }
        }
        found
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        let left = self.processes();
        for process in &left {
            let pid = process.split(' ').next().unwrap_or_default();
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "processes left behind: {left:#?}");
        }
    }
}

/// Everything that a made repository depends on: the toy's files and the program.
fn origin() -> String {
    let program = fs::metadata(env!("CARGO_BIN_EXE_alpha")).unwrap();
    let mut origin = format!("{} bytes of {:?}\n", program.len(), program.modified().unwrap());
    for path in files(Path::new(SOURCE)) {
        let mut hasher = DefaultHasher::new();
        fs::read(&path).unwrap().hash(&mut hasher);
        origin += &format!("{} {:x}\n", path.display(), hasher.finish());
    }
    origin
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

/// The JSON that a command printed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) object: Value,
    pub(crate) stderr: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn of(done: Done) -> Answer {
        let Done { code, stdout, stderr } = done;
        assert!(!stderr.contains("panicked"), "{stderr}");
        let object: Value = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{code:?}: no JSON object: {error}\n{stdout}\n{stderr}"));
        let schema = object["schema"].as_str().unwrap_or_default();
        let (name, version) = schema.rsplit_once('/').unwrap_or_default();
        assert!(name.starts_with("alpha.loop.") && version.parse::<u32>().is_ok(), "schema `{schema}`");
        Answer { code, object, stderr }
    }

    /// The text of a key.
    #[track_caller]
    pub(crate) fn text(&self, key: &str) -> &str {
        self.object[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {:#}", self.object))
    }

    /// The number of a key.
    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> f64 {
        self.object[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {:#}", self.object))
    }

    /// Checks verdict and exit code.
    #[track_caller]
    pub(crate) fn says(self, verdict: &str, code: i32) -> Answer {
        assert_eq!((self.text("verdict"), self.code), (verdict, Some(code)), "{:#}\n{}", self.object, self.stderr);
        self
    }

    /// Checks that a gate refused, whatever the speed, and that the reason names one of `causes`.
    #[track_caller]
    pub(crate) fn is_refused_for(&self, causes: &[&str]) {
        assert_eq!(self.code, Some(4), "{:#}\n{}", self.object, self.stderr);
        let (verdict, reason) = (self.text("verdict"), self.text("reason"));
        assert!(!["FASTER", "LEANER"].contains(&verdict), "{:#}", self.object);
        assert!(
            causes.iter().any(|cause| reason.contains(cause)),
            "none of {causes:?} in `{reason}`: {:#}",
            self.object
        );
    }
}

/// A command that runs while the test goes on. Killed when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "no process left to signal");
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Done {
        let mut stderr = self.child.stderr.take().unwrap();
        // Both pipes are read at the same time: neither may fill up.
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let stdout = std::io::read_to_string(self.child.stdout.take().unwrap()).unwrap();
        let code = self.child.wait().unwrap().code();
        Done { code, stdout, stderr: reader.join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Waits for something that must come.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for this in vain: {what}");
        std::thread::sleep(Duration::from_millis(5)); // between two looks; nothing depends on it
    }
}

/// Every file below a folder, by relative path.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

//! A folder of a test's own: data, commands, and the files that runs leave in it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::outcome::{Done, finish};

/// Flags of a model that takes a millisecond a step, on two threads.
pub(crate) const TINY: &[&str] = &[
    "--backend=cpu",
    "--threads=2",
    "--tokenizer=char",
    "--layers=2",
    "--dim=32",
    "--heads=2",
    "--block=16",
    "--batch=4",
    "--lr=1e-2",
    "--evalIters=2",
    "--sampleInterval=0",
    "--postSamples=false",
];

impl Done {
    /// [`Done::failed`], with a hint.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        self.failed(code, words);
        assert!(self.stderr.contains("\nhint: "), "no hint:\n{}", self.stderr);
    }
}

/// The folder.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    cache: PathBuf,
}

impl Place {
    /// An empty one.
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Place { cache: dir.path().join("cache"), dir }
    }

    /// One with `text.txt`.
    pub(crate) fn with_text() -> Place {
        let place = Place::new();
        place.write("text.txt", words(1200));
        place
    }

    /// The same with a cache that outlives the test: the self-test of a GPU and the choice of its kernels need not be
    /// repeated in each test. Names of entries hold everything that they depend on.
    pub(crate) fn sharing_its_cache(self) -> Place {
        Place { cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"), ..self }
    }

    /// The path of a file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A program that will run in the folder.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("XDG_CACHE_HOME", &self.cache);
        // A layer of Mesa's prints errors where there is no display.
        command.env("NODEVICE_SELECT", "1");
        // All tests share the driver's cache: compiling kernels again in each test would take most of its time.
        command.env("MESA_SHADER_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/shaders"));
        command
    }

    /// Runs `alpha` with these arguments.
    pub(crate) fn alpha(&self, arguments: &[&str]) -> Done {
        finish(self.command(env!("CARGO_BIN_EXE_alpha")).args(arguments))
    }

    /// Trains on `text.txt` into a run folder with [`TINY`] and these flags; the last flag of a name counts.
    pub(crate) fn train(&self, run: &str, flags: &[&str]) -> Done {
        finish(&mut self.train_command(run, flags))
    }

    /// The command of [`Place::train`].
    pub(crate) fn train_command(&self, run: &str, flags: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_alpha"));
        command.args(train_arguments(run, flags));
        command
    }

    /// Continues a run.
    pub(crate) fn resume(&self, run: &str, flags: &[&str]) -> Done {
        let run_dir = format!("--runDir={run}");
        self.alpha(&[&["train", "--resume=auto", &run_dir], flags].concat())
    }

    /// The same as [`Place::train`], from `sh`, after `before`: limits on the process, say.
    pub(crate) fn train_in_shell(&self, before: &str, run: &str, flags: &[&str]) -> Done {
        let mut command = self.command("sh");
        command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_alpha")]);
        finish(command.args(train_arguments(run, flags)))
    }

    /// Rows of a run's `metrics.jsonl`.
    #[track_caller]
    pub(crate) fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        assert!(text.ends_with('\n'), "a torn row in {run}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every row's value of a key.
    #[track_caller]
    pub(crate) fn column(&self, run: &str, key: &str) -> Vec<f64> {
        self.metrics(run).iter().map(|row| row[key].as_f64().unwrap_or_else(|| panic!("{row}"))).collect()
    }

    /// A file of a run that holds JSON.
    #[track_caller]
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// The weights of a checkpoint, as bytes.
    #[track_caller]
    pub(crate) fn weights(&self, run: &str, step: u64) -> Vec<u8> {
        fs::read(self.path(run).join(format!("checkpoint-{step}/model.safetensors"))).unwrap()
    }

    /// Every file below a folder with its content, by relative path.
    pub(crate) fn tree(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, found);
                } else {
                    found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.path(name), &self.path(name), &mut found);
        found
    }

    /// Names in a folder, sorted.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Steps of a run's checkpoints, ascending.
    pub(crate) fn checkpoint_steps(&self, run: &str) -> Vec<u64> {
        let names = self.names(run);
        let mut steps: Vec<u64> =
            names.iter().filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }
}

fn train_arguments(run: &str, flags: &[&str]) -> Vec<String> {
    let name = |flag: &str| flag.split('=').next().unwrap().to_owned();
    let mut arguments = vec!["train".to_owned(), "--data=text.txt".to_owned(), format!("--runDir={run}")];
    arguments.extend(TINY.iter().map(|&flag| flag.to_owned()));
    arguments.retain(|argument| !flags.iter().any(|flag| name(flag) == name(argument)));
    // An empty value only removes a flag of the list above.
    arguments.extend(flags.iter().filter(|flag| !flag.ends_with('=')).map(|&flag| flag.to_owned()));
    arguments
}

/// A command that runs while the test goes on. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads this many lines of its stdout, or fewer if it ends before.
    pub(crate) fn read_lines(&mut self, count: usize) -> Vec<String> {
        let lines = (&mut self.lines).lines().take(count);
        lines.map(Result::unwrap).collect()
    }

    /// Kills it with `SIGKILL`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "no process left to signal");
    }

    /// Sends a signal by name and waits for the end.
    pub(crate) fn end_by(self, signal: &str) -> Done {
        self.signal(signal);
        self.end()
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Done {
        let stdout = self.read_lines(usize::MAX).join("\n");
        let stderr = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        Done { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// This many words of a small vocabulary, in an order that only looks random.
pub(crate) fn words(count: usize) -> String {
    const WORDS: [&str; 13] = ["the", "cat", "sat", "on", "a", "mat", "and", "ran", "to", "his", "big", "red", "house"];
    let mut state = 1u32;
    let mut text = String::new();
    for _ in 0..count {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        write!(text, "{} ", WORDS[(state >> 16) as usize % WORDS.len()]).unwrap();
    }
    text
}

/// Headerless u16 tokens.
pub(crate) fn u16_tokens(tokens: impl IntoIterator<Item = u16>) -> Vec<u8> {
    tokens.into_iter().flat_map(u16::to_le_bytes).collect()
}

//! One call of the `git` program, whose result the user's configuration and the environment cannot change.
//!
//! - Variables that git sets for hooks (`GIT_DIR`, `GIT_INDEX_FILE` …) would point it at another repository or index:
//!   all `GIT_*` are removed, except those that hold the user's identity and configuration.
//! - The user's configuration applies (identity, filters, ignored files), except settings that run programs or change
//!   the output of plumbing commands.
//! - No hook is run. No prompt appears: standard input is what [`Git::input`] gives.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::LoopError;

const KEPT_VARIABLES: [&str; 7] = [
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
    "GIT_EXEC_PATH",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
];
const KEPT_PREFIX: &str = "GIT_CONFIG_";

const SETTINGS: [&str; 13] = [
    "core.quotepath=off",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.fsmonitor=false",
    "core.safecrlf=false",
    // Otherwise git would take files that it wrote or read for us as unchanged for ever.
    "core.ignoreStat=false",
    "core.trustctime=true",
    "core.checkStat=default",
    "diff.suppressBlankEmpty=false",
    "trailer.separators=:",
    "i18n.commitEncoding=UTF-8",
    "submodule.recurse=false",
    "gc.auto=0",
];

/// For an index that is not the user's: one plain file with every entry.
const PRIVATE_INDEX_SETTINGS: [&str; 3] = ["core.untrackedCache=false", "core.splitIndex=false", "index.sparse=false"];

/// Files of the user that are read although no configuration names them.
const PLAIN_SETTINGS: [&str; 2] = ["core.attributesFile=/dev/null", "core.excludesFile=/dev/null"];

/// A call that is being built.
pub(super) struct Git {
    folder: PathBuf,
    settings: Vec<&'static str>,
    variables: Vec<(&'static str, OsString)>,
    arguments: Vec<OsString>,
    input: Vec<u8>,
    is_interactive: bool,
    is_plain: bool,
    wrapper: Vec<String>,
}

/// How a call ended.
pub(super) struct Answer {
    /// The exit code; none where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
    called: String,
}

impl Git {
    /// A call in `folder`.
    pub(super) fn new(folder: &Path) -> Git {
        Git {
            folder: folder.into(),
            settings: SETTINGS.into(),
            variables: Vec::new(),
            arguments: Vec::new(),
            input: Vec::new(),
            is_interactive: false,
            is_plain: false,
            wrapper: Vec::new(),
        }
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Git {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(super) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Git {
        self.variables.push((name, value.into()));
        self
    }

    pub(super) fn setting(mut self, setting: &'static str) -> Git {
        self.settings.push(setting);
        self
    }

    /// With an index that is not the user's.
    pub(super) fn private_index(mut self, path: &Path) -> Git {
        self.settings.extend(PRIVATE_INDEX_SETTINGS);
        self.variable("GIT_INDEX_FILE", path)
    }

    /// Without the configuration of the user and of the system: no filter, no attribute, no ignored file of theirs.
    pub(super) fn plain(mut self) -> Git {
        self.is_plain = true;
        self.settings.extend(PLAIN_SETTINGS);
        self
    }

    /// Runs the call through another program: `wrapper` has the words that come before its own.
    pub(super) fn through(mut self, wrapper: &[String]) -> Git {
        self.wrapper = wrapper.to_vec();
        self
    }

    /// Sets the standard input of the call.
    pub(super) fn input(mut self, bytes: Vec<u8>) -> Git {
        self.input = bytes;
        self
    }

    /// Allows the call to use the terminal, as signing does.
    pub(super) fn interactive(mut self) -> Git {
        self.is_interactive = true;
        self
    }

    /// Runs it, whatever its exit code.
    pub(super) fn run(self) -> Result<Answer, LoopError> {
        let mut words = self.wrapper.iter().map(String::as_str).chain(["git"]);
        let mut command = Command::new(words.next().unwrap_or("git"));
        command.args(words).current_dir(&self.folder).arg("--no-pager");
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.args(&self.arguments);
        clear_variables(&mut command, self.is_plain);
        command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
        command.env("GIT_NO_REPLACE_OBJECTS", "1"); // an id stands for what was hashed
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !self.is_interactive {
            command.process_group(0); // Ctrl-C does not kill it halfway
        }
        let called =
            format!("git {}", self.arguments.first().map_or_else(String::new, |name| name.display().to_string()));
        let failed = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound if self.folder.is_dir() => {
                LoopError::usage("the program `git` is not there").hint("install git; it must be in `PATH`")
            }
            _ => LoopError::failed(format!("cannot run `{called}` in `{}`: {error}", self.folder.display())),
        };
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let stdin = child.stdin.take();
        let output = thread::scope(|scope| {
            // Written in parallel with reading, because both pipes may fill up. Git may also end without reading all;
            // its exit code tells.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(&self.input)));
            child.wait_with_output()
        });
        let output = output.map_err(|error| failed(&error))?;
        Ok(Answer { code: output.status.code(), stdout: output.stdout, stderr: output.stderr, called })
    }

    /// Its standard output; any exit code but 0 is an error.
    pub(super) fn output(self) -> Result<Vec<u8>, LoopError> {
        let answer = self.run()?;
        if answer.is_success() { Ok(answer.stdout) } else { Err(answer.error()) }
    }

    /// As [`Git::output`], for an answer of one line.
    pub(super) fn line(self) -> Result<String, LoopError> {
        self.output().map(|bytes| one_line(&bytes))
    }

    /// As [`Git::output`], for an answer that is one path.
    pub(super) fn path(self) -> Result<PathBuf, LoopError> {
        let mut bytes = self.output()?;
        bytes.pop_if(|byte| *byte == b'\n');
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output as one line.
    pub(super) fn line(&self) -> String {
        one_line(&self.stdout)
    }

    /// Git's error output, on one line.
    pub(super) fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(10).collect();
        if lines.is_empty() { "git says nothing".into() } else { lines.join("; ") }
    }

    /// The error of a failed call.
    pub(super) fn error(&self) -> LoopError {
        let how = self.code.map_or("was ended by a signal".into(), |code| format!("ended with exit code {code}"));
        LoopError::failed(format!("`{}` {how}: {}", self.called, self.message()))
    }
}

fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Removes git's variables from a command, except those that hold the user's identity and configuration; for a plain
/// call also those of the configuration.
fn clear_variables(command: &mut Command, is_plain: bool) {
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let is_kept = KEPT_VARIABLES.contains(&text) || text.starts_with(KEPT_PREFIX) && !is_plain;
        if text.starts_with("GIT_") && !is_kept {
            command.env_remove(&name);
        }
    }
    if is_plain {
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ATTR_NOSYSTEM", "1");
    }
}

//! The outcome of a command, for tests that run the binary.

use std::process::{Command, Stdio};

/// The outcome of a command.
#[derive(Debug)]
pub(crate) struct Done {
    /// Exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Checks that the command succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Done {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Checks that the command ended with this exit code and an error that holds all of these texts and a hint.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        let stderr = &self.stderr;
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(self.code, Some(code), "{}{stderr}", self.stdout);
        let error = stderr.lines().find(|line| line.starts_with("error: "));
        assert!(error.is_some_and(|line| !line.ends_with('.')), "no message, or one with a full stop:\n{stderr}");
        for word in words {
            assert!(stderr.contains(word), "no {word:?} in:\n{stderr}");
        }
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Done {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

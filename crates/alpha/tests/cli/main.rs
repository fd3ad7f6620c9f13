//! The command line from outside: help, messages and exit codes, as snapshots.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

mod commands;
mod config_file;
mod help;
mod train_flags;

use std::{path::Path, process::Command};

/// Runs the binary with these arguments; returns exit code, stdout and stderr.
fn alpha(arguments: &[&str]) -> (i32, String, String) {
    alpha_in(Path::new(env!("CARGO_TARGET_TMPDIR")), arguments)
}

/// [`alpha`], in a folder.
fn alpha_in(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alpha"));
    // Messages must not depend on the machine: no Vulkan driver is found.
    command.args(arguments).current_dir(folder).env("VK_DRIVER_FILES", "/nowhere").env("VK_ICD_FILENAMES", "/nowhere");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Several calls as one text: each call, its exit code and its output.
fn transcript(folder: &Path, calls: &[&[&str]]) -> String {
    let said = |arguments: &&[&str]| {
        let (code, stdout, stderr) = alpha_in(folder, arguments);
        format!("$ alpha {}\n{stdout}{stderr}[exit code {code}]\n\n", arguments.join(" "))
    };
    calls.iter().map(said).collect()
}

/// Compares the [`transcript`] of calls in a folder with the snapshot.
macro_rules! assert_transcript {
    ($folder:expr, $calls:expr) => {
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!($crate::transcript($folder.path(), $calls));
        })
    };
}
pub(crate) use assert_transcript;

/// A folder of this test's own.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

//! The two arms of a comparison, and the clean folder that each run of one begins in.
//!
//! A folder holds the trainer's artifacts as copies, the baseline's inputs, and an empty home. Both
//! folders of a pair have paths of equal length, and so have arguments and environment.

use std::{
    fs, io,
    os::unix,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{LoopError, build, files::remove};

/// Which trainer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// A: the last accepted trainer.
    Baseline,
    /// B: the changed one.
    Candidate,
}

impl Arm {
    /// Both, the baseline first.
    pub const BOTH: [Arm; 2] = [Arm::Baseline, Arm::Candidate];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Arm::Baseline => "baseline",
            Arm::Candidate => "candidate",
        }
    }

    /// Its place in an array of two.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Arm {
        match self {
            Arm::Baseline => Arm::Candidate,
            Arm::Candidate => Arm::Baseline,
        }
    }
}

/// What a trainer's folder is filled from. Paths in `inputs` are relative to the folder they come from and to the one they
/// go to.
#[derive(Clone, Debug, PartialEq)]
pub struct Kit {
    /// Holds the artifacts of this arm's build, and nothing else.
    pub artifacts_from: PathBuf,
    /// Their hash, which each copy must have.
    pub binary_hash: String,
    /// Holds the baseline's inputs.
    pub inputs_from: PathBuf,
    /// What is linked from there.
    pub inputs: Vec<PathBuf>,
    /// Names of variables of the loop's own environment that trainers get too.
    pub environment: Vec<String>,
}

/// A folder that a trainer runs in; removed when dropped.
#[derive(Debug)]
pub struct ArmFolder {
    path: PathBuf,
}

impl ArmFolder {
    /// Makes the folder; one that a crash left behind is removed first.
    pub fn create(path: &Path, kit: &Kit) -> Result<ArmFolder, LoopError> {
        remove(path)?;
        let folder = ArmFolder { path: path.to_path_buf() };
        for name in ["home", "tmp"] {
            fs::create_dir_all(path.join(name)).map_err(|error| LoopError::io("make", path, &error))?;
        }
        build::copy_artifacts(&kit.artifacts_from, path, &kit.binary_hash)?;
        for input in &kit.inputs {
            link(&kit.inputs_from.join(input), &path.join(input))?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `words` runs in this folder: a program of the folder, or one of the system's.
    pub fn command(&self, words: &[String], kit: &Kit) -> Result<Command, LoopError> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(LoopError::Usage("a command of `loop.toml` is empty".into()));
        };
        // A relative program is one of the artifacts; a bare name is looked up by the system.
        let program = if program.contains('/') { self.path.join(program) } else { PathBuf::from(program) };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.path).env_clear();
        command.env("HOME", self.path.join("home")).env("TMPDIR", self.path.join("tmp")).env("LC_ALL", "C.UTF-8");
        let passed = kit.environment.iter().map(String::as_str).chain(["PATH"]);
        for name in passed {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Ok(command)
    }
}

impl Drop for ArmFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the folder is made again.
        let _ = remove(&self.path);
    }
}

fn prepare_parent(to: &Path) -> Result<(), LoopError> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|error| LoopError::io("make", parent, &error))
}

/// Copies a file or a folder with everything in it; links stay links.
pub fn copy(from: &Path, to: &Path) -> Result<(), LoopError> {
    let failed = |error: io::Error| LoopError::io("copy", from, &error);
    let kind = fs::symlink_metadata(from).map_err(failed)?.file_type();
    prepare_parent(to)?;
    if kind.is_symlink() {
        unix::fs::symlink(fs::read_link(from).map_err(failed)?, to).map_err(failed)
    } else if kind.is_dir() {
        fs::create_dir_all(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    } else {
        fs::copy(from, to).map(|_| ()).map_err(failed)
    }
}

fn link(from: &Path, to: &Path) -> Result<(), LoopError> {
    if !from.exists() {
        return Err(LoopError::Failed(format!("the input `{}` is not in the baseline", from.display()))
            .hint("`workload.inputs` of `loop.toml` names files that git tracks"));
    }
    prepare_parent(to)?;
    unix::fs::symlink(from, to).map_err(|error| LoopError::io("link", to, &error))
}

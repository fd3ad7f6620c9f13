//! The environment of a build: a few variables, and its own home.
//!
//! A build that read the user's settings would make another trainer when they change, while the stored baseline would
//! still be the old one. So it gets `PATH`, `LC_ALL`, the variables that `build.environment` names, and a home that is
//! new each time, always at the same path. All of this is part of the key of a stored build. Of cargo's real home it
//! sees the downloaded packages, never its `config.toml` or credentials.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    os::unix::{self, ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Command,
};

use pairbench::files;
use tempfile::TempDir;

use crate::{LoopError, config::BuildConfig};

/// Folders of cargo's home that hold downloads.
const OF_CARGO: [&str; 2] = ["registry", "git"];

/// The environment of one build.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    home: PathBuf,
}

/// A home for commands that may run beside a build, which has the usual one. Removed when dropped.
pub(super) struct OwnHome {
    environment: Environment,
    usual: PathBuf,
    _folder: TempDir,
}

impl Environment {
    /// The environment that `build.environment` asks for, with a home at `home`, which is not made yet.
    pub fn new(config: &BuildConfig, home: PathBuf) -> Environment {
        let mut variables = BTreeMap::from([("LC_ALL".to_owned(), OsString::from("C.UTF-8"))]);
        for name in config.environment.iter().map(String::as_str).chain(["PATH"]) {
            if let Some(value) = env::var_os(name) {
                variables.insert(name.to_owned(), value);
            }
        }
        if let Some(rustup) = tool_home("RUSTUP_HOME", ".rustup") {
            variables.insert("RUSTUP_HOME".to_owned(), rustup.into_os_string());
        }
        Environment { variables, home }
    }

    /// Names and values, except those that name places in the fresh home.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    /// Where the home is; its `tmp` is for temporary files.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Empties the home, or makes it.
    pub(super) fn make_home(&self) -> Result<(), LoopError> {
        files::remove(&self.home)?;
        let failed = |error| LoopError::io("make", &self.home, &error);
        fs::create_dir_all(self.home.join("tmp")).map_err(failed)?;
        for (source, place) in home_binds() {
            let link = self.home.join(place);
            fs::create_dir_all(link.parent().unwrap_or(&self.home)).map_err(failed)?;
            unix::fs::symlink(source, link).map_err(failed)?;
        }
        Ok(())
    }

    /// The same with a home of its own.
    pub(super) fn with_own_home(&self) -> Result<OwnHome, LoopError> {
        let failed = |error| LoopError::io("make a folder in", &env::temp_dir(), &error);
        let folder = tempfile::Builder::new().prefix("alpha-home-").tempdir().map_err(failed)?;
        // As a command prints it that asks the system where it is.
        let real = fs::canonicalize(folder.path()).map_err(failed)?;
        let environment = Environment { home: real.join("home"), ..self.clone() };
        environment.make_home()?;
        Ok(OwnHome { environment, usual: self.home.clone(), _folder: folder })
    }

    /// Sets it as a command's whole environment.
    pub(super) fn apply(&self, command: &mut Command) {
        command.env_clear().envs(&self.variables);
        command.env("HOME", &self.home).env("TMPDIR", self.home.join("tmp"));
    }
}

impl OwnHome {
    /// The environment with this home.
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What a command printed, as if it had run in the usual home: equal each time.
    pub(super) fn as_usual(&self, said: &[u8]) -> String {
        let [own, usual] = [&self.environment.home, &self.usual].map(|home| home.to_string_lossy());
        String::from_utf8_lossy(said).replace(&*own, &usual)
    }
}

/// The parts of the user's home that a build can read, with their places in its own home: (source, place).
pub fn home_binds() -> Vec<(PathBuf, PathBuf)> {
    let Some(cargo) = tool_home("CARGO_HOME", ".cargo") else { return Vec::new() };
    let binds = OF_CARGO.map(|name| (cargo.join(name), Path::new(".cargo").join(name)));
    binds.into_iter().filter(|(source, _)| source.is_dir()).collect()
}

/// The folder that a variable names, else the one of that name in the user's home, if it is there.
fn tool_home(variable: &str, name: &str) -> Option<PathBuf> {
    let set = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(name))).filter(|path| path.is_dir())
}

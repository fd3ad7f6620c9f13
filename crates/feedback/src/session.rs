//! What every step of the loop works with: repository, configuration, state, ledger, machine.

use std::path::{Path, PathBuf};

use crate::{
    LoopError,
    attempt::AttemptFolder,
    build::BuildStore,
    config::{self, LoopConfig},
    git::Repository,
    ledger::Ledger,
    machine::Machine,
    state::State,
};

/// An opened repository with a `loop.toml`.
#[derive(Debug)]
pub struct Session {
    /// Where the trainer's source is.
    pub repository: Repository,
    /// Its `loop.toml`, as it is in the working tree.
    pub config: LoopConfig,
    /// The loop's own folder.
    pub state: State,
    /// What was built.
    pub builds: BuildStore,
    /// What is known.
    pub ledger: Ledger,
    /// Where it runs.
    pub machine: Machine,
}

impl Session {
    /// Opens the repository that holds `path`.
    pub fn open(path: &Path) -> Result<Session, LoopError> {
        let repository = Repository::open(path)?;
        let config = LoopConfig::load(repository.root())?;
        let state = State::open(&repository)?;
        let ledger = Ledger::open(&repository.root().join(&config.ledger))?;
        let builds = BuildStore::new(&state);
        Ok(Session { repository, config, state, builds, ledger, machine: Machine::read() })
    }

    /// The open attempts.
    pub fn attempts(&self) -> AttemptFolder {
        AttemptFolder::new(self.state.folder())
    }

    /// Where trainers' folders are made: outside the working tree, whose files no trainer should find further up.
    ///
    /// # Errors
    /// [`LoopError::Usage`] where the user has no cache folder.
    pub fn work(&self) -> Result<PathBuf, LoopError> {
        self.state.work()
    }

    /// Hash of the configuration file.
    pub fn config_hash(&self) -> Result<String, LoopError> {
        hash_file(&self.repository.root().join(config::FILE_NAME))
    }
}

/// BLAKE3 of a file, in hexadecimal.
pub fn hash_file(path: &Path) -> Result<String, LoopError> {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).map_err(|error| LoopError::io("open", path, &error))?;
    std::io::copy(&mut file, &mut hasher).map_err(|error| LoopError::io("read", path, &error))?;
    Ok(hasher.finalize().to_hex().to_string())
}

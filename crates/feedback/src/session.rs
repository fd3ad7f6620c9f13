//! What every step of the loop works with: repository, configuration, state, ledger, machine.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::{
    LoopError,
    attempt::AttemptFolder,
    build::BuildStore,
    config::{self, LoopConfig},
    git::Repository,
    isolation::Isolation,
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
    isolation: OnceLock<Arc<Isolation>>,
}

impl Session {
    /// Opens the repository that holds `path`, for a target of its `loop.toml`: the named one, else the open cycle's.
    ///
    /// # Errors
    /// [`LoopError::Usage`] where the open cycle is about another target.
    pub fn open(path: &Path, target: Option<&str>) -> Result<Session, LoopError> {
        let repository = Repository::open(path)?;
        let state = State::open(&repository)?;
        let cycle = state.cycle()?;
        if let (Some(target), Some(cycle)) = (target, &cycle)
            && cycle.target.as_deref() != Some(target)
        {
            let about = cycle.target.as_deref().map_or("no target".to_owned(), |about| format!("`{about}`"));
            return Err(LoopError::Usage(format!("the open cycle is about {about}, not `{target}`"))
                .hint("leave `--target` out, or end the cycle with `alpha loop drop`"));
        }
        let of_cycle = cycle.as_ref().and_then(|cycle| cycle.target.as_deref());
        if let Some(of_cycle) = of_cycle
            && std::fs::read_to_string(repository.root().join(config::FILE_NAME))
                .is_ok_and(|text| !LoopConfig::has_target(&text, of_cycle))
        {
            return Err(LoopError::Usage(format!(
                "the open cycle is about the target `{of_cycle}`, which `{}` does not have",
                config::FILE_NAME
            ))
            .hint("put it back, or end the cycle with `alpha loop drop`"));
        }
        let config = LoopConfig::load(repository.root(), target.or(of_cycle))?;
        Session::with(repository, config, state)
    }

    /// The same for whoever ends the cycle: without its target where the file has that no more.
    pub fn open_to_drop(path: &Path) -> Result<Session, LoopError> {
        Session::open(path, None).or_else(|_| {
            let repository = Repository::open(path)?;
            let state = State::open(&repository)?;
            let config = LoopConfig::load(repository.root(), None)?;
            Session::with(repository, config, state)
        })
    }

    fn with(repository: Repository, config: LoopConfig, state: State) -> Result<Session, LoopError> {
        let ledger = Ledger::open(&repository.root().join(&config.ledger))?;
        let builds = BuildStore::new(&state);
        let isolation = OnceLock::new();
        Ok(Session { repository, config, state, builds, ledger, machine: Machine::read(), isolation })
    }

    /// Goes on with another target of the same `loop.toml`.
    pub fn retarget(&mut self, target: Option<&str>) -> Result<(), LoopError> {
        if self.config.target.as_deref() != target {
            self.config = LoopConfig::load(self.repository.root(), target)?;
        }
        Ok(())
    }

    /// The walls around builds and trainers, found out once: neither the repository nor the loop's own files are seen
    /// inside.
    ///
    /// # Errors
    /// Where the repository's other working trees cannot be listed.
    pub fn isolation(&self) -> Result<Arc<Isolation>, LoopError> {
        if let Some(known) = self.isolation.get() {
            return Ok(Arc::clone(known));
        }
        let mut hidden = self.repository.worktrees()?;
        hidden.extend([self.repository.common_dir().to_owned(), self.repository.git_dir().to_owned()]);
        hidden.extend(self.state.folders());
        let found = Arc::new(Isolation::detect(&hidden, &self.config.visible()));
        Ok(Arc::clone(self.isolation.get_or_init(|| found)))
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

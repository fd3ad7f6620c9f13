//! The session that every step of the loop works with: repository, configuration, state, ledger, machine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use pairbench::process::isolation::Isolation;

use crate::{
    LoopError,
    attempt::AttemptFolder,
    config::{self, LoopConfig},
    git::Repository,
    ledger::Ledger,
    machine::Machine,
    store::{build::BuildStore, state::State},
};

/// An opened repository with a `loop.toml`.
#[derive(Debug)]
pub struct Session {
    /// The repository with the trainer's source.
    pub repository: Repository,
    /// Its `loop.toml`, as the baseline's commit has it; the file in the working tree is the candidate's.
    pub config: LoopConfig,
    /// The file's text.
    config_text: String,
    /// The loop's own folder.
    pub state: State,
    /// The store of builds.
    pub builds: BuildStore,
    /// The ledger with all records.
    pub ledger: Ledger,
    /// The machine that it runs on.
    pub machine: Machine,
    /// The walls around builds and trainers: inside, neither the repository nor the loop's own files are visible.
    pub isolation: Arc<Isolation>,
}

impl Session {
    /// Opens the repository that holds `path`, for a target of its `loop.toml`: the named one, else the open cycle's. The
    /// baseline is the named one, else the open cycle's, else HEAD.
    ///
    /// # Errors
    /// [`LoopError::usage`] if the open cycle is about another target, or the baseline has no `loop.toml`.
    pub fn open(path: &Path, target: Option<&str>, baseline: Option<&str>) -> Result<Session, LoopError> {
        let repository = Repository::open(path)?;
        let state = State::open(&repository)?;
        let cycle = state.cycle()?;
        if let (Some(target), Some(cycle)) = (target, &cycle)
            && cycle.target.as_deref() != Some(target)
        {
            let about = cycle.target.as_deref().map_or("no target".to_owned(), |about| format!("`{about}`"));
            return Err(LoopError::usage(format!("the open cycle is about {about}, not `{target}`"))
                .hint("leave `--target` out, or end the cycle with `alpha loop drop`"));
        }
        let of_cycle = cycle.as_ref().and_then(|cycle| cycle.target.as_deref());
        let baseline = baseline.or(cycle.as_ref().map(|cycle| cycle.baseline.as_str())).unwrap_or("HEAD");
        Session::with(repository, baseline, target.or(of_cycle), state)
    }

    /// The same for ending the cycle: with HEAD's `loop.toml` if the baseline is gone.
    pub fn open_to_drop(path: &Path) -> Result<Session, LoopError> {
        Session::open(path, None, None).or_else(|_| {
            let repository = Repository::open(path)?;
            let state = State::open(&repository)?;
            Session::with(repository, "HEAD", None, state)
        })
    }

    fn with(repository: Repository, baseline: &str, target: Option<&str>, state: State) -> Result<Session, LoopError> {
        let config_text = config_text(&repository, baseline)?;
        let config = LoopConfig::parse(&config_text, target)?;
        let ledger = Ledger::open(&repository.root().join(&config.ledger))?;
        let mut secret = state.folders();
        secret.extend([repository.common_dir().to_owned(), repository.git_dir().to_owned()]);
        let mut hidden = repository.worktrees()?;
        check_visible(&config, &hidden, &secret)?;
        check_data(&config, repository.root(), &secret)?;
        hidden.extend(secret);
        let isolation = Arc::new(Isolation::detect(&hidden, &config.visible()));
        let builds = BuildStore::new(&state, Arc::clone(&isolation));
        let machine = Machine::read();
        Ok(Session { repository, config, config_text, state, builds, ledger, machine, isolation })
    }

    /// Changes to another target of the same `loop.toml`.
    pub fn retarget(&mut self, target: Option<&str>) -> Result<(), LoopError> {
        if self.config.target.as_deref() != target {
            self.config = LoopConfig::parse(&self.config_text, target)?;
        }
        Ok(())
    }

    /// A sentence that the `loop.toml` in the working tree is not the one that counts; none if both are the same. Line
    /// ends that git changes at a checkout make no difference.
    pub fn config_note(&self) -> Option<String> {
        let on_disk = std::fs::read_to_string(self.repository.root().join(config::FILE_NAME)).unwrap_or_default();
        (on_disk.replace("\r\n", "\n") != self.config_text.replace("\r\n", "\n")).then(|| {
            format!("`{}` in the working tree is not the baseline's, which is the one that counts", config::FILE_NAME)
        })
    }

    /// The open attempts.
    pub fn attempts(&self) -> AttemptFolder {
        AttemptFolder::new(self.state.folder())
    }

    /// The folder in which trainers' folders are made: outside the working tree, so that no trainer finds its files
    /// further up.
    ///
    /// # Errors
    /// [`LoopError::usage`] where the user has no cache folder.
    pub fn work(&self) -> Result<PathBuf, LoopError> {
        self.state.work()
    }

    /// Hash of the configuration file.
    pub fn config_hash(&self) -> String {
        blake3::hash(self.config_text.as_bytes()).to_hex().to_string()
    }
}

/// The `loop.toml` of a commit or tree.
///
/// # Errors
/// [`LoopError::usage`] where it has none.
pub fn config_text(repository: &Repository, revision: &str) -> Result<String, LoopError> {
    let tree = repository.tree_of(revision)?;
    let Some(bytes) = repository.read_file(&tree, config::FILE_NAME)? else {
        let name = config::FILE_NAME;
        let error = LoopError::usage(format!("`{revision}` has no `{name}`"));
        return Err(if repository.root().join(name).exists() {
            error.hint(format!("what measures is part of the evidence: `git add {name} && git commit -m \"{name}\"`"))
        } else {
            error.hint("`alpha loop init` writes one for this repository; commit it")
        });
    };
    String::from_utf8(bytes)
        .map_err(|_| LoopError::usage(format!("the `{}` of `{revision}` is not text", config::FILE_NAME)))
}

/// Checks that the paths of `visible` exist and show neither a whole folder of `hidden` nor any part of `secret`.
fn check_visible(config: &LoopConfig, hidden: &[PathBuf], secret: &[PathBuf]) -> Result<(), LoopError> {
    let real = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let (hidden, secret): (Vec<_>, Vec<_>) = (hidden.iter().map(real).collect(), secret.iter().map(real).collect());
    for path in config.visible() {
        let found = std::fs::canonicalize(&path).map_err(|error| {
            LoopError::usage(format!("`visible` of `loop.toml` names `{}`: {error}", path.display()))
                .hint("name a folder or file that is there, or take the line out")
        })?;
        let holds = hidden.iter().chain(&secret).find(|hidden| hidden.starts_with(&found));
        if let Some(hidden) = holds.or_else(|| secret.iter().find(|secret| found.starts_with(secret))) {
            let (path, hidden) = (path.display(), hidden.display());
            return Err(LoopError::usage(format!("`visible` of `loop.toml` names `{path}`, which shows `{hidden}`"))
                .hint("trainers must not see the repository or the loop's own files: name another folder"));
        }
    }
    Ok(())
}

/// Checks that the data of the working tree shows no part of `secret`.
fn check_data(config: &LoopConfig, root: &Path, secret: &[PathBuf]) -> Result<(), LoopError> {
    let real = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    for (place, name) in config.data(root) {
        let found = real(&place);
        if let Some(secret) = secret.iter().map(real).find(|it| it.starts_with(&found) || found.starts_with(it)) {
            let (name, secret) = (name.display(), secret.display());
            return Err(LoopError::usage(format!("`data` of `loop.toml` names `{name}`, which shows `{secret}`"))
                .hint(
                    "trainers must not see the repository or the loop's own files: name the folder of the data set",
                ));
        }
    }
    Ok(())
}

/// BLAKE3 of a file, in hexadecimal.
pub fn hash_file(path: &Path) -> Result<String, LoopError> {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).map_err(|error| LoopError::io("open", path, &error))?;
    std::io::copy(&mut file, &mut hasher).map_err(|error| LoopError::io("read", path, &error))?;
    Ok(hasher.finalize().to_hex().to_string())
}

//! The store of builds: each tree built once, at one path, by one command.
//!
//! Both arms of a comparison are built in the same folder, so that equal sources give equal binaries
//! and paths make no difference. What was built is kept under the hash of tree, command and toolchain.
//! The stage keeps what a build leaves there, so the next one is incremental; the caller holds the
//! [`Lock`](crate::state::Lock), because there is only one.

mod artifacts;
mod run;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Watch,
    config::{self, LoopConfig},
    files::{self, remove},
    git::Repository,
    state::State,
};

/// Begins the name of a build that is not whole yet.
const UNFINISHED: &str = "unfinished-";

/// Those used last stay, however large: a comparison needs two, and the judge's may be a third.
const ALWAYS_KEPT: usize = 4;

/// Environment variables that change what compilers make, beside those that end in `FLAGS`.
const SHAPING: [&str; 21] = [
    "AR",
    "AS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CC",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CPP",
    "CUDA_HOME",
    "CXX",
    "C_INCLUDE_PATH",
    "LD",
    "LIBRARY_PATH",
    "NVCC",
    "PKG_CONFIG_PATH",
    "PYTHONPATH",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WRAPPER",
    "RUSTUP_TOOLCHAIN",
    "SOURCE_DATE_EPOCH",
];
const SHAPING_PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];

/// The store.
#[derive(Debug)]
pub struct BuildStore {
    state: State,
    folder: PathBuf,
}

/// A trainer that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Hash of what it was built from and by.
    pub key: String,
    /// Holds the artifacts under their relative paths.
    pub folder: PathBuf,
    /// Hash of the artifacts.
    pub binary_hash: String,
    /// What the build command took, whenever that was.
    pub seconds: f64,
    /// Whether it was there already.
    pub is_cached: bool,
    /// What the toolchain says of itself.
    pub toolchain: String,
    /// What the build printed.
    pub log: PathBuf,
}

/// How much the store may hold beside what is in use.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Builds.
    pub builds: usize,
    /// Of all builds together.
    pub bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits { builds: 64, bytes: 8 << 30 }
    }
}

/// Beside the artifacts; last to be written.
const DESCRIPTION: &str = "built.json";

/// [`DESCRIPTION`]. Its time is that of the last use.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    binary_hash: String,
    seconds: f64,
    time: Timestamp,
}

impl BuildStore {
    /// In the loop's folder.
    pub fn new(state: &State) -> BuildStore {
        BuildStore { state: state.clone(), folder: state.folder().join("builds") }
    }

    /// The build of a tree, from the store or made now. The oldest builds beyond the usual [`StoreLimits`] go.
    ///
    /// # Errors
    /// [`LoopError::Failed`] where the build fails, takes too long or does not make what it should, with the end of
    /// what it printed; [`LoopError::Interrupted`] where the user asks to stop.
    pub fn build(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
        watch: &dyn Watch,
    ) -> Result<Built, LoopError> {
        self.build_layout(repository, tree, config, 0, watch)
    }

    /// The same in a layout, which fills `{layout}` of the build command; 0 is the one that is written. A command without
    /// the placeholder has one layout.
    pub fn build_layout(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
        layout: u32,
        watch: &dyn Watch,
    ) -> Result<Built, LoopError> {
        let toolchain = toolchain(config)?;
        let measured_tree = repository.measured_tree(tree, &config.unmeasured())?;
        let key = key(&measured_tree, config, layout, &toolchain, shaping(env::vars_os()));
        let log = self.folder.join(format!("{key}.log"));
        let found = self.kept(&key, watch)?;
        let is_cached = found.is_some();
        let kept = if let Some(kept) = found {
            kept
        } else {
            watch.note(&format!("building {} with `{}`", &measured_tree[..12], command_of(config, layout)));
            let seconds = self.run(repository, tree, config, layout, &log, watch)?;
            let kept = self.keep(&key, config, seconds)?;
            self.prune(&[&key], StoreLimits::default())?;
            kept
        };
        Ok(Built {
            folder: self.folder.join(&key).join("artifacts"),
            key,
            binary_hash: kept.binary_hash,
            seconds: kept.seconds,
            is_cached,
            toolchain,
            log,
        })
    }

    /// Whether the store has the build of a tree.
    pub fn has(&self, repository: &Repository, tree: &str, config: &LoopConfig) -> Result<bool, LoopError> {
        let measured_tree = repository.measured_tree(tree, &config.unmeasured())?;
        let key = key(&measured_tree, config, 0, &toolchain(config)?, shaping(env::vars_os()));
        Ok(self.folder.join(key).join(DESCRIPTION).exists())
    }

    /// Builds a tree again in the stage, without the store; returns the seconds it took.
    pub fn rebuild(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
        watch: &dyn Watch,
    ) -> Result<f64, LoopError> {
        self.run(repository, tree, config, 0, &self.folder.join("rebuild.log"), watch)
    }

    /// Removes builds, those first that were not used for longest, until the limits hold. The builds `keep` and the few
    /// used last stay in any case. Returns what went.
    pub fn prune(&self, keep: &[&str], limits: StoreLimits) -> Result<Vec<String>, LoopError> {
        let failed = |error: io::Error| LoopError::io("read", &self.folder, &error);
        // A build is its folder and its log; one that failed only has a log.
        let mut builds: BTreeMap<String, (SystemTime, u64)> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(key) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let used = fs::metadata(path.join(DESCRIPTION)).or_else(|_| fs::metadata(&path));
            let used = used.and_then(|data| data.modified()).map_err(failed)?;
            let (time, bytes) = builds.entry(key.to_owned()).or_insert((used, 0));
            // A log is as old as the build; its folder may have been used since.
            *time = used.max(*time);
            *bytes += artifacts::size_bytes(&path).map_err(failed)?;
        }
        let mut builds: Vec<(SystemTime, String, u64)> =
            builds.into_iter().map(|(key, (used, bytes))| (used, key, bytes)).collect();
        builds.sort_by(|one, other| other.cmp(one));
        let (mut count, mut bytes, mut gone) = (0, 0, Vec::new());
        for (_, key, size) in builds {
            let is_within = count < limits.builds && bytes + size <= limits.bytes;
            if is_within || count < ALWAYS_KEPT || keep.contains(&key.as_str()) {
                (count, bytes) = (count + 1, bytes + size);
            } else {
                remove(&self.folder.join(&key))?;
                remove(&self.folder.join(format!("{key}.log")))?;
                gone.push(key);
            }
        }
        Ok(gone)
    }

    /// A build that is there and whole.
    fn kept(&self, key: &str, watch: &dyn Watch) -> Result<Option<Kept>, LoopError> {
        let folder = self.folder.join(key);
        if !folder.exists() {
            return Ok(None);
        }
        let description = folder.join(DESCRIPTION);
        let kept = fs::read(&description).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let found = artifacts::hash(&folder.join("artifacts"));
        let Some(kept) = kept.filter(|kept| kept.key == key && found.is_ok_and(|hash| hash == kept.binary_hash)) else {
            watch.note(&format!("the stored build {} is not what it was: building it again", &key[..12]));
            return Ok(None);
        };
        let touch = |file: fs::File| file.set_modified(SystemTime::now());
        fs::File::open(&description).and_then(touch).map_err(|error| LoopError::io("touch", &description, &error))?;
        Ok(Some(kept))
    }

    /// Takes the artifacts from the stage into the store, whole or not at all. What a power cut tears is found by its
    /// hash.
    fn keep(&self, key: &str, config: &LoopConfig, seconds: f64) -> Result<Kept, LoopError> {
        let new = self.folder.join(format!("{UNFINISHED}{key}"));
        let kept = self.fill(&new, key, config, seconds).inspect_err(|_| drop(remove(&new)))?;
        let folder = self.folder.join(key);
        remove(&folder)?;
        fs::rename(&new, &folder).map_err(|error| LoopError::io("keep", &folder, &error))?;
        Ok(kept)
    }

    fn fill(&self, new: &Path, key: &str, config: &LoopConfig, seconds: f64) -> Result<Kept, LoopError> {
        let folder = new.join("artifacts");
        artifacts::take(&self.state.stage()?, &config.build.artifacts, &folder)?;
        let binary_hash = artifacts::hash(&folder).map_err(|error| LoopError::io("read", &folder, &error))?;
        let kept = Kept { key: key.to_owned(), binary_hash, seconds, time: Timestamp::now() };
        let json = serde_json::to_vec_pretty(&kept)
            .map_err(|error| LoopError::Failed(format!("a build cannot be written down: {error}")))?;
        files::write(&new.join(DESCRIPTION), &json)?;
        Ok(kept)
    }

    /// Runs the build command on a tree in the stage; returns the seconds it took.
    fn run(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
        layout: u32,
        log: &Path,
        watch: &dyn Watch,
    ) -> Result<f64, LoopError> {
        let stage = &self.state.stage()?;
        fs::create_dir_all(&self.folder).map_err(|error| LoopError::io("make", &self.folder, &error))?;
        self.remove_unfinished()?;
        // Build tools take a file for finished that was being written when they were killed.
        let building = stage.with_extension("building");
        if building.exists() {
            watch.note("the last build was cut off: building from the beginning");
            remove(stage)?;
        }
        repository.checkout(tree, stage)?;
        fs::write(&building, "").map_err(|error| LoopError::io("write", &building, &error))?;
        let words = config::fill(&config.build.command, &[("layout", &layout.to_string())])?;
        let ended = run::run(&words, stage, log, config.build.timeout, watch)?;
        if ended.is_orderly {
            remove(&building)?;
        }
        ended.into_seconds(log, config.build.timeout)
    }

    /// Removes what a process that died has left.
    fn remove_unfinished(&self) -> Result<(), LoopError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| LoopError::io("read", &self.folder, &error))?;
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
            remove(&entry.path())?;
        }
        Ok(())
    }
}

/// What the toolchain's commands say.
pub fn toolchain(config: &LoopConfig) -> Result<String, LoopError> {
    let mut said = String::new();
    for command in &config.build.toolchain {
        let words = config::words(command).map_err(LoopError::Usage)?;
        let failed = |what: String| {
            LoopError::Failed(format!("`{command}` of `build.toolchain` {what}"))
                .hint("each command there names a part of the toolchain, such as `cc --version`")
        };
        let output = Command::new(&words[0]).args(&words[1..]).output();
        let output = output.map_err(|error| failed(format!("cannot be run: {error}")))?;
        if !output.status.success() {
            return Err(failed(format!("failed ({})", output.status)));
        }
        for stream in [&output.stdout, &output.stderr] {
            said.push_str(&String::from_utf8_lossy(stream));
        }
    }
    Ok(said)
}

/// The build command of a layout.
fn command_of(config: &LoopConfig, layout: u32) -> String {
    config.build.command.replace("{layout}", &layout.to_string())
}

/// Hash of all that decides what a build makes; each part with its length, so that no two lists give the same bytes.
fn key(
    measured_tree: &str,
    config: &LoopConfig,
    layout: u32,
    toolchain: &str,
    shaping: BTreeMap<String, String>,
) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    };
    for part in ["alpha loop build 1", measured_tree, &command_of(config, layout), toolchain, env::consts::OS] {
        add(part);
    }
    add(env::consts::ARCH);
    add(&format!("{:?}", config.build.artifacts));
    for (name, value) in shaping {
        add(&name);
        add(&value);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The variables that change what compilers make. Others may differ between two calls without another trainer.
fn shaping(variables: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let shapes = |name: &str| {
        SHAPING.contains(&name)
            || (name.ends_with("FLAGS") || SHAPING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
                && !run::REMOVED.contains(&name)
    };
    let text = |(name, value): (OsString, OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    variables.map(text).filter(|(name, _)| shapes(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_what_shapes_a_build_and_on_nothing_else() {
        let text = "schema = 1\n[build]\ncommand = \"make\"\nartifacts = [\"a\", \"b\"]\n\
                    [workload]\ncommand = \"./a {steps}\"\nsteps = 50\ntokens_per_step = 8\n";
        let key_of = |text: &str, tree: &str, toolchain: &str, variables: &[(&str, &str)]| {
            let config = LoopConfig::parse(text, None).unwrap();
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            key(tree, &config, 0, toolchain, shaping(variables))
        };
        let usual = key_of(text, "tree", "cc 14", &[("CC", "gcc"), ("RUSTFLAGS", "-C debuginfo=0")]);
        let same = [
            key_of(text, "tree", "cc 14", &[("RUSTFLAGS", "-C debuginfo=0"), ("CC", "gcc"), ("TERM", "xterm")]),
            key_of(&text.replace("= 50", "= 60"), "tree", "cc 14", &[("CC", "gcc"), ("RUSTFLAGS", "-C debuginfo=0")]),
            key_of(text, "tree", "cc 14", &[("CC", "gcc"), ("RUSTFLAGS", "-C debuginfo=0"), ("MAKEFLAGS", "-j")]),
        ];
        assert!(same.iter().all(|key| *key == usual));
        let other = [
            key_of(text, "tree2", "cc 14", &[("CC", "gcc"), ("RUSTFLAGS", "-C debuginfo=0")]),
            key_of(text, "tree", "cc 15", &[("CC", "gcc"), ("RUSTFLAGS", "-C debuginfo=0")]),
            key_of(text, "tree", "cc 14", &[("CC", "clang"), ("RUSTFLAGS", "-C debuginfo=0")]),
            key_of(text, "tree", "cc 14", &[("CC", "gcc"), ("RUSTFLAGS", "-C target-cpu=x86-64-v2")]),
            key_of(text, "tree", "cc 14", &[("CC", "gcc")]),
            key_of(text, "tree", "cc 14", &[("CC", "gccRUSTFLAGS"), ("CFLAGS", "-C debuginfo=0")]),
            key_of(&text.replace("make", "make all"), "tree", "cc 14", &[]),
            key_of(&text.replace("\"a\", \"b\"", "\"a\""), "tree", "cc 14", &[]),
            key_of(text, "treecc 1", "4", &[]),
            usual,
        ];
        let distinct: std::collections::BTreeSet<&String> = other.iter().collect();
        assert_eq!(distinct.len(), other.len());
    }
}

//! The store of builds: each tree built once, at one path, by one command.
//!
//! Both arms of a comparison are built in the same folder, so that equal sources give equal binaries and paths make no
//! difference. A build is stored under the hash of the measured tree, command, environment and toolchain. Only measured
//! files are there when a tree is built. The stage keeps the files that the accepted tree's build leaves there, so
//! builds are incremental; the caller holds the [`Lock`](crate::store::state::Lock), because there is only one stage.

mod artifacts;
mod environment;
mod layer;
mod run;
mod stage;

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::SystemTime,
};

use jiff::Timestamp;
use pairbench::{
    files::{self, remove},
    folder_content,
    pair::timed_command,
    process::isolation::{Isolation, Room},
};
use serde::{Deserialize, Serialize};

use crate::{
    ErrorKind, LoopError, Progress,
    config::LoopConfig,
    git::{Elsewhere, Repository},
    store::state::State,
    visible::short,
};

use self::{
    run::BuildCommand,
    stage::{Base, Stage},
};

pub use self::environment::{Environment, home_binds};

/// The placeholder in `build.command` for the number of a layout.
const LAYOUT: &str = "{layout}";

/// Prefix of the name of a build that is not complete yet.
const UNFINISHED: &str = "unfinished-";

/// The number of builds that always stay, however large, those used last first: a comparison needs two, and the judge's
/// may be a third.
const ALWAYS_KEPT: usize = 4;

/// The store.
#[derive(Debug)]
pub struct BuildStore {
    state: State,
    folder: PathBuf,
    isolation: Arc<Isolation>,
}

/// A trainer that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Hash of everything that decided the build.
    pub key: String,
    /// Holds the artifacts under their relative paths.
    pub folder: PathBuf,
    /// Hash of the artifacts.
    pub binary_hash: String,
    /// Seconds of the build command, whenever it ran.
    pub seconds: f64,
    /// Whether it was in the store already.
    pub is_cached: bool,
    /// Output of the toolchain's commands.
    pub toolchain: String,
    /// The log of the build.
    pub log: PathBuf,
}

/// A tree that is to be built.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name in messages, such as `candidate`.
    pub name: &'a str,
    /// Its hash.
    pub tree: &'a str,
    /// How it is built.
    pub config: &'a LoopConfig,
}

/// How much the store may hold beside builds in use.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Builds.
    pub builds: usize,
    /// Bytes of all builds together.
    pub bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        // A baseline and a candidate in the layouts that a claim is confirmed over, and some more.
        StoreLimits { builds: 28, bytes: 8 << 30 }
    }
}

/// Files in a tree's top folder by which rustup, asdf, pyenv, nvm and others choose what builds it.
const TOOLCHAIN_FILES: [&str; 8] = [
    "rust-toolchain",
    "rust-toolchain.toml",
    ".tool-versions",
    "mise.toml",
    ".python-version",
    ".node-version",
    ".nvmrc",
    "global.json",
];

/// The file beside the artifacts that is written last.
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
    /// The store in the loop's folder.
    pub fn new(state: &State, isolation: Arc<Isolation>) -> BuildStore {
        BuildStore { state: state.clone(), folder: state.folder().join("builds"), isolation }
    }

    /// The build of a tree, from the store or made now. The oldest builds beyond the usual [`StoreLimits`] are removed.
    ///
    /// # Errors
    /// [`LoopError::failed`] if the build fails, takes too long or does not make its artifacts, with the end of its
    /// output; [`LoopError::refused`] if the tree cannot be laid out; [`LoopError::interrupted`] if the user asks to
    /// stop.
    pub fn build(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
        progress: &dyn Progress,
    ) -> Result<Built, LoopError> {
        let built = self.build_layouts(repository, wanted, &[0], progress)?;
        built.into_iter().next().ok_or_else(|| LoopError::failed(format!("`{}` was not built", wanted.tree)))
    }

    /// The same in other layouts of the program: `{layout}` in the command is each of these numbers. Layout 0 is the
    /// program as it is written; a command without the placeholder has no other. Missing builds are made one after the
    /// other in one place, so that only what differs is rebuilt.
    ///
    /// # Errors
    /// As [`BuildStore::build`].
    pub fn build_layouts(
        &self,
        repository: &Repository,
        wanted: Wanted<'_>,
        layouts: &[u32],
        progress: &dyn Progress,
    ) -> Result<Vec<Built>, LoopError> {
        let source = self.source(repository, wanted.tree, wanted.config)?;
        let orders =
            layouts.iter().map(|layout| source.order(*layout)).collect::<Result<Vec<Order<'_>>, LoopError>>()?;
        let mut kept = Vec::with_capacity(orders.len());
        for order in &orders {
            kept.push(self.kept(&order.key, progress)?);
        }
        let is_cached: Vec<bool> = kept.iter().map(Option::is_some).collect();
        let missing: Vec<&Order<'_>> =
            orders.iter().zip(&is_cached).filter(|(_, is_cached)| !**is_cached).map(|(order, _)| order).collect();
        if let Some(first) = missing.first() {
            let (name, tree, words) = (wanted.name, short(&source.measured_tree), first.words.join(" "));
            progress.note(&match missing.len() {
                1 => format!("building the {name} ({tree}) with `{words}`"),
                count => format!("building the {name} ({tree}) in {count} layouts, the first with `{words}`"),
            });
            let mut made = self.make(repository, &missing, progress)?.into_iter();
            kept.iter_mut().filter(|kept| kept.is_none()).for_each(|kept| *kept = made.next());
            let keys: Vec<&str> = orders.iter().map(|order| order.key.as_str()).collect();
            self.prune(&keys, StoreLimits::default())?;
        }
        let found = orders.iter().zip(kept).zip(is_cached).map(|((order, kept), is_cached)| {
            let kept = kept.ok_or_else(|| LoopError::failed(format!("the build {} was not kept", order.key)))?;
            let Kept { key, binary_hash, seconds, .. } = kept;
            let (folder, log) = (self.folder.join(&key).join("artifacts"), self.log(&key));
            Ok(Built { key, folder, binary_hash, seconds, is_cached, toolchain: source.toolchain.clone(), log })
        });
        found.collect()
    }

    /// Whether the store has the build of a tree.
    pub fn has(&self, repository: &Repository, tree: &str, config: &LoopConfig) -> Result<bool, LoopError> {
        let key = self.source(repository, tree, config)?.order(0)?.key;
        Ok(self.folder.join(key).join(DESCRIPTION).exists())
    }

    /// The log of a tree's last build, if that build was not kept: it failed, was stopped, or is at work.
    pub fn log_without_build(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
    ) -> Result<Option<PathBuf>, LoopError> {
        let key = self.source(repository, tree, config)?.order(0)?.key;
        let is_kept = self.folder.join(&key).join(DESCRIPTION).exists();
        Ok(Some(self.log(&key)).filter(|log| !is_kept && log.exists()))
    }

    /// Builds a tree again, without the store, in a stage that is only for timing; returns the seconds it took.
    /// Continues from the tree that was built there last.
    pub fn rebuild(
        &self,
        repository: &Repository,
        tree: &str,
        config: &LoopConfig,
        progress: &dyn Progress,
    ) -> Result<f64, LoopError> {
        let source = self.source(repository, tree, config)?;
        let order = source.order(0)?;
        let stage = Stage::new(self.state.timed_stage()?);
        stage.prepare(|_| true, progress)?;
        let log = self.prepare_log("rebuild.log")?;
        self.run_in_stage(Site { repository, stage: &stage, progress }, &order, tree, &log)
    }

    /// Output of the toolchain's commands, in the environment of builds and beside the files by which a tree chooses a
    /// toolchain.
    pub fn toolchain(&self, repository: &Repository, tree: &str, config: &LoopConfig) -> Result<String, LoopError> {
        if config.build.toolchain.is_empty() {
            return Ok(String::new());
        }
        // Another command may be building: its home must stay as it is.
        let home = Environment::new(&config.build, self.state.build_home()?).with_own_home()?;
        let environment = home.environment();
        for name in TOOLCHAIN_FILES {
            if let Some(content) = repository.read_file(tree, name)? {
                files::write(&environment.home().join(name), &content)?;
            }
        }
        let mut said = String::new();
        for command in &config.build.toolchain {
            let words = timed_command::words(command)?;
            let failed = |what: String| {
                LoopError::failed(format!("`{command}` of `build.toolchain` {what}"))
                    .hint("each command there names a part of the toolchain, such as `cc --version`")
            };
            let mut command = Command::new(&words[0]);
            // Not run in the working tree, which may choose another toolchain than the tree that is built.
            command.args(&words[1..]).current_dir(environment.home());
            environment.apply(&mut command);
            let output = command.output().map_err(|error| failed(format!("cannot be run: {error}")))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let last =
                    said.trim_end().lines().next_back().map_or(String::new(), |line| format!(": {}", line.trim()));
                return Err(failed(format!("failed ({}){last}", output.status)));
            }
            for stream in [&output.stdout, &output.stderr] {
                said.push_str(&home.as_usual(stream));
            }
        }
        Ok(said)
    }

    /// The source of a build: everything that decides it but the layout.
    fn source<'a>(&self, repository: &Repository, tree: &str, config: &'a LoopConfig) -> Result<Source<'a>, LoopError> {
        let toolchain = self.toolchain(repository, tree, config)?;
        let environment = Environment::new(&config.build, self.state.build_home()?);
        let measured_tree = repository.measured_tree(tree, &config.unmeasured())?;
        Ok(Source { config, measured_tree, environment, toolchain })
    }

    /// Where a build's output goes.
    fn log(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.log"))
    }

    /// Removes builds, least recently used first, until the limits hold. The builds `keep` and the few used last always
    /// stay. Returns the removed keys.
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
            *bytes += folder_content::size_bytes(&path).map_err(failed)?;
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

    /// A stored build, if it is complete.
    fn kept(&self, key: &str, progress: &dyn Progress) -> Result<Option<Kept>, LoopError> {
        let folder = self.folder.join(key);
        if !folder.exists() {
            return Ok(None);
        }
        let description = folder.join(DESCRIPTION);
        let kept = fs::read(&description).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let found = folder_content::hash(&folder.join("artifacts"));
        let Some(kept) = kept.filter(|kept| kept.key == key && found.is_ok_and(|hash| hash == kept.binary_hash)) else {
            progress.note(&format!("the stored build {} is not what it was: building it again", &key[..12]));
            return Ok(None);
        };
        let touch = |file: fs::File| file.set_modified(SystemTime::now());
        fs::File::open(&description).and_then(touch).map_err(|error| LoopError::io("touch", &description, &error))?;
        Ok(Some(kept))
    }

    /// Builds the orders of one source and stores them: in the stage itself if it is HEAD's tree as it is written, else
    /// in a layer on top of the stage.
    fn make(
        &self,
        repository: &Repository,
        orders: &[&Order<'_>],
        progress: &dyn Progress,
    ) -> Result<Vec<Kept>, LoopError> {
        let [first, ..] = orders else { return Ok(Vec::new()) };
        let source = first.source;
        let base_log = self.prepare_log("base.log")?;
        let head = repository.head()?;
        let accepted = repository.measured_tree(&head.tree, &source.config.unmeasured())?;
        let stage = Stage::new(self.state.stage()?);
        // A rewritten history, another branch or a commit that no longer exists may hold changes that were never
        // accepted here.
        stage.prepare(|base| repository.is_ancestor(&base.commit, &head.commit).unwrap_or(false), progress)?;
        let site = Site { repository, stage: &stage, progress };
        if orders.len() == 1 && first.layout == 0 && source.measured_tree == accepted {
            let seconds = self.run_in_stage(site, first, &head.commit, &self.log(&first.key))?;
            return Ok(vec![self.keep(first, stage.tree(), stage.tree(), seconds)?]);
        }
        if stage.base().and_then(|base| base.measured_tree).as_ref() != Some(&accepted) {
            progress.note(&format!("building HEAD ({}) first: what else is built goes on from it", short(&accepted)));
            let accepted = self.source(repository, &head.tree, source.config)?;
            match self.run_in_stage(site, &accepted.order(0)?, &head.commit, &base_log) {
                // Another tree may build even if HEAD does not; it continues from what is there.
                Err(error) if error.kind == ErrorKind::Failed && stage.base().is_some() => {
                    progress.note("HEAD does not build");
                }
                other => drop(other?),
            }
        }
        let layer = stage.layer()?;
        let outside = layer.outside(stage.tree());
        let wrapper = layer.wrapper(stage.tree())?;
        let elsewhere = Elsewhere { outside: outside.clone(), wrapper: wrapper.clone() };
        forget_artifacts(repository, source, &outside)?;
        repository.checkout_elsewhere(&source.measured_tree, stage.tree(), elsewhere)?;
        let timeout = source.config.build.timeout;
        let mut kept = Vec::with_capacity(orders.len());
        for order in orders {
            let words = &[wrapper.clone(), self.behind_walls(order, stage.tree())?].concat();
            let environment = &source.environment;
            environment.make_home()?;
            let log = &self.log(&order.key);
            let ended = BuildCommand { words, folder: stage.tree(), environment, log, timeout }.run(progress)?;
            let seconds = ended.into_seconds(log, timeout)?;
            kept.push(self.keep(order, &outside, stage.tree(), seconds)?);
        }
        layer.discard()?;
        Ok(kept)
    }

    /// The words of the build command, behind walls where there are any: it may write to its tree and its home.
    fn behind_walls(&self, order: &Order<'_>, tree: &Path) -> Result<Vec<String>, LoopError> {
        let home = order.source.environment.home();
        let room = Room {
            folder: tree.to_owned(),
            inside: tree.to_owned(),
            writable: vec![home.to_owned()],
            tmp: home.join("tmp"),
            readable: Vec::new(),
        };
        Ok([self.isolation.wrapper(&room)?, order.words.clone()].concat())
    }

    /// Runs the build command on a tree in the stage itself; returns the seconds it took.
    fn run_in_stage(&self, site: Site<'_>, order: &Order<'_>, commit: &str, log: &Path) -> Result<f64, LoopError> {
        let Site { repository, stage, progress } = site;
        stage.begin()?;
        let source = order.source;
        forget_artifacts(repository, source, stage.tree())?;
        repository.checkout(&source.measured_tree, stage.tree())?;
        let timeout = source.config.build.timeout;
        source.environment.make_home()?;
        let words = &self.behind_walls(order, stage.tree())?;
        let environment = &source.environment;
        let ended = BuildCommand { words, folder: stage.tree(), environment, log, timeout }.run(progress)?;
        let is_orderly = ended.is_orderly;
        let seconds = ended.into_seconds(log, timeout);
        // After a kill, build tools would take a half-written file for finished.
        if is_orderly {
            let measured_tree = seconds.is_ok().then(|| source.measured_tree.clone());
            stage.finish(&Base { commit: commit.to_owned(), measured_tree })?;
        }
        seconds
    }

    /// The path of a log, after making its folder and removing what a dead process left there.
    fn prepare_log(&self, name: &str) -> Result<PathBuf, LoopError> {
        fs::create_dir_all(&self.folder).map_err(|error| LoopError::io("make", &self.folder, &error))?;
        self.remove_unfinished()?;
        Ok(self.folder.join(name))
    }

    /// Moves the artifacts of a built tree into the store, whole or not at all. Damage by a power cut shows in the
    /// hash. The tree is at `place`, and its build saw it as `path`.
    fn keep(&self, order: &Order<'_>, place: &Path, path: &Path, seconds: f64) -> Result<Kept, LoopError> {
        let new = self.folder.join(format!("{UNFINISHED}{}", order.key));
        let fill = || -> Result<Kept, LoopError> {
            let folder = new.join("artifacts");
            artifacts::take(place, path, &order.source.config.build.artifacts, &folder)?;
            let binary_hash = folder_content::hash(&folder).map_err(|error| LoopError::io("read", &folder, &error))?;
            let kept = Kept { key: order.key.clone(), binary_hash, seconds, time: Timestamp::now() };
            let json = serde_json::to_vec_pretty(&kept)
                .map_err(|error| LoopError::failed(format!("a build cannot be written down: {error}")))?;
            files::write(&new.join(DESCRIPTION), &json)?;
            Ok(kept)
        };
        let kept = fill().inspect_err(|_| drop(remove(&new)))?;
        let folder = self.folder.join(&order.key);
        remove(&folder)?;
        fs::rename(&new, &folder).map_err(|error| LoopError::io("keep", &folder, &error))?;
        Ok(kept)
    }

    /// Removes the unfinished builds of a dead process.
    fn remove_unfinished(&self) -> Result<(), LoopError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| LoopError::io("read", &self.folder, &error))?;
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
            remove(&entry.path())?;
        }
        Ok(())
    }
}

/// Removes the artifacts that an earlier build left in a tree, except tracked ones: a user with a clean clone does not
/// get artifacts that a build keeps or reuses.
fn forget_artifacts(repository: &Repository, source: &Source<'_>, place: &Path) -> Result<(), LoopError> {
    for artifact in &source.config.build.artifacts {
        if !repository.holds(&source.measured_tree, artifact)? {
            files::remove(&place.join(artifact))?;
        }
    }
    Ok(())
}

/// Where a build runs, the repository of its tree, and who watches.
#[derive(Clone, Copy)]
struct Site<'a> {
    repository: &'a Repository,
    stage: &'a Stage,
    progress: &'a dyn Progress,
}

/// A tree and everything that turns it into programs.
struct Source<'a> {
    config: &'a LoopConfig,
    measured_tree: String,
    environment: Environment,
    toolchain: String,
}

/// One program of a source.
struct Order<'a> {
    source: &'a Source<'a>,
    layout: u32,
    words: Vec<String>,
    key: String,
}

impl Source<'_> {
    fn order(&self, layout: u32) -> Result<Order<'_>, LoopError> {
        let layout = if self.config.build.command.contains(LAYOUT) { layout } else { 0 };
        let key = key(&self.measured_tree, self.config, &self.toolchain, &self.environment, layout);
        let words = timed_command::fill(&self.config.build.command, &[("layout", &layout.to_string())])?;
        Ok(Order { source: self, layout, words, key })
    }
}

/// Hash of everything that decides what a build makes; each part has its length, so that no two lists give the same
/// bytes.
fn key(measured_tree: &str, config: &LoopConfig, toolchain: &str, environment: &Environment, layout: u32) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    let artifacts = format!("{:?}", config.build.artifacts);
    for part in ["alpha loop build 2", measured_tree, &config.build.command, toolchain, env::consts::OS] {
        add(part.as_bytes());
    }
    for part in [env::consts::ARCH, &artifacts, &layout.to_string()] {
        add(part.as_bytes());
    }
    for (name, value) in environment.parts() {
        add(name);
        add(value);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_what_shapes_a_build_and_on_nothing_else() {
        let text = "schema = 1\n[build]\ncommand = \"make {layout}\"\nartifacts = [\"a\", \"b\"]\n\
                    [workload]\ncommand = \"./a {steps}\"\nsteps = 50\ntokens_per_step = 8\n";
        let key_of = |text: &str, tree: &str, toolchain: &str, layout| {
            let config = LoopConfig::parse(text, None).unwrap();
            let environment = Environment::new(&config.build, PathBuf::from("/home"));
            key(tree, &config, toolchain, &environment, layout)
        };
        let usual = key_of(text, "tree", "cc 14", 0);
        // A name without a value is not a variable; a variable without a name in the list does not count.
        let unset = text.replace("[workload]", "environment = [\"ALPHA_NEVER_SET\"]\n[workload]");
        for same in [key_of(&text.replace("= 50", "= 60"), "tree", "cc 14", 0), key_of(&unset, "tree", "cc 14", 0)] {
            assert_eq!(same, usual);
        }
        // Cargo sets it for every test.
        let named = text.replace("[workload]", "environment = [\"CARGO_MANIFEST_DIR\"]\n[workload]");
        let other = [
            key_of(text, "tree2", "cc 14", 0),
            key_of(text, "tree", "cc 15", 0),
            key_of(text, "tree", "cc 14", 1),
            key_of(&named, "tree", "cc 14", 0),
            key_of(&text.replace("make", "make all"), "tree", "cc 14", 0),
            key_of(&text.replace("\"a\", \"b\"", "\"a\""), "tree", "cc 14", 0),
            key_of(text, "treecc 1", "4", 0),
            usual,
        ];
        let distinct: std::collections::BTreeSet<&String> = other.iter().collect();
        assert_eq!(distinct.len(), other.len());
    }
}

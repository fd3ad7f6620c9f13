//! The loop's own folder, inside git's: lock, open cycle, builds, attempts. The stage and trainers' folders are outside
//! of it.
//!
//! It is in the repository's common git folder, so that `git clean` leaves it alone and all work trees share it. The
//! lock ends with its process.
//!
//! The stage, where trees are built, must not be below the working tree: build tools look for their configuration in
//! all folders above (`.cargo/config.toml`, `rust-toolchain.toml`, `node_modules` …) and would build the baseline with
//! the candidate's. So the stage is in the user's cache folder, and so are the folders that trainers run in, so that
//! trainers do not find the working tree further up.

use std::{
    env, fs,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use pairbench::files;
use serde::{Deserialize, Serialize};

use crate::{LoopError, git::Repository};

pub use crate::parity::Tier;

/// More than a question about the lock takes, and the number of times to wait for one.
const QUESTION: Duration = Duration::from_millis(5);
const QUESTIONS: usize = 6;

/// An open cycle, since `alpha loop start`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cycle {
    /// What is to be shown, in a sentence.
    pub hypothesis: String,
    /// A name of `[areas]`.
    #[serde(default)]
    pub area: Option<String>,
    /// How equal the training must stay.
    #[serde(default)]
    pub tier: Tier,
    /// A name of `[targets]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The commit that the change is measured against.
    pub baseline: String,
    /// When it was opened.
    pub started: Timestamp,
}

impl Cycle {
    /// A cycle that starts now.
    pub fn new(hypothesis: &str, area: Option<&str>, tier: Tier, baseline: &str) -> Cycle {
        Cycle {
            hypothesis: hypothesis.to_owned(),
            area: area.map(str::to_owned),
            tier,
            target: None,
            baseline: baseline.to_owned(),
            started: Timestamp::now(),
        }
    }
}

/// The loop's folders of a repository.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
    /// The folder of the working tree: each linked working tree has its own cycle.
    of_worktree: PathBuf,
    scratch: Option<PathBuf>,
}

/// Held while a command changes the state or measures.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Lock {
    /// The locked file: a process that inherits it keeps the lock.
    pub fn file(&self) -> &fs::File {
        &self.file
    }
}

impl State {
    /// Opens the folder of a repository, made if it is not there. The stage is in `$XDG_CACHE_HOME/alpha`, else in
    /// `~/.cache/alpha`.
    pub fn open(repository: &Repository) -> Result<State, LoopError> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        State::open_with(repository, caches.map(|caches| caches.join("alpha")))
    }

    /// As [`State::open`], with the stage in the folder `cache`.
    pub fn open_in(repository: &Repository, cache: &Path) -> Result<State, LoopError> {
        State::open_with(repository, Some(cache.to_owned()))
    }

    fn open_with(repository: &Repository, cache: Option<PathBuf>) -> Result<State, LoopError> {
        let common = repository.common_dir();
        let folder = common.join("alpha-loop");
        let of_worktree = repository.git_dir().join("alpha-loop");
        for folder in [&folder, &of_worktree] {
            fs::create_dir_all(folder).map_err(|error| LoopError::io("make", folder, &error))?;
        }
        let name = &blake3::hash(common.as_os_str().as_bytes()).to_hex()[..16];
        let scratch = cache.map(|cache| cache.join("loop").join(name));
        Ok(State { folder, of_worktree, scratch })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All folders of the loop's own.
    pub fn folders(&self) -> Vec<PathBuf> {
        let of_worktree = Some(self.of_worktree.clone()).filter(|folder| *folder != self.folder);
        [Some(self.folder.clone()), of_worktree, self.scratch.clone()].into_iter().flatten().collect()
    }

    /// The one folder in which trees of this repository are built, one after the other, under the lock. The folder
    /// above belongs to the stage.
    ///
    /// # Errors
    /// [`LoopError::usage`] where the user has no cache folder.
    pub fn stage(&self) -> Result<PathBuf, LoopError> {
        Ok(self.scratch()?.join("stage/tree"))
    }

    /// The folder in which builds are only timed, never stored: one arm after the other.
    ///
    /// # Errors
    /// As [`State::stage`].
    pub fn timed_stage(&self) -> Result<PathBuf, LoopError> {
        Ok(self.scratch()?.join("timed/tree"))
    }

    /// The home of builds.
    ///
    /// # Errors
    /// As [`State::stage`].
    pub fn build_home(&self) -> Result<PathBuf, LoopError> {
        Ok(self.scratch()?.join("home"))
    }

    /// The folder in which trainers' folders are made.
    ///
    /// # Errors
    /// As [`State::stage`].
    pub fn work(&self) -> Result<PathBuf, LoopError> {
        Ok(self.scratch()?.join("work"))
    }

    fn scratch(&self) -> Result<&Path, LoopError> {
        self.scratch.as_deref().ok_or_else(|| {
            LoopError::usage("there is no folder to build in: neither `XDG_CACHE_HOME` nor `HOME` is set")
                .hint("set `XDG_CACHE_HOME` to a folder with room for a build")
        })
    }

    /// Takes the lock, or fails with its holder.
    pub fn lock(&self) -> Result<Lock, LoopError> {
        let path = self.lock_path();
        let failed = |error: std::io::Error| LoopError::io("lock", &path, &error);
        let mut file =
            fs::OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path).map_err(failed)?;
        match lock_soon(&file) {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let holder = self.named_holder();
                return Err(LoopError::usage(format!("another loop works in this repository ({holder})"))
                    .hint("two at once would measure each other; wait for it"));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let written = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        written.map_err(failed)?;
        Ok(Lock { file })
    }

    /// Another process that has the lock, in words.
    pub fn other_holder(&self) -> Result<Option<String>, LoopError> {
        let path = self.lock_path();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoopError::io("open", &path, &error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(fs::TryLockError::WouldBlock) => {
                let holder = self.named_holder();
                Ok(Some(holder).filter(|holder| *holder != named(std::process::id())))
            }
            Err(fs::TryLockError::Error(error)) => Err(LoopError::io("lock", &path, &error)),
        }
    }

    /// The process that has the lock, in words. Its number is missing until it has written it.
    fn named_holder(&self) -> String {
        let holder = fs::read_to_string(self.lock_path()).unwrap_or_default();
        holder.trim().parse().map_or("its process number is not known".into(), named)
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join("lock")
    }

    fn cycle_path(&self) -> PathBuf {
        self.of_worktree.join("cycle.json")
    }

    /// The open cycle. A file that cannot be read is moved aside, never dropped.
    pub fn cycle(&self) -> Result<Option<Cycle>, LoopError> {
        let path = self.cycle_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoopError::io("read", &path, &error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(cycle) => Ok(Some(cycle)),
            Err(error) => {
                // Down to the nanosecond, so that no earlier one is written over.
                let time = Timestamp::now().strftime("%Y%m%dT%H%M%S.%9fZ");
                let aside = self.of_worktree.join(format!("cycle.json.broken-{time}"));
                fs::rename(&path, &aside).map_err(|error| LoopError::io("move", &path, &error))?;
                Err(LoopError::failed(format!(
                    "the open cycle's file is broken ({error}); it was moved to `{}`",
                    aside.display()
                ))
                .hint("`alpha loop start` opens a new one; records and attempts are kept"))
            }
        }
    }

    /// Writes the cycle to disk.
    pub fn open_cycle(&self, cycle: &Cycle) -> Result<(), LoopError> {
        let json = serde_json::to_vec_pretty(cycle)
            .map_err(|error| LoopError::failed(format!("the cycle cannot be written: {error}")))?;
        files::write(&self.cycle_path(), &json)
    }

    /// Ends the cycle.
    pub fn close_cycle(&self) -> Result<(), LoopError> {
        match fs::remove_file(self.cycle_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LoopError::io("remove", &self.cycle_path(), &error))
            }
            _ => Ok(()),
        }
    }
}

fn named(process: u32) -> String {
    format!("process {process}")
}

/// Takes the lock, after a moment if [`State::other_holder`] of another process is asking who has it.
fn lock_soon(file: &fs::File) -> Result<(), fs::TryLockError> {
    for _ in 0..QUESTIONS {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => thread::sleep(QUESTION),
            other => return other,
        }
    }
    file.try_lock()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn state() -> (TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let state = State { of_worktree: folder.clone(), folder, scratch: None };
        (dir, state)
    }

    fn names(dir: &TempDir) -> BTreeSet<String> {
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_second_one_is_told_who_holds_the_lock() {
        let (dir, state) = state();
        let lock = state.lock().unwrap();
        let error = state.lock().unwrap_err();
        assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        assert_eq!(error.exit_code(), 2);
        fs::write(dir.path().join("lock"), "").unwrap();
        let error = state.lock().unwrap_err();
        assert!(error.to_string().contains("not known"), "{error}");
        drop(lock);
        state.lock().unwrap();
        // A number from an earlier holder is not a lock.
        fs::write(dir.path().join("lock"), "4000000000 and more").unwrap();
        state.lock().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), std::process::id().to_string());
    }

    #[test]
    fn a_question_does_not_take_the_lock() {
        let (_dir, state) = state();
        assert_eq!(state.other_holder().unwrap(), None);
        let lock = state.lock().unwrap();
        assert_eq!(state.other_holder().unwrap(), None, "this process asks about itself");
        fs::write(state.lock_path(), "4000000000").unwrap();
        assert_eq!(state.other_holder().unwrap().as_deref(), Some("process 4000000000"));
        drop(lock);
        assert_eq!(state.other_holder().unwrap(), None);
        // One who asks at the wrong moment.
        let asks = fs::File::open(state.lock_path()).unwrap();
        asks.lock_shared().unwrap();
        let answered = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1));
            drop(asks);
        });
        state.lock().unwrap();
        answered.join().unwrap();
    }

    #[test]
    fn who_inherits_the_lock_holds_it() {
        let (_dir, state) = state();
        let lock = state.lock().unwrap();
        let inherited = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(state.lock().is_err());
        drop(inherited);
        state.lock().unwrap();
    }

    #[test]
    fn a_cycle_is_kept_until_it_is_closed() {
        let (dir, state) = state();
        assert_eq!(state.cycle().unwrap(), None);
        let cycle = Cycle::new("fewer passes; größer \"quoted\"\n", Some("attention"), Tier::T2, &"a".repeat(40));
        state.open_cycle(&cycle).unwrap();
        assert_eq!(state.cycle().unwrap(), Some(cycle));
        let other = Cycle::new("another", None, Tier::default(), "b");
        state.open_cycle(&other).unwrap();
        assert_eq!(state.cycle().unwrap(), Some(other));
        assert_eq!(names(&dir).len(), 1);
        state.close_cycle().unwrap();
        state.close_cycle().unwrap();
        assert_eq!(state.cycle().unwrap(), None);
        assert!(names(&dir).is_empty());
    }

    #[test]
    fn fields_of_later_versions_are_no_obstacle() {
        let (dir, state) = state();
        let json = r#"{"hypothesis":"h","baseline":"c","started":"2026-11-22T15:54:00Z","later":[1]}"#;
        fs::write(dir.path().join("cycle.json"), json).unwrap();
        let cycle = state.cycle().unwrap().unwrap();
        assert_eq!((cycle.area, cycle.tier, cycle.started.as_second()), (None, Tier::T1, 1_795_362_840));
    }

    #[test]
    fn broken_files_are_moved_aside_one_by_one() {
        let (dir, state) = state();
        let broken = ["", "{", r#"{"hypothesis":"h"}"#, "[]", "\0\u{1}"];
        for text in broken {
            fs::write(dir.path().join("cycle.json"), text).unwrap();
            let error = state.cycle().unwrap_err();
            assert!(error.to_string().contains("cycle.json.broken-"), "{error}");
            assert_eq!(error.exit_code(), 1);
            assert_eq!(state.cycle().unwrap(), None);
        }
        let kept: BTreeSet<String> =
            names(&dir).iter().map(|name| fs::read_to_string(dir.path().join(name)).unwrap()).collect();
        assert_eq!(kept, broken.map(String::from).into());
    }

    #[test]
    fn without_a_cache_folder_only_building_fails() {
        let (_dir, state) = state();
        let error = state.stage().unwrap_err();
        assert!(error.to_string().contains("XDG_CACHE_HOME"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    proptest! {
        #[test]
        fn any_file_is_a_cycle_or_moved_aside(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (dir, state) = state();
            fs::write(dir.path().join("cycle.json"), &bytes).unwrap();
            if state.cycle().is_err() {
                prop_assert_eq!(state.cycle().unwrap(), None);
                let kept = names(&dir).into_iter().next().unwrap();
                prop_assert_eq!(fs::read(dir.path().join(kept)).unwrap(), bytes);
            }
        }
    }
}

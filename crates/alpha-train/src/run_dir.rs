//! The folder of a run: one process at a time, and no run is lost to the next one.
//!
//! The lock is an `flock` on `.lock`, which the system releases when the process dies, however
//! it dies. Only files that a run writes are ever moved or deleted: a folder chosen by mistake keeps its other files, and
//! is refused if these have names that a run uses.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::Value;

use crate::{error::TrainError, files, metrics};

/// Name of the file with the resolved configuration.
pub const CONFIG_FILE_NAME: &str = "config.json";

const LOCK_FILE_NAME: &str = ".lock";

/// Names of the files and folders that a run writes; a `*` at the end stands for any rest.
pub const ENTRIES: [&str; 11] = [
    CONFIG_FILE_NAME,
    metrics::FILE_NAME,
    metrics::SAMPLES_FILE_NAME,
    "trace.json",
    "kernels.json",
    "trace-to-*",
    "kernels-to-*",
    "checkpoint-*",
    "nonfinite-*",
    "weights-*",
    ".tmp-*",
];

/// Names that show that a folder has been used by a run.
const SIGNS_OF_A_RUN: [&str; 2] = [metrics::FILE_NAME, "checkpoint-*"];

fn is_one_of(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *pattern,
    })
}

/// A run folder, which is locked while the value lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
    #[cfg(unix)]
    folder: File,
}

/// A folder for a new run, and what happened to earlier ones.
#[derive(Debug)]
pub struct Created {
    /// The folder.
    pub run_dir: RunDir,
    /// Where the earlier run in it is now.
    pub moved_to: Option<PathBuf>,
    /// Runs that had been moved aside before, and were deleted.
    pub removed: Vec<PathBuf>,
}

impl RunDir {
    /// Opens the folder for a new run, creating it where needed. An earlier run in it is moved to
    /// `<folder>.old-<timestamp>`; of such folders the newest is kept, and those that hold something of `in_use`.
    pub fn create(path: &Path, in_use: &[PathBuf]) -> Result<Created, TrainError> {
        let run_dir = RunDir::resume(path)?;
        let mut removed = Vec::new();
        let moved_to = run_dir.set_aside(SystemTime::now(), in_use, &mut removed)?;
        Ok(Created { run_dir, moved_to, removed })
    }

    /// Opens the folder to go on with what is in it, creating it where needed.
    pub fn resume(path: &Path) -> Result<RunDir, TrainError> {
        fs::create_dir_all(path).map_err(|source| TrainError::io("create", path, source))?;
        Ok(RunDir {
            path: path.into(),
            _lock: lock(path)?,
            #[cfg(unix)]
            folder: File::open(path).map_err(|source| TrainError::io("open", path, source))?,
        })
    }

    /// Follows a folder that was renamed during the run: whatever has its name now is not this run's.
    ///
    /// # Errors
    /// [`TrainError::RunDirGone`] where it cannot be found.
    #[cfg(unix)]
    pub fn follow(&mut self) -> Result<(), TrainError> {
        use std::os::{fd::AsRawFd, unix::fs::MetadataExt};
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let own = self.folder.metadata().map(identity).map_err(|source| TrainError::io("read", &self.path, source))?;
        let is_it = |path: &Path| fs::metadata(path).is_ok_and(|found| identity(found) == own);
        if is_it(&self.path) {
            return Ok(());
        }
        // On Linux the open folder tells its new name.
        let now = fs::read_link(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).unwrap_or_default();
        if !is_it(&now) {
            return Err(TrainError::RunDirGone { path: self.path.clone() });
        }
        self.path = now;
        Ok(())
    }

    /// Elsewhere a folder that is in use cannot be renamed.
    #[cfg(not(unix))]
    pub fn follow(&mut self) -> Result<(), TrainError> {
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the resolved configuration.
    pub fn write_config(&self, config: &impl Serialize) -> Result<(), TrainError> {
        files::write_json_atomically(&self.path.join(CONFIG_FILE_NAME), config)
    }

    fn set_aside(
        &self,
        mut now: SystemTime,
        in_use: &[PathBuf],
        removed: &mut Vec<PathBuf>,
    ) -> Result<Option<PathBuf>, TrainError> {
        let names = entry_names(&self.path)?;
        if !names.iter().any(|name| is_one_of(name, &SIGNS_OF_A_RUN)) {
            return Ok(None);
        }
        let absolute = fs::canonicalize(&self.path).map_err(|source| TrainError::io("read", &self.path, source))?;
        let parent = files::parent(&absolute);
        let mut prefix = OsString::from(absolute.file_name().unwrap_or_default());
        prefix.push(".old-");
        let old_name = loop {
            let mut old_name = prefix.clone();
            old_name.push(timestamp(now));
            if !parent.join(&old_name).exists() {
                break old_name;
            }
            now += Duration::from_secs(1); // another was moved aside within the same second
        };
        let old = parent.join(&old_name);
        fs::create_dir_all(&old).map_err(|source| TrainError::io("create", &old, source))?;
        for name in names.iter().filter(|name| is_one_of(name, &ENTRIES)) {
            let (from, to) = (self.path.join(name), old.join(name));
            fs::rename(&from, &to).map_err(|source| TrainError::io("move", &from, source))?;
        }
        for dir in [&old, &absolute, parent] {
            files::sync_dir(dir).map_err(|source| TrainError::io("write", dir, source))?;
        }
        *removed = remove_older(parent, &prefix.to_string_lossy(), &old_name.to_string_lossy(), in_use)?;
        Ok(Some(self.path.with_file_name(&old_name)).filter(|path| path.is_dir()).or(Some(old)))
    }
}

/// Deletes the folders of earlier runs set aside before the one called `newest`, but for those that hold something in use.
fn remove_older(parent: &Path, prefix: &str, newest: &str, in_use: &[PathBuf]) -> Result<Vec<PathBuf>, TrainError> {
    let in_use: Vec<PathBuf> = in_use.iter().filter_map(|path| path.canonicalize().ok()).collect();
    // A run that never saved anything does not push out the one before it that did.
    let is_kept = older_checkpoint_below(parent, prefix)?.map(|checkpoint| files::parent(&checkpoint).to_path_buf());
    let mut removed = Vec::new();
    for name in entry_names(parent)? {
        let is_old = name.strip_prefix(prefix).is_some_and(is_timestamp) && *name < *newest;
        let path = parent.join(name);
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if is_old && is_kept.as_ref() != Some(&path) && !in_use.iter().any(|used| used.starts_with(&real)) {
            files::remove_dir_atomically(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// The newest checkpoint of the newest earlier run that was moved aside and has one.
pub fn older_checkpoint(run_dir: &Path) -> Result<Option<PathBuf>, TrainError> {
    let Ok(absolute) = fs::canonicalize(run_dir) else { return Ok(None) };
    let prefix = format!("{}.old-", absolute.file_name().unwrap_or_default().to_string_lossy());
    older_checkpoint_below(files::parent(&absolute), &prefix)
}

fn older_checkpoint_below(parent: &Path, prefix: &str) -> Result<Option<PathBuf>, TrainError> {
    let mut names = entry_names(parent)?;
    names.retain(|name| name.strip_prefix(prefix).is_some_and(is_timestamp));
    names.sort();
    for name in names.iter().rev() {
        if let Some(saved) = crate::checkpoint::newest(&parent.join(name))? {
            return Ok(Some(saved.path));
        }
    }
    Ok(None)
}

/// Refuses a folder for a new run in which files have the names that a run uses and no run has been. A configuration that a run
/// wrote before its first step is one of ours.
///
/// # Errors
/// [`TrainError::RunDirTaken`].
pub fn check_is_free(path: &Path) -> Result<(), TrainError> {
    if !path.is_dir() {
        return Ok(()); // made, or said to be a file, when it is opened
    }
    let names = entry_names(path)?;
    if names.iter().any(|name| is_one_of(name, &SIGNS_OF_A_RUN)) {
        return Ok(());
    }
    let is_foreign = |name: &&String| match name.as_str() {
        CONFIG_FILE_NAME => {
            !read_run_config(path).is_ok_and(|config| config.is_some_and(|config| config.get("accumSteps").is_some()))
        }
        name => ENTRIES.contains(&name),
    };
    names.iter().find(is_foreign).map_or(Ok(()), |name| Err(taken(path, name, "which no run of alpha has written")))
}

/// Refuses a run folder in which files that the run is to read have the names that it writes. Checkpoints may be read: they are
/// loaded before anything is moved.
///
/// # Errors
/// [`TrainError::RunDirTaken`].
pub fn check_is_read_elsewhere(path: &Path, in_use: &[PathBuf]) -> Result<(), TrainError> {
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    for used in in_use.iter().filter_map(|path| path.canonicalize().ok()) {
        let first =
            used.strip_prefix(&real).ok().and_then(|inside| inside.iter().next()).and_then(|name| name.to_str());
        if let Some(name) = first.filter(|name| is_one_of(name, &ENTRIES) && !name.starts_with("checkpoint-")) {
            return Err(taken(path, name, "which this run is to read"));
        }
    }
    Ok(())
}

fn taken(path: &Path, name: &str, why: &'static str) -> TrainError {
    TrainError::RunDirTaken { path: path.into(), name: name.into(), why }
}

fn entry_names(dir: &Path) -> Result<Vec<String>, TrainError> {
    Ok(files::entries(dir)?.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn lock(dir: &Path) -> Result<File, TrainError> {
    let path = dir.join(LOCK_FILE_NAME);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(|source| TrainError::io("open", &path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            let holder = text.trim().parse::<u32>();
            let holder = holder.map_or("another process".into(), |pid| format!("process {pid}"));
            return Err(TrainError::RunDirInUse { path: dir.into(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(TrainError::io("lock", &path, source)),
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()))
        .map_err(|source| TrainError::io("write", &path, source))?;
    Ok(file)
}

/// Reads the configuration of an earlier run in a folder; none where there is none.
pub fn read_run_config(run_dir: &Path) -> Result<Option<Value>, TrainError> {
    let path = run_dir.join(CONFIG_FILE_NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TrainError::io("read", &path, source)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| TrainError::broken(&path, error))
}

/// A name for a run that has been given no folder: a timestamp, and a suffix that tells apart what
/// begins in the same second.
pub fn new_run_id() -> String {
    let now = SystemTime::now();
    let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.subsec_nanos());
    let mixed = (nanos ^ std::process::id()).wrapping_mul(0x9E37_79B9);
    format!("{}-{:04x}", timestamp(now), mixed >> 16)
}

/// `20260228T030437Z`.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn is_timestamp(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level
/// date algorithms", `civil_from_days`): years begin in March, so that the leap day comes last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_agree_with_the_date_command() {
        // date -u -d @SECONDS +%Y%m%dT%H%M%SZ
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_772_247_877, "20260228T030437Z"),
            (4_102_444_800, "21000101T000000Z"),
        ] {
            let text = timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(text, expected);
            assert!(is_timestamp(&text));
        }
    }

    #[test]
    fn run_ids_begin_with_the_time() {
        let id = new_run_id();
        assert!(is_timestamp(&id[..16]) && id.len() == 21, "{id}");
    }
}

//! Writing files so that a crash, a kill or a full disk at any moment leaves either the old
//! content or the new, never half of it.
//!
//! - Whole files and folders are written under a name that begins with [`TEMPORARY_PREFIX`]
//!   in the folder of their target, synced, and renamed.
//! - Append-only files take one whole line per `write`.

use std::{
    ffi::OsString,
    fs::{self, DirEntry, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// Prefix of names of files and folders that were unfinished, or being deleted, when a process died.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Replaces the file `path` with what `write` writes: either wholly or not at all.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), TrainError> {
    let temporary = temporary_name(path);
    write_synced(&temporary, write)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_dir(parent(path)))
        .map_err(|source| {
            let _ = fs::remove_file(&temporary); // the first error is the one to report
            TrainError::io("write", path, source)
        })
}

/// Replaces the file `path` with a value as indented JSON.
pub fn write_json_atomically(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    write_atomically(path, |out| write_json(out, value))
}

/// Writes a value as indented JSON and a line end.
pub fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Replaces the file `path` wholly or not at all, but does not sync it: a power cut may lose it.
pub fn write_unsynced(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), TrainError> {
    let temporary = temporary_name(path);
    write_flushed(&temporary, write).and_then(|_| fs::rename(&temporary, path)).map_err(|source| {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
        TrainError::io("write", path, source)
    })
}

fn write_synced(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    write_flushed(path, write)?.sync_all()
}

fn write_flushed(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(1 << 16, File::create(path)?);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// The folder of a path; `.` where the path has none.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(format!("{TEMPORARY_PREFIX}{}-", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    parent(path).join(name)
}

/// Makes renames in a folder survive a power cut.
#[cfg(unix)]
pub fn sync_dir(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some network file systems cannot sync folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Elsewhere folders cannot be synced; renames are durable by themselves or not at all.
#[cfg(not(unix))]
pub fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Deletes a folder so that it is never seen half deleted under its own name.
pub fn remove_dir_atomically(path: &Path) -> Result<(), TrainError> {
    let temporary = temporary_name(path);
    fs::rename(path, &temporary)
        .and_then(|()| fs::remove_dir_all(&temporary))
        .map_err(|source| TrainError::io("delete", path, source))
}

/// The entries of a folder.
pub fn entries(dir: &Path) -> Result<Vec<DirEntry>, TrainError> {
    fs::read_dir(dir).and_then(Iterator::collect).map_err(|source| TrainError::io("read", dir, source))
}

/// Whether a name is one that [`temporary_name`] gives; a user's own `.tmp-mine` is not.
fn is_leftover(name: &str) -> bool {
    let number = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.split_once('-')).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Deletes the unfinished files and folders of processes that died. The caller must be the
/// only one who writes there.
pub fn remove_leftovers(dir: &Path) -> Result<(), TrainError> {
    for entry in entries(dir)? {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| TrainError::io("delete", &path, source))?;
        }
    }
    Ok(())
}

/// An unfinished folder. It gets its name by [`PendingDir::publish`], once all its content is on disk; dropped before
/// that, it is deleted.
#[derive(Debug)]
pub struct PendingDir {
    temporary: PathBuf,
    target: PathBuf,
}

impl PendingDir {
    /// An empty folder that is to become `target`.
    pub fn create(target: &Path) -> Result<PendingDir, TrainError> {
        let temporary = temporary_name(target);
        fs::create_dir(&temporary).map_err(|source| TrainError::io("create", &temporary, source))?;
        Ok(PendingDir { temporary, target: target.into() })
    }

    /// Writes and syncs one file of the folder.
    pub fn write(&self, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), TrainError> {
        write_synced(&self.temporary.join(name), write)
            .map_err(|source| TrainError::io("write", &self.target.join(name), source))
    }

    /// Gives the folder its name. One that has the name already is replaced.
    pub fn publish(self) -> Result<(), TrainError> {
        let replaced = temporary_name(&parent(&self.target).join("replaced"));
        sync_dir(&self.temporary)
            .and_then(|()| if self.target.exists() { fs::rename(&self.target, &replaced) } else { Ok(()) })
            .and_then(|()| fs::rename(&self.temporary, &self.target))
            .and_then(|()| sync_dir(parent(&self.target)))
            .and_then(|()| if replaced.exists() { fs::remove_dir_all(&replaced) } else { Ok(()) })
            .map_err(|source| TrainError::io("write", &self.target, source))
    }
}

impl Drop for PendingDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.temporary); // gone already when published
    }
}

/// A file of JSON objects, one a line, that only grows.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    line: Vec<u8>,
}

impl JsonLines {
    /// Opens the file to append to it; creates it where there is none.
    pub fn open(path: &Path) -> Result<JsonLines, TrainError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| TrainError::io("open", path, source))?;
        Ok(JsonLines { path: path.into(), file, line: Vec::with_capacity(1024) })
    }

    /// Appends one value as one line. Allocates nothing once the longest line has been seen.
    pub fn append(&mut self, value: &impl Serialize) -> Result<(), TrainError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)
            .map_err(io::Error::from)
            .and_then(|()| {
                self.line.push(b'\n');
                append_whole(&mut self.file, &self.line)
            })
            .map_err(|source| TrainError::io("write", &self.path, source))
    }

    /// Returns once every line is on disk.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(|source| TrainError::io("write", &self.path, source))
    }
}

/// Appends in one `write`; where the disk takes only a part, that part is cut off again.
fn append_whole(file: &mut File, line: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < line.len() {
        match file.write(&line[written..]) {
            Ok(count) if count > 0 => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            failed => {
                if written > 0 {
                    file.set_len(file.metadata()?.len().saturating_sub(written as u64))?;
                }
                return Err(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
            }
        }
    }
    Ok(())
}

/// Cuts a file of JSON lines with a key `step` to the whole rows of steps up to `last_step`,
/// byte for byte as they were, by way of a new file. A torn last line and lines that are not such
/// rows are dropped. Returns how many rows stay; a file that does not exist has none.
pub fn truncate_json_lines_after(path: &Path, last_step: u64) -> Result<usize, TrainError> {
    #[derive(Deserialize)]
    struct Row {
        step: u64,
    }
    let input = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(TrainError::io("open", path, source)),
    };
    let mut rows = 0;
    write_atomically(path, |out| {
        let mut input = BufReader::new(input);
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            let is_kept = serde_json::from_slice::<Row>(&line).is_ok_and(|row| row.step <= last_step);
            if is_kept && line.ends_with(b"\n") {
                out.write_all(&line)?;
                rows += 1;
            }
            line.clear();
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Puts another value in place of the last line of a file of JSON lines, by way of a new file.
pub fn replace_last_json_line(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let bytes = fs::read(path).map_err(|source| TrainError::io("read", path, source))?;
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let kept = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    write_atomically(path, |out| {
        out.write_all(&bytes[..kept])?;
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_replaced_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        for (before, after) in [("1\n2\n3\n", "1\n2\n7\n"), ("3\n", "7\n"), ("1\n3", "1\n7\n")] {
            fs::write(&path, before).unwrap();
            replace_last_json_line(&path, &7).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Writes to `/dev/full`, which always reports a full disk.
    #[cfg(target_os = "linux")]
    fn write_to_full_disk(bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open("/dev/full")?.write_all(bytes)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let result = write_atomically(&path, |out| {
            out.write_all(b"half of the ne")?;
            write_to_full_disk(b"w one")
        });
        assert!(matches!(result, Err(TrainError::DiskFull { path: full }) if full == path));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["config.json"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_leaves_the_old_folder() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("checkpoint-1");
        let pending = PendingDir::create(&target).unwrap();
        pending.write("a", |out| out.write_all(b"old")).unwrap();
        pending.publish().unwrap();
        let pending = PendingDir::create(&target).unwrap();
        pending.write("a", |out| out.write_all(b"new")).unwrap();
        let result = pending.write("b", |_| write_to_full_disk(b"new"));
        assert!(matches!(result, Err(TrainError::DiskFull { path }) if path == target.join("b")));
        drop(pending);
        assert_eq!(names(dir.path()), ["checkpoint-1"]);
        assert_eq!(fs::read(target.join("a")).unwrap(), b"old");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_fails_an_append() {
        let mut lines = JsonLines::open(Path::new("/dev/full")).unwrap();
        assert!(matches!(lines.append(&1), Err(TrainError::DiskFull { .. })));
    }

    #[test]
    fn a_published_folder_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("checkpoint-1");
        for content in [b"one", b"two"] {
            let pending = PendingDir::create(&target).unwrap();
            pending.write("a", |out| out.write_all(content)).unwrap();
            pending.publish().unwrap();
            assert_eq!(fs::read(target.join("a")).unwrap(), content);
        }
        assert_eq!(names(dir.path()), ["checkpoint-1"]);
    }

    #[test]
    fn leftovers_go_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".tmp-7-checkpoint-3/deep")).unwrap();
        fs::write(dir.path().join(".tmp-7-config.json"), "{").unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        fs::create_dir(dir.path().join(".tmp-mine")).unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [".tmp-mine", "config.json"]);
    }

    #[test]
    fn cutting_keeps_whole_rows_up_to_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let check = |content: &str, last_step, expected: &str| {
            fs::write(&path, content).unwrap();
            let rows = truncate_json_lines_after(&path, last_step).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(rows, expected.lines().count());
        };
        check("{\"step\":1}\n{ \"step\" : 2 }\n{\"step\":3}\n", 2, "{\"step\":1}\n{ \"step\" : 2 }\n");
        check("{\"step\":1}\n{\"step\":2}", 2, "{\"step\":1}\n");
        check("{\"step\":1}\n{\"step\":2,\"lo", 2, "{\"step\":1}\n");
        check("{\"step\":1}\n\n[]\n{\"step\":-1}\n{\"step\":2}\n", 9, "{\"step\":1}\n{\"step\":2}\n");
        check("{\"step\":1}\n", 0, "");
        assert_eq!(truncate_json_lines_after(&dir.path().join("none.jsonl"), 5).unwrap(), 0);
    }
}

//! Files that appear whole or not at all.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use crate::LoopError;

/// Writes `bytes` to a temporary name beside `path`, syncs, renames. Makes the folder if need be.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), LoopError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()
    });
    written.map_err(|error| {
        // The old content, if any, is still there; the temporary file is of no use to anybody.
        let _ = fs::remove_file(&temporary);
        LoopError::io("write", path, &error)
    })
}

/// Appends one line as one write, and syncs. A line before it that a crash cut short does not swallow it.
pub fn append_line(path: &Path, line: &str) -> Result<(), LoopError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let appended = fs::create_dir_all(folder).and_then(|()| {
        let mut file = fs::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let before = if last == [b'\n'] { "" } else { "\n" };
        file.write_all(format!("{before}{line}\n").as_bytes())?;
        file.sync_data()
    });
    appended.map_err(|error| LoopError::io("append to", path, &error))
}

/// Removes a file, link or folder with everything in it, if it is there.
pub fn remove(path: &Path) -> Result<(), LoopError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.map_err(|error| LoopError::io("delete", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/rows.jsonl");
        append_line(&path, "one").unwrap();
        append_line(&path, "two").unwrap();
        fs::write(&path, "one\ntw").unwrap();
        append_line(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\ntwo\n");
    }
}

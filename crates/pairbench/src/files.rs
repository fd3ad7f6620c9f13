//! Files: written whole or not at all, appended to, removed.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::LoopError;

/// Writes `bytes` to a temporary name beside `path`, syncs, renames. Makes the folder if necessary.
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
        // The old content, if any, is still there; nobody needs the temporary file.
        let _ = fs::remove_file(&temporary);
        LoopError::io("write", path, &error)
    })
}

/// Appends one line in one write, and syncs. If a crash cut the last line short, the new one still starts on its own
/// line.
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

/// Makes the folder of a file that is about to be written.
pub fn prepare_parent(to: &Path) -> Result<(), LoopError> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(|error| LoopError::io("make", parent, &error))
}

/// Removes a file, link or folder with everything in it, if it is there. Does not follow links. Folders without write
/// permission are removed too: module caches leave such folders.
pub fn remove(path: &Path) -> Result<(), LoopError> {
    remove_once(path)
        .or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::DirectoryNotEmpty => {
                open_folders(path)?;
                remove_once(path)
            }
            _ => Err(error),
        })
        .map_err(|error| LoopError::io("delete", path, &error))
}

fn remove_once(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    unless_gone(removed).map(|_| ())
}

/// Gives the owner the right to list, enter and empty a folder and all folders below it.
fn open_folders(path: &Path) -> io::Result<()> {
    let Some(data) = unless_gone(fs::symlink_metadata(path))?.filter(fs::Metadata::is_dir) else { return Ok(()) };
    let mode = data.permissions().mode();
    if mode & 0o700 != 0o700 {
        unless_gone(fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700)))?;
    }
    for entry in unless_gone(fs::read_dir(path))?.into_iter().flatten() {
        open_folders(&entry?.path())?;
    }
    Ok(())
}

/// A file that vanished meanwhile is not an error.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes write permission from a file or folder and everything below it. Links stay as they are.
pub fn make_read_only(path: &Path) -> Result<(), LoopError> {
    fn walk(path: &Path) -> io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        if data.is_symlink() {
            return Ok(());
        }
        if data.is_dir() {
            for entry in fs::read_dir(path)? {
                walk(&entry?.path())?;
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(data.permissions().mode() & !0o222))
    }
    walk(path).map_err(|error| LoopError::io("make read-only", path, &error))
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

    #[test]
    fn files_links_and_folders_that_nobody_may_write_to_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("cache/module/deep")).unwrap();
        fs::write(at("cache/module/deep/file"), "1").unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/file"), "1").unwrap();
        std::os::unix::fs::symlink(at("elsewhere"), at("cache/module/link")).unwrap();
        make_read_only(&at("cache")).unwrap();
        let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("cache/module"), mode("cache/module/deep/file"), mode("elsewhere")), (0o555, 0o444, 0o755));
        // Root needs no write permission, so what lets others remove the folders is checked separately.
        open_folders(&at("cache")).unwrap();
        assert_eq!((mode("cache"), mode("cache/module/deep"), mode("elsewhere")), (0o755, 0o755, 0o755));
        make_read_only(&at("cache")).unwrap();
        fs::write(at("checkpoint"), "a file").unwrap();
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        for name in ["cache", "checkpoint", "link", "never there", "elsewhere/file/below a file"] {
            remove(&at(name)).unwrap();
            assert!(fs::symlink_metadata(at(name)).is_err(), "{name}");
        }
        assert!(at("elsewhere/file").exists(), "links are not followed");
    }
}

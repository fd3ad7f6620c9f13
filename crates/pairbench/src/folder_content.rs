//! The content of a folder: hashed, counted, copied.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{self, ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{LoopError, files::prepare_parent};

/// Copies a file or a folder with everything in it; links stay links.
pub fn copy(from: &Path, to: &Path) -> Result<(), LoopError> {
    let failed = |error: io::Error| LoopError::io("copy", from, &error);
    let kind = fs::symlink_metadata(from).map_err(failed)?.file_type();
    prepare_parent(to)?;
    if kind.is_symlink() {
        unix::fs::symlink(fs::read_link(from).map_err(failed)?, to).map_err(failed)
    } else if kind.is_dir() {
        fs::create_dir_all(to).map_err(failed)?;
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    } else if kind.is_file() {
        fs::copy(from, to).map(|_| ()).map_err(failed)
    } else {
        // Reading a pipe could wait for ever.
        Err(LoopError::refused(format!("`{}` is neither a file nor a folder nor a link", from.display()))
            .hint("a checkpoint consists of files and folders"))
    }
}

/// Copies stored artifacts into a folder, and checks at the same time that they are what was built.
///
/// # Errors
/// [`LoopError::refused`] where they were changed since.
pub fn copy_checked(from: &Path, into: &Path, binary_hash: &str) -> Result<(), LoopError> {
    let hash = copy_hashed(from, into).map_err(|error| LoopError::io("copy", from, &error))?;
    if hash == binary_hash {
        return Ok(());
    }
    Err(LoopError::refused(format!("the kept build `{}` is not what was built: something changed it", from.display()))
        .hint("a trainer or a build must not reach it; the next command builds it again"))
}

/// BLAKE3 over every file below a folder: name, kind (plain, executable, link) and content, in the order of names.
pub fn hash(folder: &Path) -> io::Result<String> {
    walk(folder, None)
}

/// Copies a folder and returns the [`hash`] of exactly the bytes that were copied.
fn copy_hashed(folder: &Path, into: &Path) -> io::Result<String> {
    walk(folder, Some(into))
}

fn walk(folder: &Path, into: Option<&Path>) -> io::Result<String> {
    let mut all = blake3::Hasher::new();
    for path in below(folder)? {
        let data = fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(folder).unwrap_or(&path);
        let copy = into.map(|into| into.join(name));
        let mut content = blake3::Hasher::new();
        let kind = if data.is_symlink() {
            let target = fs::read_link(&path)?;
            content.update(target.as_os_str().as_bytes());
            if let Some(copy) = copy {
                unix::fs::symlink(target, copy)?;
            }
            b'l'
        } else if data.is_file() {
            let mut file = fs::File::open(&path)?;
            if let Some(copy) = copy {
                let mut copied = fs::File::create(copy)?;
                let mut bytes = vec![0; 1 << 20];
                loop {
                    let count = file.read(&mut bytes)?;
                    if count == 0 {
                        break;
                    }
                    content.update(&bytes[..count]);
                    copied.write_all(&bytes[..count])?;
                }
                copied.set_permissions(data.permissions())?;
            } else {
                io::copy(&mut file, &mut content)?;
            }
            if data.permissions().mode() & 0o111 == 0 { b'f' } else { b'x' }
        } else {
            if let Some(copy) = copy {
                fs::create_dir_all(copy)?;
            }
            continue;
        };
        let name = name.as_os_str().as_bytes();
        all.update(&(name.len() as u64).to_le_bytes())
            .update(name)
            .update(&[kind])
            .update(content.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

/// Bytes of all files below a path.
pub fn size_bytes(path: &Path) -> io::Result<u64> {
    below(path)?.iter().map(|path| fs::symlink_metadata(path).map(|data| data.len())).sum()
}

/// A path and everything below it, sorted. Does not follow links.
pub fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                found.push(entry?.path());
            }
        }
        next += 1;
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading a pipe that nobody writes to would wait for ever.
    #[test]
    fn a_pipe_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = dir.path().join("checkpoint");
        fs::create_dir(&checkpoint).unwrap();
        fs::write(checkpoint.join("weights"), "w").unwrap();
        copy(&checkpoint, &dir.path().join("kept")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("kept/weights")).unwrap(), "w");
        nix::unistd::mkfifo(&checkpoint.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = copy(&checkpoint, &dir.path().join("again")).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a folder"), "{error}");
    }
}

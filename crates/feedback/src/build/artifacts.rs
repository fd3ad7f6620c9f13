//! What a build made: copied out of the stage, hashed, counted.
//!
//! Everything that an artifact needs of the stage must be an artifact too: the stage holds another
//! build soon. A link into it would let one arm run the other's files.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{LoopError, arm};

/// Copies artifacts of the stage into a folder, under their relative paths. One that is a link itself is what the link
/// leads to; links inside stay links.
pub(super) fn take(stage: &Path, artifacts: &[PathBuf], into: &Path) -> Result<(), LoopError> {
    let missing: Vec<String> = artifacts
        .iter()
        .filter(|artifact| !stage.join(artifact).exists())
        .map(|artifact| format!("`{}`", artifact.display()))
        .collect();
    if !missing.is_empty() {
        return Err(LoopError::Failed(format!("the build made no {}", missing.join(", ")))
            .hint("`build.artifacts` of `loop.toml` names what it makes"));
    }
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| LoopError::io("read", path, &error));
    let stage = real(stage)?;
    let roots = artifacts.iter().map(|artifact| real(&stage.join(artifact))).collect::<Result<Vec<_>, _>>()?;
    for (artifact, root) in artifacts.iter().zip(&roots) {
        for path in below(root).map_err(|error| LoopError::io("read", root, &error))? {
            check(&path, &stage, &roots)?;
        }
        arm::copy(root, &into.join(artifact))?;
    }
    Ok(())
}

fn check(path: &Path, stage: &Path, roots: &[PathBuf]) -> Result<(), LoopError> {
    let failed = |error: io::Error| LoopError::io("read", path, &error);
    let kind = fs::symlink_metadata(path).map_err(failed)?.file_type();
    if kind.is_symlink() {
        let text = fs::read_link(path).map_err(failed)?;
        let Ok(target) = fs::canonicalize(path) else { return Ok(()) }; // leads nowhere, here and there
        // In the copy, a relative link leads to the copy of what it leads to here, if that is copied.
        let stays = if text.is_absolute() {
            !target.starts_with(stage)
        } else {
            roots.iter().any(|root| target.starts_with(root))
        };
        if !stays {
            let message = format!("the artifact `{}` is a link to `{}`", path.display(), text.display());
            return Err(LoopError::Failed(message).hint("name what it leads to in `build.artifacts`, or copy it"));
        }
    } else if !kind.is_file() && !kind.is_dir() {
        return Err(LoopError::Failed(format!("the artifact `{}` is no file, folder or link", path.display()))
            .hint("name only what the trainer needs in `build.artifacts`"));
    }
    Ok(())
}

/// BLAKE3 over every file below a folder: name, kind (plain, executable, link) and content, in the order of names.
pub(super) fn hash(folder: &Path) -> io::Result<String> {
    let mut all = blake3::Hasher::new();
    for path in below(folder)? {
        let data = fs::symlink_metadata(&path)?;
        let mut content = blake3::Hasher::new();
        let kind = if data.is_symlink() {
            content.update(fs::read_link(&path)?.as_os_str().as_bytes());
            b'l'
        } else if data.is_file() {
            io::copy(&mut fs::File::open(&path)?, &mut content)?;
            if data.permissions().mode() & 0o111 == 0 { b'f' } else { b'x' }
        } else {
            continue;
        };
        let name = path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_bytes();
        all.update(&(name.len() as u64).to_le_bytes())
            .update(name)
            .update(&[kind])
            .update(content.finalize().as_bytes());
    }
    Ok(all.finalize().to_hex().to_string())
}

/// Bytes of all files below a path.
pub(super) fn size_bytes(path: &Path) -> io::Result<u64> {
    below(path)?.iter().map(|path| fs::symlink_metadata(path).map(|data| data.len())).sum()
}

/// A path and all that is below it, sorted. Does not follow links.
fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
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

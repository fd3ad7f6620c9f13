//! What a build made: copied out of the stage, hashed, counted.
//!
//! Everything that an artifact needs of the stage must be an artifact too: the stage holds another
//! build soon. A link into it would let one arm run the other's files.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self},
    path::{Component, Path, PathBuf},
};

use pairbench::folder_content::{self, below};

use crate::LoopError;

/// Links that lead to links, at most.
const MOST_LINKS: usize = 40;

/// Copies artifacts of a tree into a folder, under their relative paths. One that is a link itself is what the link
/// leads to; links inside stay links. The tree lies at `place`; its build knew it as `path`, as absolute links do.
pub(super) fn take(place: &Path, path: &Path, artifacts: &[PathBuf], into: &Path) -> Result<(), LoopError> {
    let real = fs::canonicalize(path).map_err(|error| LoopError::io("read", path, &error))?;
    let tree = Tree { place, paths: [path, &real] };
    let (mut roots, mut missing) = (Vec::new(), Vec::new());
    for artifact in artifacts {
        match tree.resolve(Path::new(""), artifact).map_err(|error| LoopError::io("read", artifact, &error))? {
            Target::Inside(root) => roots.push(root),
            Target::Nowhere => missing.push(format!("`{}`", artifact.display())),
            Target::Outside => {
                let message = format!("the artifact `{}` is a link that leads out of the tree", artifact.display());
                return Err(LoopError::failed(message).hint("have the build copy what it leads to"));
            }
        }
    }
    if !missing.is_empty() {
        return Err(LoopError::failed(format!("the build made no {}", missing.join(", ")))
            .hint("`build.artifacts` of `loop.toml` names what it makes"));
    }
    for (artifact, root) in artifacts.iter().zip(&roots) {
        let root = place.join(root);
        for found in below(&root).map_err(|error| LoopError::io("read", &root, &error))? {
            tree.check(found.strip_prefix(place).unwrap_or(&found), &roots)?;
        }
        folder_content::copy(&root, &into.join(artifact))?;
    }
    Ok(())
}

/// A tree that lies at another place than its build knew.
struct Tree<'a> {
    place: &'a Path,
    /// As the build was told, and with all links above it followed.
    paths: [&'a Path; 2],
}

/// What a path leads to, with all links followed.
enum Target {
    /// A file or folder, relative to the tree.
    Inside(PathBuf),
    Outside,
    Nowhere,
}

impl Tree<'_> {
    /// Follows a path from a folder of the tree. Step by step, because links mean the tree as its build saw it.
    fn resolve(&self, from: &Path, path: &Path) -> io::Result<Target> {
        let mut real = from.to_owned();
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        let push_front = |ahead: &mut VecDeque<OsString>, path: &Path| {
            for part in path.components().rev().filter(|part| *part != Component::CurDir) {
                ahead.push_front(part.as_os_str().to_owned());
            }
        };
        push_front(&mut ahead, path);
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                if !real.pop() {
                    return Ok(Target::Outside);
                }
                continue;
            }
            let next = real.join(&part);
            let data = match fs::symlink_metadata(self.place.join(&next)) {
                Ok(data) => data,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(Target::Nowhere);
                }
                Err(error) => return Err(error),
            };
            if !data.is_symlink() {
                real = next;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Ok(Target::Nowhere);
            }
            let text = fs::read_link(self.place.join(&next))?;
            if text.is_absolute() {
                let Some(inside) = self.paths.iter().find_map(|path| text.strip_prefix(path).ok()) else {
                    return Ok(Target::Outside);
                };
                real = PathBuf::new();
                push_front(&mut ahead, inside);
            } else {
                push_front(&mut ahead, &text);
            }
        }
        Ok(Target::Inside(real))
    }

    /// Refuses what a copy of the artifacts would not be the same with.
    fn check(&self, path: &Path, roots: &[PathBuf]) -> Result<(), LoopError> {
        let at = self.place.join(path);
        let failed = |error: io::Error| LoopError::io("read", &at, &error);
        let kind = fs::symlink_metadata(&at).map_err(failed)?.file_type();
        if kind.is_symlink() {
            let text = fs::read_link(&at).map_err(failed)?;
            let folder = path.parent().unwrap_or(Path::new(""));
            let stays = match self.resolve(folder, Path::new(path.file_name().unwrap_or_default())).map_err(failed)? {
                Target::Nowhere => true, // here and there
                Target::Outside => text.is_absolute(),
                // In the copy, a relative link leads to the copy of what it leads to here, if that is copied.
                Target::Inside(target) => !text.is_absolute() && roots.iter().any(|root| target.starts_with(root)),
            };
            if !stays {
                let message = format!("the artifact `{}` is a link to `{}`", path.display(), text.display());
                return Err(LoopError::failed(message).hint("name what it leads to in `build.artifacts`, or copy it"));
            }
        } else if !kind.is_file() && !kind.is_dir() {
            return Err(LoopError::failed(format!(
                "the artifact `{}` is neither a file nor a folder nor a link",
                path.display()
            ))
            .hint("name only what the trainer needs in `build.artifacts`"));
        }
        Ok(())
    }
}

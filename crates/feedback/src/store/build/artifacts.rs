//! The artifacts of a build: checked, and copied out of the stage.
//!
//! Everything in the stage that an artifact needs must be an artifact too: soon the stage holds another build. A link
//! into it would let one arm run the other's files.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self},
    path::{Component, Path, PathBuf},
};

use pairbench::folder_content::{self, below};

use crate::LoopError;

/// Most links that lead to links.
const MOST_LINKS: usize = 40;

/// Copies artifacts of a tree into a folder, under their relative paths. An artifact that is a link is replaced by its
/// target; links inside stay links. The tree is at `place`; its build, and so absolute links, saw it as `path`.
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

/// A tree at another place than its build saw.
struct Tree<'a> {
    place: &'a Path,
    /// The path that the build saw, and the same with all links above it resolved.
    paths: [&'a Path; 2],
}

/// The target of a path, with all links followed.
enum Target {
    /// A file or folder, relative to the tree.
    Inside(PathBuf),
    Outside,
    Nowhere,
}

impl Tree<'_> {
    /// Follows a path from a folder of the tree, step by step, because links refer to the tree as its build saw it.
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

    /// Refuses files and links that would differ in a copy of the artifacts.
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
                // In the copy, a relative link leads to the copy of its target, if the target is copied.
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

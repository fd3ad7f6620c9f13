//! Which files `--data` names, and which files nearby are left out.
//!
//! A folder stands for the files directly in it, except hidden files; a value that is neither a file nor a folder is a glob.
//! Each file and each folder counts once, however many links lead to it, so that a link to a parent folder neither repeats
//! files nor loops. Files are sorted by path.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use crate::DataError;

/// A note shows this many names and counts the others.
const SHOWN: usize = 5;

/// The files that `--data` names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sorted by path; at least one.
    pub(crate) files: Vec<PathBuf>,
    /// Files and folders that were found but not taken.
    left_out: Vec<(PathBuf, Reason)>,
}

/// Why something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Folder,
    DeadLink,
    /// The system denies access.
    Unreadable,
    /// A file or folder that was already taken, by another path.
    Duplicate,
    /// A pipe, a device, a socket.
    Special,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Folder => "a folder",
            Reason::DeadLink => "a link to nothing",
            Reason::Unreadable => "cannot be read",
            Reason::Duplicate => "already counted, by another path",
            Reason::Special => "not a regular file",
        })
    }
}

impl Listing {
    /// Finds the files of `data`.
    pub(crate) fn of(data: &str) -> Result<Listing, DataError> {
        let path = Path::new(data);
        let mut listing = Listing::default();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => return Ok(Listing { files: vec![path.to_owned()], ..listing }),
            Ok(metadata) if !metadata.is_dir() => return Err(DataError::NotRegular { path: path.to_owned() }),
            Ok(_) => listing.add_folder(path)?,
            Err(_) if data.contains(['*', '?', '[']) => listing.add_matches(data)?,
            Err(source) => return Err(DataError::io("read", path, source)),
        }
        if listing.files.is_empty() {
            return Err(DataError::NoFiles { pattern: data.to_owned(), note: listing.note() });
        }
        listing.files.sort();
        Ok(listing)
    }

    /// A clause that says what was left out; none if nothing was.
    pub(crate) fn note(&self) -> Option<String> {
        if self.left_out.is_empty() {
            return None;
        }
        let mut named: Vec<String> =
            self.left_out.iter().take(SHOWN).map(|(path, why)| format!("`{}` ({why})", path.display())).collect();
        if self.left_out.len() > SHOWN {
            named.push(format!("{} more", self.left_out.len() - SHOWN));
        }
        Some(format!("left out: {}", named.join(", ")))
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), DataError> {
        let mut seen = HashSet::new();
        for path in entries(folder)? {
            if is_hidden(&path) {
                continue;
            }
            match fs::metadata(&path) {
                Err(_) => self.leave_out(path),
                Ok(metadata) if metadata.is_dir() => self.left_out.push((path, Reason::Folder)),
                Ok(metadata) => self.add_file(path, &metadata, &mut seen),
            }
        }
        Ok(())
    }

    /// Leaves out a path that cannot be looked at.
    fn leave_out(&mut self, path: PathBuf) {
        let is_denied = fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let why = if path.is_symlink() && !is_denied { Reason::DeadLink } else { Reason::Unreadable };
        self.left_out.push((path, why));
    }

    fn add_file(&mut self, path: PathBuf, metadata: &Metadata, seen: &mut HashSet<PathBuf>) {
        if !metadata.is_file() {
            self.left_out.push((path, Reason::Special));
        } else if seen.insert(identity(&path)) {
            self.files.push(path);
        } else {
            self.left_out.push((path, Reason::Duplicate));
        }
    }

    fn add_matches(&mut self, data: &str) -> Result<(), DataError> {
        let bad = |why: &str| DataError::BadGlob { pattern: data.to_owned(), why: why.to_owned() };
        let (base, rest) = base_of(data);
        let pattern = Pattern::new(&pattern_of(&base, rest)).map_err(|error| bad(error.msg))?;
        // Only `**` reaches below the folders that the pattern spells out.
        let depth = if rest.contains("**") { usize::MAX } else { data.matches('/').count() + 1 };
        let mut walk = Walk { pattern, files: HashSet::new(), folders: HashSet::new(), listing: self };
        let start = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
        if !start.is_dir() {
            return Ok(());
        }
        walk.folders.insert(identity(start));
        let steps_to_base = base.components().count();
        walk.visit(&base, depth.saturating_sub(steps_to_base))
    }
}

/// Whether `data` names something that exists: a file or folder, or the folder above a glob's first wildcard.
pub fn is_there(data: &str) -> bool {
    Path::new(data).exists() || (data.contains(['*', '?', '[']) && base_of(data).0.exists())
}

/// A walk through the folders of a glob.
struct Walk<'a> {
    pattern: Pattern,
    files: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
    listing: &'a mut Listing,
}

impl Walk<'_> {
    /// Takes the matches in a folder, and below it down to `depth` levels.
    fn visit(&mut self, folder: &Path, depth: usize) -> Result<(), DataError> {
        const OPTIONS: MatchOptions =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
        if depth == 0 {
            return Ok(());
        }
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for found in entries(here)? {
            let path = folder.join(found.file_name().unwrap_or_default());
            let is_match = self.pattern.matches_path_with(&path, OPTIONS);
            let Ok(metadata) = fs::metadata(&path) else {
                if is_match {
                    self.listing.leave_out(path);
                }
                continue;
            };
            if !metadata.is_dir() {
                if is_match {
                    self.listing.add_file(path, &metadata, &mut self.files);
                }
            } else if !is_hidden(&path) {
                if self.folders.insert(identity(&path)) {
                    self.visit(&path, depth - 1)?;
                } else {
                    self.listing.left_out.push((path, Reason::Duplicate));
                }
            }
        }
        Ok(())
    }
}

/// The path after following all links; it identifies a file.
fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The folder above a glob's first wildcard (empty for the current folder), and the rest of the glob. A part with a wildcard
/// counts as a plain name if something of exactly that name exists, such as a folder called `data [v1]`.
fn base_of(pattern: &str) -> (PathBuf, &str) {
    let mut base = 0;
    for (end, _) in pattern.match_indices('/') {
        let part = &pattern[base..end];
        if part.contains(['*', '?', '[']) && !Path::new(&pattern[..end]).exists() {
            break;
        }
        base = end + 1;
    }
    let folder = match base {
        0 => "",
        1 => "/",
        _ => &pattern[..base - 1],
    };
    (PathBuf::from(folder), &pattern[base..])
}

/// The glob `rest` below a folder whose name is taken literally.
fn pattern_of(base: &Path, rest: &str) -> String {
    match Pattern::escape(&base.to_string_lossy()) {
        base if base.is_empty() || base.ends_with('/') => format!("{base}{rest}"),
        base => format!("{base}/{rest}"),
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The contents of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read_error = |source| DataError::io("read", folder, source);
    let entries = fs::read_dir(folder).map_err(read_error)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    paths.sort();
    Ok(paths)
}

// The tests make links as on Unix.
#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    /// The files relative to the folder, and the note without the folder's name.
    fn list(folder: &tempfile::TempDir, data: &str) -> (Vec<String>, String) {
        let root = format!("{}/", folder.path().display());
        let listing = Listing::of(&format!("{root}{data}")).unwrap();
        let names = listing.files.iter().map(|path| path.display().to_string().replace(&root, "")).collect();
        (names, listing.note().unwrap_or_default().replace(&root, ""))
    }

    #[test]
    fn a_folder_is_its_own_files_and_says_what_it_leaves_out() {
        let folder = tree(&["b.txt", "a.txt", ".hidden", "sub/c.txt"]);
        std::os::unix::fs::symlink("gone", folder.path().join("dead")).unwrap();
        std::os::unix::fs::symlink("a.txt", folder.path().join("z.txt")).unwrap();
        let (files, note) = list(&folder, "");
        assert_eq!(files, ["a.txt", "b.txt"]);
        assert_eq!(
            note,
            "left out: `dead` (a link to nothing), `sub` (a folder), `z.txt` (already counted, by another path)"
        );
    }

    #[test]
    fn a_glob_follows_each_link_once() {
        let folder = tree(&["a.txt", "one/b.txt", "two/c.txt", "two/deep/d.txt", ".hidden/e.txt"]);
        for (target, link) in [("..", "one/up"), ("../two", "one/across"), ("../one", "two/back")] {
            std::os::unix::fs::symlink(target, folder.path().join(link)).unwrap();
        }
        let (mut files, note) = list(&folder, "**/*.txt");
        // The order of the folders decides by which of its paths a file is found.
        for file in &mut files {
            *file = file.rsplit('/').next().unwrap_or_default().to_owned();
        }
        files.sort();
        assert_eq!(files, ["a.txt", "b.txt", "c.txt", "d.txt"]);
        assert!(note.contains("`one/up` (already counted, by another path)"), "{note}");
    }

    #[test]
    fn folders_with_brackets_in_their_names_are_folders() {
        let folder = tree(&["data [v1]/a.txt", "data [v1]/b.md", "data v/c.txt", "one*/d.txt"]);
        assert_eq!(list(&folder, "data [v1]/*.txt").0, ["data [v1]/a.txt"]);
        assert_eq!(list(&folder, "data [v]/*.txt").0, ["data v/c.txt"]);
        assert_eq!(list(&folder, "one*/*.txt").0, ["one*/d.txt"]);
        assert!(is_there(&format!("{}/data [v1]/*.none", folder.path().display())));
    }

    #[test]
    fn wildcards_stay_within_a_level() {
        let folder = tree(&["a.txt", "one/b.txt", "one/deep/c.txt", "two/b.txt", "two/b.md"]);
        assert_eq!(list(&folder, "*.txt").0, ["a.txt"]);
        assert_eq!(list(&folder, "*/b.*").0, ["one/b.txt", "two/b.md", "two/b.txt"]);
        assert_eq!(list(&folder, "one/**/*.txt").0, ["one/b.txt", "one/deep/c.txt"]);
        assert_eq!(list(&folder, "[o]ne/?.txt").0, ["one/b.txt"]);
        assert!(matches!(Listing::of(&format!("{}/none*/x", folder.path().display())), Err(DataError::NoFiles { .. })));
    }
}

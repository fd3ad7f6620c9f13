//! The user's cache folder. It holds tokenizers and token files; the name of each is a hash of everything it depends on.
//! A truncated or damaged entry is built again. A folder that cannot be written costs time and fails no run.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::DataError;

/// A cache entry could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the cache `{}`: {source}; the next start will do this work again", path.display())]
pub struct CacheError {
    /// The entry.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Why a file could not be made from data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The data is at fault.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The file could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl WriteError {
    /// The error to report when `path` was being written.
    pub(crate) fn at(self, path: &Path) -> DataError {
        match self {
            WriteError::Data(error) => error,
            WriteError::Io(source) => DataError::io("write", path, source),
        }
    }
}

/// Where entries are kept, if at all.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `$XDG_CACHE_HOME/alpha`, else `~/.cache/alpha`, else none.
    pub fn from_environment() -> Cache {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Cache { folder: base.map(|base| base.join("alpha")) }
    }

    /// Entries in `folder`.
    pub fn in_folder(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_owned()) }
    }

    /// Keeps nothing.
    pub const fn none() -> Cache {
        Cache { folder: None }
    }

    /// Another crate's entry, if it is complete.
    pub fn read_entry(&self, name: &str) -> Option<Vec<u8>> {
        self.read(&key(&[name.as_bytes()]), "entry")
    }

    /// Keeps another crate's entry.
    pub fn write_entry(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        self.write(&key(&[name.as_bytes()]), "entry", bytes)
    }

    /// The path of an entry; the folder may not exist yet.
    pub(crate) fn path(&self, key: &blake3::Hash, extension: &str) -> Option<PathBuf> {
        let name = format!("{}.{extension}", &key.to_hex().as_str()[..NAME_DIGITS]);
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// The bytes of a small entry, if it is complete.
    pub(crate) fn read(&self, key: &blake3::Hash, extension: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key, extension)?).ok()?;
        let content = bytes.len().checked_sub(blake3::OUT_LEN)?;
        let is_whole = blake3::hash(&bytes[..content]).as_bytes() == &bytes[content..];
        bytes.truncate(content);
        is_whole.then_some(bytes)
    }

    /// Writes a small entry: its bytes, then their hash.
    pub(crate) fn write(&self, key: &blake3::Hash, extension: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let Some(path) = self.path(key, extension) else { return Ok(()) };
        let sealed = [bytes, blake3::hash(bytes).as_bytes()].concat();
        write_whole(&path, &sealed).map_err(|source| CacheError { path, source })
    }
}

/// A file without a name, and the path that it had, for messages. The system frees its space when the process ends, however
/// it ends.
pub(crate) fn unnamed_file() -> Result<(File, PathBuf), DataError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("alpha-{}-{}.tmp", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|source| DataError::io("write", &path, source))?;
    fs::remove_file(&path).map_err(|source| DataError::io("write", &path, source))?;
    Ok((file, path))
}

/// A hash of several parts. Each part is hashed with its length, so that different lists never hash the same bytes.
pub(crate) fn key(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

/// Writes a file completely or not at all: under a temporary name beside it, then sync, then rename.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes a file that the user named. A link stays a link, and its target is replaced. A pipe, `/dev/stdout` and other special
/// files are written to directly.
pub(crate) fn write_named(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Others may be writing to the file behind a descriptor too.
    let is_descriptor =
        ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"].iter().any(|name| path.starts_with(name));
    if is_descriptor || path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return File::options().append(true).open(path)?.write_all(bytes);
    }
    write_whole(&path.canonicalize().unwrap_or_else(|_| path.to_owned()), bytes)
}

/// Like [`write_whole`], with content that `fill` writes.
pub(crate) fn write_with<T, E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from)?;
    remove_abandoned(path);
    // A process in another container may have the same ID.
    let (temporary, mut file) = loop {
        let mut name = name.to_owned();
        name.push(format!("{TEMPORARY}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(name);
        match File::create_new(&temporary) {
            Ok(file) => break (temporary, file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    };
    let write = || {
        let filled = fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        Ok(filled)
    };
    write().inspect_err(|_: &E| {
        // The user should see the first error, not a failure to clean up after it.
        let _ = fs::remove_file(&temporary);
    })
}

/// Hexadecimal digits in the name of an entry.
const NAME_DIGITS: usize = 40;
/// Part of the name of a file that is being written.
const TEMPORARY: &str = ".tmp-";
/// After this long without a write, the process that was writing a file is taken to be dead.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Whether a file is an unfinished cache entry. The whole name is checked, because the user's own files may be beside it.
fn is_unfinished_entry(name: &str) -> bool {
    let Some((entry, writer)) = name.split_once(TEMPORARY) else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hash = |text: &str| text.len() == NAME_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    entry
        .split_once('.')
        .is_some_and(|(hash, extension)| is_hash(hash) && extension.bytes().all(|byte| byte.is_ascii_alphabetic()))
        && writer.split_once('-').is_some_and(|(process, count)| is_number(process) && is_number(count))
}

/// Removes unfinished cache entries beside `path` whose writers died. An entry that cannot be removed only costs space.
fn remove_abandoned(path: &Path) {
    let entries = path.parent().map(fs::read_dir);
    let Some(Ok(entries)) = entries else { return };
    for entry in entries.flatten() {
        let is_temporary = is_unfinished_entry(&entry.file_name().to_string_lossy());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_temporary && age().is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(&folder.path().join("new"));
        let key = key(&[b"a", b"b"]);
        assert_eq!(cache.read(&key, "json"), None);
        cache.write(&key, "json", b"content").unwrap();
        assert_eq!(cache.read(&key, "json").unwrap(), b"content");
        let path = cache.path(&key, "json").unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..3], &[], &[&b"x"[..], &whole[1..]].concat()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.read(&key, "json"), None);
        }
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn only_our_own_unfinished_entries_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "0123456789".repeat(4);
        let ours = format!("{hash}.tokens.tmp-12-3");
        let theirs = ["notes.tmp-old".to_owned(), "tokenizer.json.tmp-1-2".to_owned(), format!("{hash}.tokens")];
        for name in theirs.iter().chain([&ours]) {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - 2 * ABANDONED).unwrap();
        }
        let young = format!("{hash}.tokens.tmp-12-4");
        fs::write(folder.path().join(&young), "x").unwrap();
        write_whole(&folder.path().join("out.json"), b"x").unwrap();
        assert!(!folder.path().join(&ours).exists());
        assert!(theirs.iter().chain([&young]).all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn an_unwritable_folder_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Cache::in_folder(&file).write(&key(&[b"a"]), "json", b"x").unwrap_err();
        assert!(error.to_string().starts_with("cannot write the cache"), "{error}");
        assert!(Cache::none().write(&key(&[b"a"]), "json", b"x").is_ok());
    }

    #[test]
    fn keys_tell_apart_where_parts_end() {
        assert_ne!(key(&[b"ab", b""]), key(&[b"a", b"b"]));
    }
}

//! Files as byte slices: memory-mapped, so that the size of the data is not the size of the
//! process.

use std::{
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::DataError;

/// A file's bytes and where they came from.
#[derive(Debug)]
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl MappedFile {
    /// Maps a file that must not be empty.
    pub(crate) fn open(path: &Path) -> Result<MappedFile, DataError> {
        let file = File::open(path).map_err(|source| DataError::io("read", path, source))?;
        let metadata = file.metadata().map_err(|source| DataError::io("read", path, source))?;
        if metadata.is_file() && metadata.len() == 0 {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        MappedFile::map(&file, path)
    }

    /// Maps an open file; `path` is for messages.
    pub(crate) fn map(file: &File, path: &Path) -> Result<MappedFile, DataError> {
        // SAFETY: the map is only read. A file that another process cuts short while it is
        // mapped ends this process with SIGBUS; every trainer that maps its data lives with
        // that, and our own cache files are replaced by rename, never written in place.
        let map = unsafe { Mmap::map(file) }.map_err(|source| DataError::io("read", path, source))?;
        Ok(MappedFile { path: path.to_owned(), bytes: Bytes::Mapped(map) })
    }

    /// Bytes in memory under a name for messages.
    pub(crate) fn owned(path: PathBuf, bytes: Vec<u8>) -> MappedFile {
        MappedFile { path, bytes: Bytes::Owned(bytes) }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

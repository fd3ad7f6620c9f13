//! Reading a file at any offset.
//!
//! Files are read, not mapped. If a file is truncated during a run, reading gives an error that names it, whereas a mapping
//! would end the process (SIGBUS). Also, the number of mappings does not limit the number of files. The system caches pages
//! that are read often in both cases.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::DataError;

/// An open file or bytes in memory, and the length when it was opened.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// For messages.
    pub(crate) path: PathBuf,
    len: u64,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    File(Arc<File>),
    Memory(Vec<u8>),
}

impl DataFile {
    /// Opens a file that is not empty.
    pub(crate) fn open(path: &Path) -> Result<DataFile, DataError> {
        DataFile::open_at(path, path)
    }

    /// Opens the file at `stored`; messages call it `path`.
    pub(crate) fn open_at(stored: &Path, path: &Path) -> Result<DataFile, DataError> {
        let file = File::open(stored).map_err(|source| DataError::io("read", path, source))?;
        let file = DataFile::shared(Arc::new(file), path)?;
        if file.len == 0 {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        Ok(file)
    }

    /// A file that is already open; `path` is for messages.
    pub(crate) fn shared(file: Arc<File>, path: &Path) -> Result<DataFile, DataError> {
        let len = file.metadata().map_err(|source| DataError::io("read", path, source))?.len();
        Ok(DataFile { path: path.to_owned(), len, storage: Storage::File(file) })
    }

    /// Bytes in memory; `path` is for messages.
    pub(crate) fn in_memory(path: PathBuf, bytes: Vec<u8>) -> DataFile {
        DataFile { path, len: bytes.len() as u64, storage: Storage::Memory(bytes) }
    }

    /// Number of bytes when the file was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`DataError::Shrunk`] if the file has become too short.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DataError> {
        let shrunk = |held: u64| DataError::Shrunk { path: self.path.clone(), held, expected: self.len };
        match &self.storage {
            Storage::Memory(bytes) => {
                let part =
                    usize::try_from(offset).ok().and_then(|start| bytes.get(start..start.checked_add(out.len())?));
                out.copy_from_slice(part.ok_or_else(|| shrunk(bytes.len() as u64))?);
                Ok(())
            }
            Storage::File(file) => {
                let mut done = 0;
                while done < out.len() {
                    match read_some_at(file, &mut out[done..], offset + done as u64) {
                        Ok(0) => return Err(shrunk(offset + done as u64)),
                        Ok(count) => done += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(source) => return Err(DataError::io("read", &self.path, source)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads the bytes from `offset` on, at most `max` of them.
    pub(crate) fn read_up_to(&self, offset: u64, max: usize) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0; self.len.saturating_sub(offset).min(max as u64) as usize];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The hash of the bytes from `start` on; `progress` is told the position.
    pub(crate) fn hash(&self, start: u64, progress: impl Fn(u64)) -> Result<blake3::Hash, DataError> {
        let mut hasher = blake3::Hasher::new();
        let mut position = start;
        while position < self.len {
            let bytes = self.read_up_to(position, 1 << 20)?;
            hasher.update(&bytes);
            position += bytes.len() as u64;
            progress(position);
        }
        Ok(hasher.finalize())
    }
}

#[cfg(unix)]
fn read_some_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(windows)]
fn read_some_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

/// Reads a file from its start; several readers may share the file.
pub(crate) struct FromStart {
    file: DataFile,
    position: u64,
}

impl FromStart {
    pub(crate) fn new(file: DataFile) -> FromStart {
        FromStart { file, position: 0 }
    }
}

impl Read for FromStart {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = (self.file.len() - self.position).min(out.len() as u64) as usize;
        self.file.read_at(self.position, &mut out[..count]).map_err(io::Error::other)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.bin");
        std::fs::write(&path, [7; 100]).unwrap();
        let file = DataFile::open(&path).unwrap();
        let mut out = [0; 10];
        file.read_at(90, &mut out).unwrap();
        assert_eq!(out, [7; 10]);
        File::options().write(true).open(&path).unwrap().set_len(95).unwrap();
        let error = file.read_at(90, &mut out).unwrap_err();
        assert!(matches!(error, DataError::Shrunk { held: 95, expected: 100, .. }), "{error}");
        // Gone, but still open.
        std::fs::remove_file(&path).unwrap();
        file.read_at(0, &mut out).unwrap();
    }

    #[test]
    fn bytes_in_memory_are_read_alike() {
        let file = DataFile::in_memory("x".into(), vec![1, 2, 3]);
        assert_eq!(file.read_up_to(1, 9).unwrap(), [2, 3]);
        assert!(file.read_at(2, &mut [0; 2]).is_err());
    }
}

//! A file that is read where it is needed, at any place.
//!
//! Nothing is mapped: a file that somebody cuts short while a run reads it is then an error with its name, where a map would
//! end the process (SIGBUS), and the number of files is not limited by the number of maps. The pages of what is read often
//! are in the system's cache either way.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::DataError;

/// An open file, or bytes in its place, and their length when it was opened.
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
    /// Opens a file, which must not be empty.
    pub(crate) fn open(path: &Path) -> Result<DataFile, DataError> {
        DataFile::open_at(path, path)
    }

    /// Opens the file that is `stored` somewhere; messages call it `path`.
    pub(crate) fn open_at(stored: &Path, path: &Path) -> Result<DataFile, DataError> {
        let file = File::open(stored).map_err(|source| DataError::io("read", path, source))?;
        let file = DataFile::shared(Arc::new(file), path)?;
        if file.len == 0 {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        Ok(file)
    }

    /// A file that is open already; `path` is for messages.
    pub(crate) fn shared(file: Arc<File>, path: &Path) -> Result<DataFile, DataError> {
        let len = file.metadata().map_err(|source| DataError::io("read", path, source))?.len();
        Ok(DataFile { path: path.to_owned(), len, storage: Storage::File(file) })
    }

    /// Bytes in memory under a name for messages.
    pub(crate) fn in_memory(path: PathBuf, bytes: Vec<u8>) -> DataFile {
        DataFile { path, len: bytes.len() as u64, storage: Storage::Memory(bytes) }
    }

    /// Bytes that the file had when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from byte `offset` on.
    ///
    /// # Errors
    /// [`DataError::Shrunk`] where the file has become shorter than that.
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

    /// Reads as many bytes from `offset` on as there are, `most` at most.
    pub(crate) fn read_up_to(&self, offset: u64, most: usize) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0; self.len.saturating_sub(offset).min(most as u64) as usize];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
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

/// Reads a file that several may read at a time, from its start.
pub(crate) struct FromStart(DataFile, u64);

impl FromStart {
    pub(crate) fn of(file: DataFile) -> FromStart {
        FromStart(file, 0)
    }
}

impl Read for FromStart {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = (self.0.len() - self.1).min(out.len() as u64) as usize;
        self.0.read_at(self.1, &mut out[..count]).map_err(io::Error::other)?;
        self.1 += count as u64;
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

//! Unpacking gzip and zstd files: once, into the cache, or into a file without a name if there is no cache.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Cursor, Read, Write},
    path::PathBuf,
    sync::Arc,
};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::{
    DataError, Work,
    cache::{self, CacheError, WriteError},
    data_file::DataFile,
};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

/// Changes when the same file would give other bytes.
const VERSION: &[u8] = b"unpacked 1";

/// Where unpacked bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Unpacked {
    At(PathBuf),
    Unnamed(Arc<File>),
}

/// Unpacks a file.
pub(crate) fn unpack(
    file: &DataFile,
    compression: Compression,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<Unpacked, DataError> {
    let hash = file.hash(0, |position| work.progress.update("reading", position, file.len()))?;
    let key = cache::key(&[VERSION, hash.as_bytes()]);
    if let Some(path) = work.cache.path(&key, "unpacked") {
        // Its length is kept beside it, so that later truncation is noticed.
        let kept_len = work.cache.read(&key, "length").and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        if kept_len.is_some() && path.metadata().map(|metadata| metadata.len()).ok() == kept_len {
            return Ok(Unpacked::At(path));
        }
        match cache::write_with(&path, |out| unpack_into(file, compression, out, work)) {
            Ok(len) => match work.cache.write(&key, "length", &len.to_le_bytes()) {
                Ok(()) => return Ok(Unpacked::At(path)),
                Err(error) => warnings.push(error.to_string()),
            },
            Err(WriteError::Data(error)) => return Err(error),
            Err(WriteError::Io(source)) => warnings.push(CacheError { path, source }.to_string()),
        }
    }
    let (mut out, path) = cache::unnamed_file()?;
    unpack_into(file, compression, &mut out, work).map_err(|error| error.at(&path))?;
    Ok(Unpacked::Unnamed(Arc::new(out)))
}

/// Unpacks into `out` and returns the number of unpacked bytes.
fn unpack_into(file: &DataFile, compression: Compression, out: &mut File, work: &Work<'_>) -> Result<u64, WriteError> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let mut source = BufReader::with_capacity(1 << 20, PackedReader { file, position: 0, work });
    let mut total = 0;
    let broken = |error: io::Error| WriteError::Data(of_source(error, file));
    match compression {
        // A file that was compressed in parts has several members. On tapes, zeros fill the last block.
        Compression::Gzip => loop {
            total += decode_into(&mut GzDecoder::new(&mut source), &mut out, file)?;
            if !skip_zeros(&mut source).map_err(broken)? {
                break;
            }
        },
        Compression::Zstd => {
            while let Some(start) = next_frame(&mut source).map_err(broken)? {
                let frame = StreamingDecoder::new(start.chain(&mut source));
                let mut frame = frame.map_err(|error| broken(io::Error::other(error.to_string())))?;
                total += decode_into(&mut frame, &mut out, file)?;
            }
        }
    }
    out.flush()?;
    Ok(total)
}

/// Whether the start of a file unpacks as far as it goes.
pub(crate) fn begins_as(compression: Compression, mut start: &[u8]) -> bool {
    let unpacked = match compression {
        Compression::Gzip => io::copy(&mut GzDecoder::new(start), &mut io::sink()),
        Compression::Zstd => {
            let Ok(Some(frame)) = next_frame(&mut start) else { return false };
            let Ok(mut frame) = StreamingDecoder::new(frame.chain(start)) else { return false };
            io::copy(&mut frame, &mut io::sink())
        }
    };
    // A start that is cut off ends unexpectedly; ruzstd has its own error for that.
    unpacked
        .map_or_else(|error| error.kind() == io::ErrorKind::UnexpectedEof || compression == Compression::Zstd, |_| true)
}

/// Skips zeros; false if nothing follows them.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let is_over = zeros < bytes.len();
        source.consume(zeros);
        if is_over {
            return Ok(true);
        }
    }
}

/// The first bytes of the next zstd frame, after frames without data (RFC 8878, section 3.1.2); none at the end.
fn next_frame(source: &mut impl BufRead) -> io::Result<Option<Cursor<[u8; 8]>>> {
    while !source.fill_buf()?.is_empty() {
        let mut start = [0; 8];
        source.read_exact(&mut start)?;
        let [magic, 0x2A, 0x4D, 0x18, len @ ..] = start else { return Ok(Some(Cursor::new(start))) };
        if magic & 0xF0 != 0x50 {
            return Ok(Some(Cursor::new(start)));
        }
        let len = u64::from(u32::from_le_bytes(len));
        if io::copy(&mut source.take(len), &mut io::sink())? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(None)
}

/// Copies everything from a decoder to `out`.
fn decode_into(decoder: &mut dyn Read, out: &mut dyn Write, file: &DataFile) -> Result<u64, WriteError> {
    let mut bytes = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        match decoder.read(&mut bytes) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                out.write_all(&bytes[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(WriteError::Data(of_source(error, file))),
        }
    }
}

/// The error of a compressed file: its reader's error, or that it does not unpack.
fn of_source(error: io::Error, file: &DataFile) -> DataError {
    match error.downcast::<DataError>() {
        Ok(error) => error,
        Err(error) => DataError::BrokenCompression { path: file.path.clone(), why: error.to_string() },
    }
}

/// Reads a compressed file from its start and reports progress.
struct PackedReader<'a> {
    file: &'a DataFile,
    position: u64,
    work: &'a Work<'a>,
}

impl Read for PackedReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = (self.file.len() - self.position).min(out.len() as u64) as usize;
        self.file.read_at(self.position, &mut out[..count]).map_err(io::Error::other)?;
        self.position += count as u64;
        self.work.progress.update("unpacking", self.position, self.file.len());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use flate2::write::GzEncoder;

    use super::*;
    use crate::{Cache, data_file::FromStart};

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn unpacked(bytes: Vec<u8>, compression: Compression, cache: &Cache) -> Result<Vec<u8>, DataError> {
        let work = Work { cache, ..Work::default() };
        let mut warnings = Vec::new();
        let found = unpack(&DataFile::in_memory("x".into(), bytes), compression, &work, &mut warnings)?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok(match found {
            Unpacked::At(path) => std::fs::read(path).unwrap(),
            Unpacked::Unnamed(file) => {
                let mut bytes = Vec::new();
                FromStart::new(DataFile::shared(file, Path::new("x")).unwrap()).read_to_end(&mut bytes).unwrap();
                bytes
            }
        })
    }

    #[test]
    fn parts_that_follow_one_another_are_all_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..300_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let skippable = [&[0x5E, 0x2A, 0x4D, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let expected = [&text[..], b"second"].concat();
        for (bytes, compression) in [
            ([gzip(&text), gzip(b"second")].concat(), Compression::Gzip),
            ([skippable.clone(), zstd(&text), skippable, zstd(b"second")].concat(), Compression::Zstd),
        ] {
            for cache in [Cache::none(), Cache::in_folder(folder.path()), Cache::in_folder(folder.path())] {
                assert!(unpacked(bytes.clone(), compression, &cache).unwrap() == expected, "{compression:?}");
            }
        }
    }

    /// The bytes that 1 MiB buffers end within are those of a frame's start.
    #[test]
    fn frames_begin_anywhere_in_a_buffer() {
        for before_end in 1..8 {
            let len = (1 << 20) - 8 - before_end;
            let long = [&[0x50, 0x2A, 0x4D, 0x18], &(len as u32).to_le_bytes()[..], &vec![7; len]].concat();
            let bytes = [&long[..], &[0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9], &zstd(b"text")].concat();
            assert_eq!(unpacked(bytes, Compression::Zstd, &Cache::none()).unwrap(), b"text", "{before_end}");
        }
    }

    #[test]
    fn a_file_that_was_cut_short_is_refused() {
        let text = b"some text that is long enough to be packed ".repeat(1000);
        for (bytes, compression) in [(gzip(&text), Compression::Gzip), (zstd(&text), Compression::Zstd)] {
            for len in [bytes.len() - 1, bytes.len() / 2, 11] {
                let found = unpacked(bytes[..len].to_vec(), compression, &Cache::none());
                assert!(matches!(found, Err(DataError::BrokenCompression { .. })), "{compression:?} {len}");
            }
        }
    }
}

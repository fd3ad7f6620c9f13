//! Token shards: llm.c's two formats, numpy's and headerless tokens, little-endian.
//!
//! llm.c writes 256 `i32` (magic, version, number of tokens, zeros), then the tokens. Magic 20240520 version 1 means `u16` ids
//! of GPT-2; magic 20240801 version 7 means `u32` ids of Llama 3.

use std::sync::Arc;

use super::npy;
use crate::{DataError, TokenDtype, data_file::DataFile};

/// Bytes of an llm.c header.
const HEADER_BYTES: usize = 256 * 4;
/// Bytes read at a time, into a buffer on the stack.
const CHUNK_BYTES: usize = 8192;

const GPT2: Format = Format { magic: 20_240_520, version: 1, dtype: TokenDtype::U16, vocab: 50_257 };
const LLAMA3: Format = Format { magic: 20_240_801, version: 7, dtype: TokenDtype::U32, vocab: 128_256 };

struct Format {
    magic: u32,
    version: u32,
    dtype: TokenDtype,
    vocab: usize,
}

/// The tokens of one file.
#[derive(Debug)]
pub(crate) struct Shard {
    file: DataFile,
    /// First byte of the tokens.
    start: u64,
    count: u64,
    dtype: TokenDtype,
    /// The vocabulary that the format implies.
    format_vocab: Option<usize>,
}

/// Whether a file begins with the magic of an llm.c shard.
pub(crate) fn has_magic(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|word| [GPT2.magic, LLAMA3.magic].contains(&u32::from_le_bytes(*word)))
}

impl Shard {
    /// Reads the header and checks the length. Reading checks the tokens themselves.
    pub(crate) fn open(file: DataFile, token_dtype: Option<TokenDtype>) -> Result<Shard, DataError> {
        let header = file.read_up_to(0, HEADER_BYTES)?;
        let path = || file.path.clone();
        let check_dtype = |found: TokenDtype| match token_dtype.filter(|given| *given != found) {
            Some(given) => Err(DataError::ShardDtype { path: path(), found: found.name(), given: given.name() }),
            None => Ok(()),
        };
        if npy::has_magic(&header) {
            let npy::Array { start, count, dtype } = npy::open(&file)?;
            check_dtype(dtype)?;
            return Ok(Shard { file, start, count, dtype, format_vocab: None });
        }
        if !has_magic(&header) {
            let Some(dtype) = token_dtype else {
                return Err(DataError::NoHeader { path: path() });
            };
            if !file.len().is_multiple_of(dtype.bytes() as u64) {
                return Err(DataError::ShardBytes { path: path(), bytes: file.len(), dtype: dtype.name() });
            }
            if dtype == TokenDtype::U16 && holds_wider_tokens(&file)? {
                return Err(DataError::WiderTokens { path: path() });
            }
            let count = file.len() / dtype.bytes() as u64;
            return Ok(Shard { file, start: 0, count, dtype, format_vocab: None });
        }
        if header.len() < HEADER_BYTES {
            let why = format!("the file has {} bytes, the header alone {HEADER_BYTES}", header.len());
            return Err(DataError::ShardHeader { path: path(), why });
        }
        let word = |index: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[index * 4 + byte]));
        let format = if word(0) == GPT2.magic { GPT2 } else { LLAMA3 };
        if word(1) != format.version {
            let why = format!("version {} of magic {}, expected {}", word(1), format.magic, format.version);
            return Err(DataError::ShardHeader { path: path(), why });
        }
        check_dtype(format.dtype)?;
        let declared = u64::from(word(2));
        let held_bytes = file.len() - HEADER_BYTES as u64;
        let held = held_bytes / format.dtype.bytes() as u64;
        if declared != held || !held_bytes.is_multiple_of(format.dtype.bytes() as u64) {
            return Err(DataError::ShardLength { path: path(), declared, held });
        }
        let start = HEADER_BYTES as u64;
        Ok(Shard { file, start, count: declared, dtype: format.dtype, format_vocab: Some(format.vocab) })
    }

    /// Tokens from byte `start` of a file whose layout is known. The caller has checked the bounds.
    pub(crate) fn from_parts(file: DataFile, start: u64, count: u64, dtype: TokenDtype) -> Shard {
        Shard { file, start, count, dtype, format_vocab: None }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn format_vocab(&self) -> Option<usize> {
        self.format_vocab
    }

    /// The whole file.
    pub(crate) fn file(&self) -> &DataFile {
        &self.file
    }

    /// Copies the tokens from `index` on and checks each against the vocabulary. Allocates nothing.
    pub(crate) fn read(&self, index: u64, out: &mut [u32], vocab: usize) -> Result<(), DataError> {
        debug_assert!(index + out.len() as u64 <= self.count);
        let width = self.dtype.bytes();
        let mut bytes = [0; CHUNK_BYTES];
        let mut largest = 0;
        let mut position = self.start + index * width as u64;
        for tokens in out.chunks_mut(CHUNK_BYTES / width) {
            let bytes = &mut bytes[..tokens.len() * width];
            self.file.read_at(position, bytes)?;
            position += bytes.len() as u64;
            match self.dtype {
                TokenDtype::U16 => {
                    for (token, pair) in tokens.iter_mut().zip(bytes.chunks_exact(2)) {
                        *token = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                        largest = largest.max(*token);
                    }
                }
                TokenDtype::U32 => {
                    for (token, word) in tokens.iter_mut().zip(bytes.chunks_exact(4)) {
                        *token = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                        largest = largest.max(*token);
                    }
                }
            }
        }
        if largest as usize >= vocab
            && let Some(bad) = out.iter().position(|token| *token as usize >= vocab)
        {
            let path = self.file.path.clone();
            return Err(DataError::TokenOutOfRange { path, token: out[bad], index: index + bad as u64, vocab });
        }
        Ok(())
    }
}

/// Files up to this size are identified by all their bytes, larger files by a sample.
const WHOLE_BYTES: u64 = 64 << 20;

/// Identifies shards by their content, not their names: by the lengths, and by the bytes or, in large files, a sample of 4 MiB.
pub(crate) fn identity(shards: &[Arc<Shard>]) -> Result<blake3::Hash, DataError> {
    const SAMPLES: u64 = 1024;
    const SAMPLE_BYTES: u64 = 4096;
    let mut hasher = blake3::Hasher::new();
    for shard in shards {
        let file = &shard.file;
        hasher.update(&file.len().to_le_bytes());
        let (step, part) = match file.len() {
            ..=WHOLE_BYTES => (1 << 20, 1 << 20),
            len => ((len - SAMPLE_BYTES) / (SAMPLES - 1), SAMPLE_BYTES),
        };
        let mut position = 0;
        while position < file.len() {
            hasher.update(&file.read_up_to(position, part as usize)?);
            position += step;
        }
    }
    Ok(hasher.finalize())
}

/// Whether headerless bytes are u32 (or u64) tokens, judged by the start, middle and end: if u32 tokens are read as u16, every
/// second one is an upper half, which is tiny, while the others vary.
fn holds_wider_tokens(file: &DataFile) -> Result<bool, DataError> {
    /// Upper halves of ids below 2^18 are smaller than this. No vocabulary exceeds 2^18 by much.
    const MAX_UPPER: u16 = 4;
    const MIN_PAIRS: usize = 64;
    if !file.len().is_multiple_of(4) {
        return Ok(false);
    }
    let (mut pairs, mut largest_lower) = (0, 0);
    for part in [0, file.len() / 2, file.len().saturating_sub(CHUNK_BYTES as u64)] {
        let bytes = file.read_up_to(part / 4 * 4, CHUNK_BYTES)?;
        for word in bytes.chunks_exact(4) {
            let [lower, upper] = [u16::from_le_bytes([word[0], word[1]]), u16::from_le_bytes([word[2], word[3]])];
            if upper >= MAX_UPPER {
                return Ok(false);
            }
            (pairs, largest_lower) = (pairs + 1, largest_lower.max(lower));
        }
    }
    Ok(pairs >= MIN_PAIRS && largest_lower >= 16 * MAX_UPPER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(words: [u32; 3], tokens: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(tokens);
        bytes
    }

    fn open(bytes: Vec<u8>, dtype: Option<TokenDtype>) -> Result<Shard, DataError> {
        Shard::open(DataFile::in_memory("shard.bin".into(), bytes), dtype)
    }

    #[test]
    fn both_formats_and_headerless_are_read() {
        let gpt2 = open(header([20_240_520, 1, 3], &[1, 0, 2, 0, 0, 1]), None).unwrap();
        let llama3 = open(header([20_240_801, 7, 1], &[1, 0, 1, 0]), None).unwrap();
        let plain = open(vec![7, 0, 8, 0], Some(TokenDtype::U16)).unwrap();
        let read = |shard: &Shard| {
            let mut out = vec![0; shard.count() as usize];
            shard.read(0, &mut out, 1 << 20).unwrap();
            (out, shard.format_vocab())
        };
        assert_eq!(read(&gpt2), (vec![1, 2, 256], Some(50_257)));
        assert_eq!(read(&llama3), (vec![65_537], Some(128_256)));
        assert_eq!(read(&plain), (vec![7, 8], None));
    }

    #[test]
    fn malformed_shards_are_refused_with_the_reason() {
        let cases: [(Vec<u8>, Option<TokenDtype>, &str); 9] = [
            (header([20_240_520, 1, 3], &[0; 4]), None, "says 3 tokens, but holds 2"),
            (header([20_240_520, 1, 1], &[0; 4]), None, "says 1 tokens, but holds 2"),
            (header([20_240_520, 1, 2], &[0; 5]), None, "says 2 tokens, but holds 2"),
            (header([20_240_520, 1, u32::MAX], &[0; 4]), None, "says 4294967295 tokens"),
            (header([20_240_520, 7, 2], &[0; 4]), None, "version 7 of magic 20240520, expected 1"),
            (header([20_240_801, 1, 1], &[0; 4]), None, "version 1 of magic 20240801, expected 7"),
            (20_240_520u32.to_le_bytes().to_vec(), None, "the file has 4 bytes"),
            (vec![0; 3], Some(TokenDtype::U16), "not a whole number of u16"),
            (header([20_240_520, 1, 2], &[0; 4]), Some(TokenDtype::U32), "holds u16 tokens by its header"),
        ];
        for (bytes, dtype, expected) in cases {
            let message = open(bytes, dtype).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_named_with_its_place() {
        let shard = open(header([20_240_520, 1, 3], &[1, 0, 9, 0, 0, 1]), None).unwrap();
        let error = shard.read(1, &mut [0; 2], 200).unwrap_err();
        assert!(matches!(error, DataError::TokenOutOfRange { token: 256, index: 2, vocab: 200, .. }), "{error}");
    }

    #[test]
    fn numpys_tokens_are_read_behind_their_header() {
        let header = format!("{:<117}\n", "{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }");
        let bytes = [&b"\x93NUMPY\x01\0\x76\0"[..], header.as_bytes(), &[1, 0, 2, 0, 3, 0]].concat();
        for dtype in [None, Some(TokenDtype::U16)] {
            let shard = open(bytes.clone(), dtype).unwrap();
            let mut out = [0; 3];
            shard.read(0, &mut out, 10).unwrap();
            assert_eq!(out, [1, 2, 3]);
        }
        assert!(matches!(open(bytes, Some(TokenDtype::U32)), Err(DataError::ShardDtype { .. })));
    }

    #[test]
    fn wider_tokens_are_not_read_as_u16() {
        let wide: Vec<u8> = (0..500u32).flat_map(|token| (token * 97 % 100_000).to_le_bytes()).collect();
        assert!(matches!(open(wide.clone(), Some(TokenDtype::U16)), Err(DataError::WiderTokens { .. })));
        assert!(open(wide, Some(TokenDtype::U32)).is_ok());
        // Few tokens, small vocabularies, and ids that look wider only now and then.
        let narrow: Vec<u8> = (0..500u32).flat_map(|token| ((token * 97 % 900) as u16).to_le_bytes()).collect();
        let letters: Vec<u8> =
            (0..500u32).flat_map(|token| ((token % 2 * (token % 60)) as u16).to_le_bytes()).collect();
        for bytes in [narrow, letters, vec![0; 4000], vec![200, 0, 0, 0]] {
            assert!(open(bytes, Some(TokenDtype::U16)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_open_or_err(
            magic in prop::sample::select(vec![20_240_520u32, 20_240_801, 0]), version in 0u32..9, count: u32,
            tail in prop::collection::vec(any::<u8>(), 0..64), cut in 0usize..1100,
            dtype in prop::sample::select(vec![None, Some(TokenDtype::U16), Some(TokenDtype::U32)]),
        ) {
            let count = if count % 2 == 0 { count % 40 } else { count };
            let mut bytes = header([magic, version, count], &tail);
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Ok(shard) = open(bytes, dtype) {
                let mut out = vec![0; shard.count() as usize];
                let _ = shard.read(0, &mut out, 70_000);
            }
        }
    }
}

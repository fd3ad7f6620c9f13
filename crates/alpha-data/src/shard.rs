//! Token shards: llm.c's two formats and headerless tokens, little-endian.
//!
//! llm.c writes 256 `i32` (magic, version, number of tokens, zeros), then the tokens. Magic
//! 20240520 version 1 holds `u16` ids of GPT-2, 20240801 version 7 `u32` ids of Llama 3.

use crate::{DataError, mapped::MappedFile};

/// Bytes of an llm.c header.
const HEADER_BYTES: usize = 256 * 4;

const GPT2: Format = Format { magic: 20_240_520, version: 1, dtype: TokenDtype::U16, vocab: 50_257 };
const LLAMA3: Format = Format { magic: 20_240_801, version: 7, dtype: TokenDtype::U32, vocab: 128_256 };

struct Format {
    magic: u32,
    version: u32,
    dtype: TokenDtype,
    vocab: usize,
}

/// How a token id is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenDtype {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl TokenDtype {
    /// The narrowest type that holds all ids of a vocabulary.
    pub fn for_vocab(vocab: usize) -> TokenDtype {
        if vocab <= 1 << 16 { TokenDtype::U16 } else { TokenDtype::U32 }
    }

    /// Bytes of one id.
    pub fn bytes(self) -> usize {
        match self {
            TokenDtype::U16 => 2,
            TokenDtype::U32 => 4,
        }
    }

    /// As typed after `--tokenDtype=`.
    pub fn name(self) -> &'static str {
        match self {
            TokenDtype::U16 => "u16",
            TokenDtype::U32 => "u32",
        }
    }
}

/// Tokens of one file, in place.
#[derive(Debug)]
pub(crate) struct Shard {
    file: MappedFile,
    /// First byte of the tokens.
    start: usize,
    count: u64,
    dtype: TokenDtype,
    /// The vocabulary that the format implies.
    format_vocab: Option<usize>,
}

/// Whether a file begins as an llm.c shard.
pub(crate) fn has_magic(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|word| [GPT2.magic, LLAMA3.magic].contains(&u32::from_le_bytes(*word)))
}

impl Shard {
    /// Reads the header and checks the length; the tokens themselves are checked when read.
    pub(crate) fn open(file: MappedFile, token_dtype: Option<TokenDtype>) -> Result<Shard, DataError> {
        let path = || file.path.clone();
        if !has_magic(&file) {
            let Some(dtype) = token_dtype else {
                return Err(DataError::NoHeader { path: path() });
            };
            if !file.len().is_multiple_of(dtype.bytes()) {
                return Err(DataError::ShardBytes { path: path(), bytes: file.len() as u64, dtype: dtype.name() });
            }
            let count = (file.len() / dtype.bytes()) as u64;
            return Ok(Shard { file, start: 0, count, dtype, format_vocab: None });
        }
        if file.len() < HEADER_BYTES {
            let why = format!("the file has {} bytes, the header alone {HEADER_BYTES}", file.len());
            return Err(DataError::ShardHeader { path: path(), why });
        }
        let word = |index: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| file[index * 4 + byte]));
        let format = if word(0) == GPT2.magic { GPT2 } else { LLAMA3 };
        if word(1) != format.version {
            let why = format!("version {} of magic {}, expected {}", word(1), format.magic, format.version);
            return Err(DataError::ShardHeader { path: path(), why });
        }
        if let Some(given) = token_dtype.filter(|given| *given != format.dtype) {
            return Err(DataError::ShardDtype { path: path(), found: format.dtype.name(), given: given.name() });
        }
        let said = u64::from(word(2));
        let held_bytes = file.len() - HEADER_BYTES;
        let held = (held_bytes / format.dtype.bytes()) as u64;
        if said != held || !held_bytes.is_multiple_of(format.dtype.bytes()) {
            return Err(DataError::ShardLength { path: path(), said, held });
        }
        Ok(Shard { file, start: HEADER_BYTES, count: said, dtype: format.dtype, format_vocab: Some(format.vocab) })
    }

    /// Tokens that begin at a byte of a file whose layout is known; the caller checked bounds.
    pub(crate) fn from_parts(file: MappedFile, start: usize, count: u64, dtype: TokenDtype) -> Shard {
        Shard { file, start, count, dtype, format_vocab: None }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn format_vocab(&self) -> Option<usize> {
        self.format_vocab
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file
    }

    /// Copies the tokens from `index` on, each checked against the vocabulary.
    pub(crate) fn read(&self, index: u64, out: &mut [u32], vocab: usize) -> Result<(), DataError> {
        debug_assert!(index + out.len() as u64 <= self.count);
        let width = self.dtype.bytes();
        let start = self.start + index as usize * width;
        let bytes = &self.file[start..start + out.len() * width];
        let mut largest = 0;
        match self.dtype {
            TokenDtype::U16 => {
                for (token, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *token = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                    largest = largest.max(*token);
                }
            }
            TokenDtype::U32 => {
                for (token, word) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *token = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    largest = largest.max(*token);
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
        Shard::open(MappedFile::owned("shard.bin".into(), bytes), dtype)
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
            (vec![0; 3], Some(TokenDtype::U16), "no whole number of u16"),
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

//! A sequence of tokens in one or more shards.
//!
//! Positions count from the start of the stream. A read may cross shards; the loaders choose windows that do not
//! ([`TokenStream::shard_ranges`]).

mod token_dtype;
pub(crate) mod npy;
pub(crate) mod shard;

pub use self::token_dtype::TokenDtype;

use std::{ops::Range, sync::Arc};

use self::shard::Shard;
use crate::DataError;

/// Tokens of a vocabulary, read from their files. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct TokenStream {
    parts: Vec<Part>,
    len: u64,
    vocab: usize,
}

/// A range of tokens of one shard.
#[derive(Clone, Debug)]
struct Part {
    shard: Arc<Shard>,
    /// Position of the first token in the stream.
    start: u64,
    /// Index of the first token in the shard.
    index: u64,
    len: u64,
}

impl TokenStream {
    /// The shards in order. Reading checks that ids are below `vocab`.
    pub(crate) fn new(shards: Vec<Arc<Shard>>, vocab: usize) -> TokenStream {
        let mut len = 0;
        let parts = shards
            .into_iter()
            .map(|shard| {
                let part = Part { start: len, index: 0, len: shard.count(), shard };
                len += part.len;
                part
            })
            .collect();
        TokenStream { parts, len, vocab }
    }

    /// Number of tokens.
    #[expect(clippy::len_without_is_empty, reason = "streams are used once they are known to be long enough")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Number of ids; every token that is read is below it.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The range of positions of each shard.
    pub(crate) fn shard_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.parts.iter().map(|part| part.start..part.start + part.len)
    }

    /// Number of tokens of the longest shard.
    pub(crate) fn longest_shard(&self) -> u64 {
        self.parts.iter().map(|part| part.len).max().unwrap_or(0)
    }

    /// The warning for shards with fewer than `needed` tokens, which are never read; none if there are no such shards.
    pub fn too_short(&self, needed: u64) -> Option<String> {
        let short: Vec<&Part> = self.parts.iter().filter(|part| part.len < needed).collect();
        let first = short.first()?;
        let tokens: u64 = short.iter().map(|part| part.len).sum();
        let named = match short.len() {
            1 => format!("`{}` has", first.shard.file().path.display()),
            count => format!("`{}` and {} more shards have", first.shard.file().path.display(), count - 1),
        };
        Some(format!(
            "{named} fewer than the {needed} tokens that are read at a time: {tokens} tokens are never trained on"
        ))
    }

    /// Part of the stream, as its own stream.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> TokenStream {
        let mut parts = Vec::new();
        let mut len = 0;
        for part in &self.parts {
            let start = range.start.max(part.start);
            let end = range.end.min(part.start + part.len);
            if start < end {
                let index = part.index + (start - part.start);
                parts.push(Part { shard: part.shard.clone(), start: len, index, len: end - start });
                len += end - start;
            }
        }
        TokenStream { parts, len, vocab: self.vocab }
    }

    /// Copies `out.len()` tokens from `position` on. The range must be within the stream.
    pub fn read(&self, position: u64, out: &mut [u32]) -> Result<(), DataError> {
        let mut rest = out;
        let mut position = position;
        let mut part = self.parts.partition_point(|part| part.start <= position).saturating_sub(1);
        while !rest.is_empty() {
            let Part { shard, start, index, len } = &self.parts[part];
            let available = (start + len - position).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(available);
            shard.read(index + (position - start), now, self.vocab)?;
            position += available as u64;
            part += 1;
            rest = later;
        }
        Ok(())
    }

    /// Reads one training row: `tokens` from `position` on, and as targets the token after each.
    pub(crate) fn read_row(&self, position: u64, tokens: &mut [u32], targets: &mut [u32]) -> Result<(), DataError> {
        let last = tokens.len() - 1;
        self.read(position, tokens)?;
        targets[..last].copy_from_slice(&tokens[1..]);
        self.read(position + last as u64 + 1, &mut targets[last..])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data_file::DataFile;

    /// Shards of the given lengths; together they hold 0, 1, 2 …
    pub(crate) fn counting(lengths: &[usize]) -> TokenStream {
        let mut next = 0u32;
        let shards = lengths.iter().map(|length| {
            let bytes = (next..next + *length as u32).flat_map(u32::to_le_bytes).collect();
            next += *length as u32;
            let file = DataFile::in_memory("counting.bin".into(), bytes);
            Arc::new(Shard::open(file, Some(TokenDtype::U32)).unwrap())
        });
        TokenStream::new(shards.collect(), 1 << 20)
    }

    #[test]
    fn reads_and_slices_cross_shards() {
        let stream = counting(&[3, 1, 4]);
        let mut out = [0; 5];
        stream.read(2, &mut out).unwrap();
        assert_eq!(out, [2, 3, 4, 5, 6]);
        let slice = stream.slice(1..6);
        assert_eq!(slice.len(), 5);
        slice.read(0, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4, 5]);
        assert_eq!(slice.shard_ranges().collect::<Vec<_>>(), [0..2, 2..3, 3..5]);
    }
}

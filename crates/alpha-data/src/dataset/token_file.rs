//! An encoded corpus on disk, little-endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 0..8 | `ALPHATOK` |
//! | 8..12, 12..16 | version 1; bytes per token, 2 or 4 |
//! | 16..24, 24..32 | number of tokens; number of documents (0: the text has none) |
//! | 32..64 | BLAKE3 of bytes 0..32 and 64.. |
//! | 64.. | tokens; zeros to a multiple of 8; for each document the index of its first token, `u64` |
//!
//! It is written as a stream, so that memory grows only by 8 bytes per document.

use std::{
    io::{self, Seek, SeekFrom, Write},
    sync::Arc,
};

use crate::{
    Corpus, DataError, TokenDtype, Tokenizer, Work,
    cache::WriteError,
    corpus::{Piece, Pieces},
    data_file::DataFile,
    stream::shard::Shard,
    tokenizer::Text,
};

const MAGIC: &[u8; 8] = b"ALPHATOK";
pub(crate) const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Bytes of text that are encoded at a time; threads share the pieces.
const BATCH_BYTES: usize = 1 << 20;

/// Encodes a corpus into `out`, from its start.
pub(crate) fn write<W: Write + Seek>(
    out: &mut W,
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), WriteError> {
    let mut writer = Writer::new(out, TokenDtype::for_vocab(tokenizer.vocab_size()))?;
    let joins = |before: &str, after: &str| tokenizer.joins(before, after);
    let mut pieces = corpus.pieces_where(&joins);
    let mut encoder = tokenizer.encoder(work.threads);
    loop {
        let batch = next_batch(&mut pieces)?;
        if batch.is_empty() {
            break;
        }
        let texts: Vec<Text<'_>> =
            batch.iter().map(|piece| Text { text: &piece.text, context: &piece.context }).collect();
        let encoded = encoder.encode_batch(&texts).map_err(|(index, error)| located(error, &batch[index]))?;
        for (piece, tokens) in batch.iter().zip(&encoded) {
            if piece.begins_document && corpus.has_documents() {
                writer.begin_document();
            }
            writer.write_tokens(tokens)?;
            if let (true, Some(end_of_text)) = (piece.ends_document, tokenizer.end_of_text()) {
                writer.write_tokens(&[end_of_text])?;
            }
        }
        work.progress.update("encoding", pieces.consumed_bytes(), corpus.bytes());
    }
    corpus.check_unchanged()?;
    if pieces.forced_cuts() > 0 {
        warnings.push(format!(
            "`{}` has parts of 4 MiB without a space: it was cut within them at {} places, where tokens may differ from \
             those of the whole",
            corpus.first_path().display(),
            pieces.forced_cuts()
        ));
    }
    Ok(writer.finish()?)
}

/// The pieces of the next [`BATCH_BYTES`] of text or a little more; at the end fewer, then none.
fn next_batch<'a>(pieces: &mut Pieces<'a>) -> Result<Vec<Piece<'a>>, DataError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES
        && let Some(piece) = pieces.next().transpose()?
    {
        bytes += piece.text.len();
        batch.push(piece);
    }
    Ok(batch)
}

/// Adds to an error in which file, and where in it, unknown text is.
fn located(error: DataError, piece: &Piece) -> DataError {
    match error {
        DataError::NotInVocabulary { token, offset, .. } => DataError::NotInVocabulary {
            token,
            offset: offset + piece.offset,
            path: Some(piece.path.to_owned()),
            line: piece.line,
        },
        error => error,
    }
}

struct Writer<'a, W> {
    out: &'a mut W,
    /// The hash of everything after the header. The hash of the file covers this and the header, which is known last.
    payload: blake3::Hasher,
    bytes: Vec<u8>,
    dtype: TokenDtype,
    tokens: u64,
    /// The index of the first token of each document.
    documents: Vec<u64>,
}

impl<'a, W: Write + Seek> Writer<'a, W> {
    /// Leaves space for the header.
    fn new(out: &'a mut W, dtype: TokenDtype) -> io::Result<Writer<'a, W>> {
        out.write_all(&[0; HEADER_BYTES])?;
        Ok(Writer { out, payload: blake3::Hasher::new(), bytes: Vec::new(), dtype, tokens: 0, documents: Vec::new() })
    }

    fn begin_document(&mut self) {
        self.documents.push(self.tokens);
    }

    fn write_tokens(&mut self, tokens: &[u32]) -> io::Result<()> {
        self.bytes.clear();
        for token in tokens {
            self.bytes.extend_from_slice(&token.to_le_bytes()[..self.dtype.bytes()]);
        }
        self.tokens += tokens.len() as u64;
        self.write_bytes()
    }

    /// Writes the documents, then the header.
    fn finish(mut self) -> io::Result<()> {
        let token_bytes = self.tokens as usize * self.dtype.bytes();
        self.bytes.clear();
        self.bytes.resize(token_bytes.next_multiple_of(8) - token_bytes, 0);
        for start in &self.documents {
            self.bytes.extend_from_slice(&start.to_le_bytes());
        }
        self.write_bytes()?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(self.dtype.bytes() as u32).to_le_bytes());
        header.extend_from_slice(&self.tokens.to_le_bytes());
        header.extend_from_slice(&(self.documents.len() as u64).to_le_bytes());
        let hash = blake3::Hasher::new().update(&header).update(self.payload.finalize().as_bytes()).finalize();
        header.extend_from_slice(hash.as_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()
    }

    fn write_bytes(&mut self) -> io::Result<()> {
        self.payload.update(&self.bytes);
        self.out.write_all(&self.bytes)
    }
}

/// An encoded corpus.
#[derive(Debug)]
pub(crate) struct TokenFile {
    pub(crate) shard: Arc<Shard>,
    documents_start: u64,
    documents: u64,
}

/// Checks length and hash; `None` if this is not a complete token file of this version.
pub(crate) fn open(file: DataFile) -> Option<TokenFile> {
    let header = file.read_up_to(0, HEADER_BYTES).ok().filter(|header| header.len() == HEADER_BYTES)?;
    let number = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let word = |at: usize| header[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let dtype = match word(12)? {
        2 => TokenDtype::U16,
        4 => TokenDtype::U32,
        _ => return None,
    };
    if &header[..8] != MAGIC || word(8)? != VERSION {
        return None;
    }
    let (tokens, documents) = (number(16)?, number(24)?);
    let token_bytes = tokens.checked_mul(dtype.bytes() as u64)?.checked_next_multiple_of(8)?;
    let documents_start = token_bytes.checked_add(HEADER_BYTES as u64)?;
    if documents.checked_mul(8)?.checked_add(documents_start)? != file.len() {
        return None;
    }
    let payload = file.hash(HEADER_BYTES as u64, |_| {}).ok()?;
    let hash = blake3::Hasher::new().update(&header[..32]).update(payload.as_bytes()).finalize();
    if hash.as_bytes() != &header[32..] {
        return None;
    }
    let shard = Arc::new(Shard::from_parts(file, HEADER_BYTES as u64, tokens, dtype));
    Some(TokenFile { shard, documents_start, documents })
}

impl TokenFile {
    /// Number of documents; 0 if the text has none.
    pub(crate) fn documents(&self) -> u64 {
        self.documents
    }

    /// The index of the first token of a document.
    pub(crate) fn document_start(&self, document: u64) -> Result<u64, DataError> {
        debug_assert!(document < self.documents);
        let mut bytes = [0; 8];
        self.shard.file().read_at(self.documents_start + document * 8, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use proptest::prelude::*;

    fn encode(texts: &[&str], kind: &Kind) -> (Vec<u8>, Tokenizer) {
        let corpus = Corpus::from_texts(texts);
        let tokenizer = Tokenizer::build(kind, &corpus, &Work::default()).unwrap().0;
        let mut out = io::Cursor::new(Vec::new());
        write(&mut out, &corpus, &tokenizer, &Work::default(), &mut Vec::new()).unwrap();
        (out.into_inner(), tokenizer)
    }

    fn reopen(bytes: Vec<u8>) -> Option<TokenFile> {
        open(DataFile::in_memory("x.tokens".into(), bytes))
    }

    #[test]
    fn documents_start_where_the_texts_do() {
        let (bytes, tokenizer) = encode(&["one", "", "three"], &Kind::Byte);
        let file = reopen(bytes).unwrap();
        let mut tokens = vec![0; file.shard.count() as usize];
        file.shard.read(0, &mut tokens, tokenizer.vocab_size()).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), "one<|endoftext|>three<|endoftext|>");
        assert_eq!((0..file.documents()).map(|d| file.document_start(d).unwrap()).collect::<Vec<_>>(), [0, 4]);
    }

    #[test]
    fn encoding_by_pieces_is_encoding_the_whole() {
        let mut text = String::new();
        for line in 0..30_000 {
            text.push_str(["the cat's  hat", " 12 a", "\t", "", "end, of.", "é — «x»"][line * line % 7 % 6]);
            text.push('\n');
        }
        let (bytes, tokenizer) = encode(&[&text], &Kind::Bpe { vocab: 300 });
        let file = reopen(bytes).unwrap();
        let mut tokens = vec![0; file.shard.count() as usize];
        file.shard.read(0, &mut tokens, tokenizer.vocab_size()).unwrap();
        assert!(text.len() > 200_000);
        assert!(tokens == tokenizer.encode(&text).unwrap());
    }

    proptest! {
        #[test]
        fn damage_is_seen(at in 0usize..10_000, bit in 0u32..8, cut in 0usize..10_000) {
            let (mut bytes, _) = encode(&["some text", "more text"], &Kind::Byte);
            let at = at % bytes.len();
            prop_assert!(reopen(bytes[..cut % bytes.len()].to_vec()).is_none());
            bytes[at] ^= 1 << bit;
            prop_assert!(reopen(bytes).is_none());
        }

        #[test]
        fn any_bytes_open_or_not(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&MAGIC[..], &[1, 0, 0, 0, 2, 0, 0, 0]].concat();
            bytes.extend_from_slice(&tail);
            prop_assert!(reopen(bytes).is_none());
            prop_assert!(reopen(tail).is_none());
        }
    }
}

//! An encoded corpus on disk, little-endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 0..8 | `ALPHATOK` |
//! | 8..12, 12..16 | version 1; bytes a token, 2 or 4 |
//! | 16..24, 24..32 | number of tokens; number of documents (0: the text has none) |
//! | 32..64 | BLAKE3 of bytes 0..32 and 64.. |
//! | 64.. | tokens; zeros to a multiple of 8; for each document its first token, `u64` |
//!
//! Written as a stream: memory does not grow with the text, but for 8 bytes a document.

use std::{
    io::{self, Seek, SeekFrom, Write},
    sync::Arc,
};

use crate::{Corpus, DataError, TokenDtype, Tokenizer, corpus::Piece, mapped::MappedFile, shard::Shard};

const MAGIC: &[u8; 8] = b"ALPHATOK";
pub(crate) const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;

/// Text that is encoded in one go; foreign tokenizers take its pieces in parallel.
const BATCH_BYTES: usize = 1 << 20;

/// Why writing stopped.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The text or the tokenizer is at fault.
    Data(DataError),
    /// The place written to is.
    Io(io::Error),
}

impl From<DataError> for WriteError {
    fn from(error: DataError) -> WriteError {
        WriteError::Data(error)
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Io(error)
    }
}

/// Encodes a corpus into `out`, from its start.
pub(crate) fn write<W: Write + Seek>(out: &mut W, corpus: &Corpus, tokenizer: &Tokenizer) -> Result<(), WriteError> {
    let dtype = TokenDtype::for_vocab(tokenizer.vocab_size());
    out.write_all(&[0; HEADER_BYTES])?;
    // The hash covers the header, which is known last, so the payload gets a hash of its own.
    let mut writer = Writer { out, hasher: blake3::Hasher::new(), bytes: Vec::new(), dtype, tokens: 0 };
    let mut documents: Vec<u64> = Vec::new();
    let mut at_document_start = corpus.has_documents();
    let mut batch: Vec<Piece> = Vec::new();
    let mut batch_bytes = 0;
    let mut pieces = corpus.pieces();
    let mut encoder = tokenizer.encoder();
    loop {
        let piece = pieces.next().transpose()?;
        let is_last = piece.is_none();
        if let Some(piece) = piece {
            batch_bytes += piece.text.len();
            batch.push(piece);
        }
        if batch_bytes < BATCH_BYTES && !is_last {
            continue;
        }
        let texts: Vec<&str> = batch.iter().map(|piece| &*piece.text).collect();
        let encoded = encoder.encode_batch(&texts).map_err(|(index, error)| place(error, &batch[index]))?;
        for (piece, tokens) in batch.iter().zip(&encoded) {
            if at_document_start {
                documents.push(writer.tokens);
            }
            writer.write_tokens(tokens)?;
            at_document_start = piece.ends_document;
            if let (true, Some(end_of_text)) = (piece.ends_document, tokenizer.end_of_text()) {
                writer.write_tokens(&[end_of_text])?;
            }
        }
        batch.clear();
        batch_bytes = 0;
        if is_last {
            break;
        }
    }
    writer.write_documents(&documents)?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(dtype.bytes() as u32).to_le_bytes());
    header.extend_from_slice(&writer.tokens.to_le_bytes());
    header.extend_from_slice(&(documents.len() as u64).to_le_bytes());
    let hash = blake3::Hasher::new().update(&header).update(writer.hasher.finalize().as_bytes()).finalize();
    header.extend_from_slice(hash.as_bytes());
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&header)?;
    out.flush()?;
    Ok(())
}

/// Says in which file, and where in it, text is unknown.
fn place(error: DataError, piece: &Piece) -> DataError {
    match error {
        DataError::NotInVocabulary { token, offset, .. } => {
            DataError::NotInVocabulary { token, offset: offset + piece.offset, path: Some(piece.path.to_owned()) }
        }
        error => error,
    }
}

struct Writer<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
    dtype: TokenDtype,
    tokens: u64,
}

impl<W: Write> Writer<'_, W> {
    fn write_tokens(&mut self, tokens: &[u32]) -> io::Result<()> {
        self.bytes.clear();
        for token in tokens {
            self.bytes.extend_from_slice(&token.to_le_bytes()[..self.dtype.bytes()]);
        }
        self.tokens += tokens.len() as u64;
        self.write_bytes()
    }

    fn write_documents(&mut self, documents: &[u64]) -> io::Result<()> {
        let token_bytes = self.tokens as usize * self.dtype.bytes();
        self.bytes.clear();
        self.bytes.resize(token_bytes.next_multiple_of(8) - token_bytes, 0);
        for start in documents {
            self.bytes.extend_from_slice(&start.to_le_bytes());
        }
        self.write_bytes()
    }

    fn write_bytes(&mut self) -> io::Result<()> {
        self.hasher.update(&self.bytes);
        self.out.write_all(&self.bytes)
    }
}

/// An encoded corpus.
#[derive(Debug)]
pub(crate) struct TokenFile {
    pub(crate) shard: Arc<Shard>,
    documents_start: usize,
    documents: u64,
}

/// Checks length and hash. `None`: not a whole token file of this version.
pub(crate) fn open(file: MappedFile) -> Option<TokenFile> {
    let header = file.get(..HEADER_BYTES)?;
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
    if documents.checked_mul(8)?.checked_add(documents_start)? != file.len() as u64 {
        return None;
    }
    let payload = blake3::hash(&file[HEADER_BYTES..]);
    let hash = blake3::Hasher::new().update(&header[..32]).update(payload.as_bytes()).finalize();
    if hash.as_bytes() != &header[32..] {
        return None;
    }
    let shard = Arc::new(Shard::from_parts(file, HEADER_BYTES, tokens, dtype));
    Some(TokenFile { shard, documents_start: documents_start as usize, documents })
}

impl TokenFile {
    /// Number of documents, 0 where the text has none.
    pub(crate) fn documents(&self) -> u64 {
        self.documents
    }

    /// The first token of a document.
    pub(crate) fn document_start(&self, document: u64) -> u64 {
        debug_assert!(document < self.documents);
        let at = self.documents_start + document as usize * 8;
        self.shard.bytes()[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use proptest::prelude::*;

    fn encode(texts: &[&str], kind: &Kind) -> (Vec<u8>, Tokenizer) {
        let corpus = Corpus::from_texts(texts);
        let tokenizer = Tokenizer::build(kind, &corpus).unwrap().0;
        let mut out = io::Cursor::new(Vec::new());
        write(&mut out, &corpus, &tokenizer).unwrap();
        (out.into_inner(), tokenizer)
    }

    fn reopen(bytes: Vec<u8>) -> Option<TokenFile> {
        open(MappedFile::owned("x.tokens".into(), bytes))
    }

    #[test]
    fn documents_start_where_the_texts_do() {
        let (bytes, tokenizer) = encode(&["one", "", "three"], &Kind::Byte);
        let file = reopen(bytes).unwrap();
        let mut tokens = vec![0; file.shard.count() as usize];
        file.shard.read(0, &mut tokens, tokenizer.vocab_size()).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), "one<|endoftext|>three<|endoftext|>");
        assert_eq!((0..file.documents()).map(|d| file.document_start(d)).collect::<Vec<_>>(), [0, 4]);
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

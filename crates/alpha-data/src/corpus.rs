//! Text, read file by file in pieces that are small enough to tokenize.
//!
//! Text is cut only at the start of a line or before a space, where the characters on both sides are not white space and the
//! tokenizer joins nothing ([`Joins`]). So encoding the pieces gives the tokens of the whole. If there is no such place within
//! [`cut::MAX_BYTES`], text is cut at any character, which is counted ([`Pieces::forced_cuts`]).
//!
//! Each line of jsonl is a document. If there are several text files, each is a document; a single text file has no documents.

mod cut;
mod window;
mod pieces;

pub(crate) use self::pieces::{Piece, Pieces};

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use self::cut::Joins;
use crate::{
    DataError, Progress, Source,
    data_file::{DataFile, FromStart},
    source::SourceFile,
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Text files or jsonl files.
#[derive(Debug)]
pub struct Corpus {
    files: Vec<TextFile>,
    is_jsonl: bool,
    hash: OnceLock<blake3::Hash>,
}

#[derive(Debug)]
struct TextFile {
    /// For messages.
    path: PathBuf,
    storage: Storage,
    len: u64,
    modified: Option<SystemTime>,
}

#[derive(Clone, Debug)]
enum Storage {
    /// Opened when it is read, because there may be more files than a process may have open.
    At(PathBuf),
    /// A file without a name.
    Unnamed(Arc<File>),
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Corpus {
    /// The files of a text or jsonl source; `None` for token shards.
    pub fn open(source: &Source) -> Result<Option<Corpus>, DataError> {
        let (files, is_jsonl) = match source {
            Source::Text(files) => (files, false),
            Source::Jsonl(files) => (files, true),
            Source::Shards(_) => return Ok(None),
        };
        let files = files.iter().map(TextFile::of).collect::<Result<_, _>>()?;
        Ok(Some(Corpus { files, is_jsonl, hash: OnceLock::new() }))
    }

    #[cfg(test)]
    pub(crate) fn from_texts(texts: &[&str]) -> Corpus {
        Corpus::from_bytes(texts.iter().map(|text| text.as_bytes()), false)
    }

    #[cfg(test)]
    fn from_bytes<'t>(texts: impl Iterator<Item = &'t [u8]>, is_jsonl: bool) -> Corpus {
        let file = |(index, bytes): (usize, &[u8])| TextFile {
            path: format!("{index}.txt").into(),
            storage: Storage::Memory(bytes.to_vec()),
            len: bytes.len() as u64,
            modified: None,
        };
        Corpus { files: texts.enumerate().map(file).collect(), is_jsonl, hash: OnceLock::new() }
    }

    /// Whether it consists of documents, each of which ends with an end-of-text token.
    pub fn has_documents(&self) -> bool {
        self.is_jsonl || self.files.len() > 1
    }

    /// Size in bytes, unpacked.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// Names the corpus in messages.
    pub(crate) fn first_path(&self) -> &Path {
        &self.files[0].path
    }

    /// Identifies the content: the kind, and the length and bytes of each file, but no names.
    pub(crate) fn hash(&self, progress: &dyn Progress) -> Result<blake3::Hash, DataError> {
        if let Some(hash) = self.hash.get() {
            return Ok(*hash);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(if self.is_jsonl { b"jsonl" } else { b"text " });
        let mut bytes = vec![0; READ_BYTES];
        let (mut done, total) = (0, self.bytes());
        for file in &self.files {
            hasher.update(&file.len.to_le_bytes());
            let mut reader = file.reader()?;
            loop {
                let count = reader.read(&mut bytes).map_err(|source| DataError::io("read", &file.path, source))?;
                if count == 0 {
                    break;
                }
                hasher.update(&bytes[..count]);
                done += count as u64;
                progress.update("reading", done, total);
            }
        }
        self.check_unchanged()?;
        Ok(*self.hash.get_or_init(|| hasher.finalize()))
    }

    /// # Errors
    /// [`DataError::Changed`] if the length or the time of a file has changed since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), DataError> {
        for file in &self.files {
            let Storage::At(path) = &file.storage else { continue };
            let metadata = fs::metadata(path).map_err(|source| DataError::io("read", &file.path, source))?;
            if metadata.len() != file.len || metadata.modified().ok() != file.modified {
                return Err(DataError::Changed { path: file.path.clone() });
            }
        }
        Ok(())
    }

    /// The text of all files, for a tokenizer that joins nothing at white space.
    pub(crate) fn pieces(&self) -> Pieces<'_> {
        self.pieces_where(&|_, _| false)
    }

    /// The text of all files, cut where a tokenizer joins nothing.
    pub(crate) fn pieces_where<'a>(&'a self, joins: Joins<'a>) -> Pieces<'a> {
        Pieces::new(self, joins)
    }
}

impl TextFile {
    fn of(file: &SourceFile) -> Result<TextFile, DataError> {
        let read_error = |source| DataError::io("read", &file.path, source);
        let (storage, metadata) = match &file.unnamed {
            Some(held) => (Storage::Unnamed(held.clone()), held.metadata().map_err(read_error)?),
            None => (Storage::At(file.stored.clone()), fs::metadata(&file.stored).map_err(read_error)?),
        };
        Ok(TextFile { path: file.path.clone(), storage, len: metadata.len(), modified: metadata.modified().ok() })
    }

    fn reader(&self) -> Result<Box<dyn Read>, DataError> {
        let read_error = |source| DataError::io("read", &self.path, source);
        Ok(match &self.storage {
            Storage::At(path) => Box::new(File::open(path).map_err(read_error)?),
            Storage::Unnamed(file) => Box::new(FromStart::new(DataFile::shared(file.clone(), &self.path)?)),
            #[cfg(test)]
            Storage::Memory(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
        })
    }
}

/// The start of the character that byte `at` of a text belongs to; the end of the text if `at` is beyond it.
pub(crate) fn char_start(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::cut::{MAX_BYTES, PIECE_BYTES};
    use super::*;
    use proptest::prelude::*;

    fn jsonl(text: &str) -> Corpus {
        Corpus::from_bytes([text.as_bytes()].into_iter(), true)
    }

    fn texts(corpus: &Corpus) -> Vec<String> {
        corpus.pieces().map(|piece| piece.unwrap().text).collect()
    }

    #[test]
    fn jsonl_lines_are_documents() {
        let corpus = jsonl("\u{FEFF}{\"text\": \"a\\nb\", \"id\": 3}\n\n{\"text\":\"\"}\r\n{\"text\":\"last\"}");
        assert_eq!(texts(&corpus), ["a\nb", "", "last"]);
        assert!(corpus.has_documents());
        assert!(corpus.pieces().all(|piece| piece.is_ok_and(|piece| piece.begins_document && piece.ends_document)));
    }

    #[test]
    fn a_bad_line_is_named_by_number() {
        for (bad, why) in [
            ("{\"text\": 3}", "invalid type"),
            ("{\"tex", "EOF"),
            ("[\"a\"]", "an object"),
            ("{\"a\":\"b\"}", "no `text`"),
            ("{\"text\": \"\\ud800\"}", "; half of a surrogate pair is not a character"),
        ] {
            let corpus = jsonl(&format!("{{\"text\":\"fine\"}}\n\n{bad}\n"));
            let error = corpus.pieces().find_map(Result::err).unwrap();
            assert!(matches!(&error, DataError::JsonLine { line: 3, .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_long_document_comes_in_pieces() {
        let text = "some words of a long document. ".repeat(20_000);
        let corpus = jsonl(&format!("{{\"text\":\"{text}\"}}\n{{\"text\":\"short\"}}"));
        let pieces: Vec<_> = corpus.pieces().map(Result::unwrap).collect();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.text.len() <= 2 * PIECE_BYTES));
        assert_eq!(pieces.iter().filter(|piece| piece.ends_document).count(), 2);
        assert_eq!(pieces.iter().filter(|piece| piece.begins_document).count(), 2);
        let joined: String = pieces[..pieces.len() - 1].iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(joined, text);
        assert_eq!(pieces[1].offset, pieces[0].text.len() as u64);
    }

    #[test]
    fn bad_utf8_is_named_by_offset() {
        let mut bytes = "déjà vu\n".repeat(400_000).into_bytes();
        let bad = bytes.len() - 3;
        bytes[bad] = 0xFF;
        let corpus = Corpus::from_bytes([&bytes[..]].into_iter(), false);
        let error = corpus.pieces().find_map(Result::err).unwrap();
        assert!(matches!(error, DataError::NotUtf8 { offset, .. } if offset == bad as u64), "{error}");
    }

    #[test]
    fn each_of_several_files_is_a_document() {
        let corpus = Corpus::from_texts(&["one", "two"]);
        assert!(corpus.pieces().all(|piece| piece.unwrap().ends_document));
        let single = Corpus::from_texts(&["one"]);
        assert!(single.pieces().all(|piece| !piece.unwrap().ends_document));
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(texts(&Corpus::from_texts(&["\u{FEFF}one", "\u{FEFF}"])), ["one"]);
    }

    #[test]
    fn text_is_cut_where_no_token_is() {
        let one_line = "river stone gold ".repeat(60_000);
        let windows = "line of words\r\n".repeat(60_000);
        for text in [&one_line, &windows] {
            let corpus = Corpus::from_texts(&[text]);
            let pieces = texts(&corpus);
            assert!(pieces.len() > 3 && pieces.concat() == *text);
            assert!(pieces[1..].iter().all(|piece| piece.starts_with(' ') && !piece.starts_with("  ")));
        }
    }

    #[test]
    fn text_without_a_place_to_cut_is_cut_anywhere_and_counted() {
        for text in ["acgt".repeat(3 << 20), "é".repeat(5 << 20), " ".repeat(9 << 20)] {
            let corpus = Corpus::from_texts(&[&text]);
            let mut pieces = corpus.pieces();
            let all: Vec<String> = pieces.by_ref().map(|piece| piece.unwrap().text).collect();
            assert!(all.iter().all(|piece| piece.len() <= MAX_BYTES) && all.concat() == text);
            assert!(pieces.forced_cuts() >= 2, "{}", pieces.forced_cuts());
        }
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        fs::write(&path, "some text").unwrap();
        let source = Source::resolve(path.to_str().unwrap(), None, &crate::Work::default(), &mut Vec::new()).unwrap();
        let corpus = Corpus::open(&source).unwrap().unwrap();
        corpus.check_unchanged().unwrap();
        fs::write(&path, "other text, longer").unwrap();
        assert!(matches!(corpus.check_unchanged(), Err(DataError::Changed { .. })));
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(
            parts in prop::collection::vec(("[a-c \n\u{3000}é]{0,9}", 1usize..40_000), 0..12),
        ) {
            let text: String = parts.iter().map(|(part, times)| part.repeat(*times)).collect();
            let corpus = Corpus::from_texts(&[&text]);
            prop_assert_eq!(texts(&corpus).concat(), text);
        }
    }
}

//! Text as pieces small enough to tokenize one at a time, straight from memory-mapped files.
//!
//! Text files are cut only where a line begins and the characters on both sides of the newline
//! are not white space: there no GPT-style pre-tokenizer joins anything, so that encoding the
//! pieces gives the same tokens as encoding the whole. (Text without such a place within two
//! pieces is cut at any character.) In jsonl each document is one piece.
//!
//! Documents: each jsonl line; each file where there are several. A single text file has none.

use std::{borrow::Cow, path::Path, str, sync::OnceLock};

use crate::{DataError, Source, mapped::MappedFile};

const PIECE_BYTES: usize = 128 << 10;

/// Text files or jsonl files, mapped.
#[derive(Debug)]
pub struct Corpus {
    files: Vec<MappedFile>,
    is_jsonl: bool,
    hash: OnceLock<blake3::Hash>,
}

/// Some text of a corpus.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) text: Cow<'a, str>,
    /// The last piece of a document.
    pub(crate) ends_document: bool,
    pub(crate) path: &'a Path,
    /// Where the text starts: byte of the file; for jsonl, 0 (offsets count within the document).
    pub(crate) offset: u64,
}

impl Corpus {
    /// Maps the files of a text or jsonl source; `None` for token shards.
    pub fn open(source: &Source) -> Result<Option<Corpus>, DataError> {
        let (paths, is_jsonl) = match source {
            Source::Text(paths) => (paths, false),
            Source::Jsonl(paths) => (paths, true),
            Source::Shards(_) => return Ok(None),
        };
        let files = paths.iter().map(|path| MappedFile::open(path)).collect::<Result<_, _>>()?;
        Ok(Some(Corpus::of(files, is_jsonl)))
    }

    fn of(files: Vec<MappedFile>, is_jsonl: bool) -> Corpus {
        Corpus { files, is_jsonl, hash: OnceLock::new() }
    }

    #[cfg(test)]
    pub(crate) fn from_texts(texts: &[&str]) -> Corpus {
        let owned =
            |(index, text): (usize, &&str)| MappedFile::owned(format!("{index}.txt").into(), text.as_bytes().to_vec());
        Corpus::of(texts.iter().enumerate().map(owned).collect(), false)
    }

    /// Whether an end-of-text token belongs between its parts.
    pub fn has_documents(&self) -> bool {
        self.is_jsonl || self.files.len() > 1
    }

    /// Size on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len() as u64).sum()
    }

    /// Name for messages.
    pub(crate) fn first_path(&self) -> &Path {
        &self.files[0].path
    }

    /// Identifies the content: kind, and for each file length and bytes; not the names.
    pub(crate) fn hash(&self) -> blake3::Hash {
        *self.hash.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(if self.is_jsonl { b"jsonl" } else { b"text " });
            for file in &self.files {
                hasher.update(&(file.len() as u64).to_le_bytes());
                hasher.update(file);
            }
            hasher.finalize()
        })
    }

    /// The text from the first file to the last.
    pub(crate) fn pieces(&self) -> Pieces<'_> {
        Pieces { corpus: self, file: 0, position: 0, line: 0 }
    }
}

/// Iterator over the pieces of a [`Corpus`]; ends after the first error.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    corpus: &'a Corpus,
    file: usize,
    position: usize,
    /// Lines of the file passed so far.
    line: u64,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let file = self.corpus.files.get(self.file)?;
            if self.position == file.len() {
                (self.file, self.position, self.line) = (self.file + 1, 0, 0);
                continue;
            }
            let piece =
                if self.corpus.is_jsonl { self.next_line(file).transpose() } else { Some(self.next_text(file)) };
            match piece {
                Some(Ok(piece)) => return Some(Ok(piece)),
                Some(Err(error)) => {
                    self.file = self.corpus.files.len();
                    return Some(Err(error));
                }
                None => {}
            }
        }
    }
}

impl<'a> Pieces<'a> {
    fn next_text(&mut self, file: &'a MappedFile) -> Result<Piece<'a>, DataError> {
        let start = self.position;
        let end = piece_end(file, start, PIECE_BYTES);
        let text = str::from_utf8(&file[start..end]).map_err(|error| DataError::NotUtf8 {
            path: file.path.clone(),
            offset: (start + error.valid_up_to()) as u64,
        })?;
        self.position = end;
        let ends_document = self.corpus.has_documents() && end == file.len();
        Ok(Piece { text: Cow::Borrowed(text), ends_document, path: &file.path, offset: start as u64 })
    }

    /// The next line's document; `None` for a blank line.
    fn next_line(&mut self, file: &'a MappedFile) -> Result<Option<Piece<'a>>, DataError> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            text: Cow<'a, str>,
        }
        let rest = &file[self.position..];
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        self.position += (length + 1).min(rest.len());
        self.line += 1;
        let line = rest[..length].trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let Line { text } = serde_json::from_slice(line).map_err(|error| DataError::JsonLine {
            path: file.path.clone(),
            line: self.line,
            why: error.to_string(),
        })?;
        Ok(Some(Piece { text, ends_document: true, path: &file.path, offset: 0 }))
    }
}

/// Where the piece that begins at `start` ends.
fn piece_end(bytes: &[u8], start: usize, piece_bytes: usize) -> usize {
    let target = start + piece_bytes;
    if bytes.len() <= target + piece_bytes {
        return bytes.len();
    }
    let is_line_start = |at: &usize| {
        bytes[at - 1] == b'\n'
            && last_char(&bytes[start..at - 1]).is_some_and(|char| !char.is_whitespace())
            && first_char(&bytes[*at..]).is_some_and(|char| !char.is_whitespace())
    };
    let is_char_start = |at: &usize| bytes[*at] & 0xC0 != 0x80;
    (target..target + piece_bytes).find(is_line_start).unwrap_or_else(|| {
        let end = bytes.len().min(target + 4);
        (target..end).find(is_char_start).unwrap_or(end)
    })
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let start = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&start[..error.valid_up_to()]).ok()?,
    };
    valid.chars().next()
}

fn last_char(bytes: &[u8]) -> Option<char> {
    (1..=bytes.len().min(4)).find_map(|width| {
        let text = str::from_utf8(&bytes[bytes.len() - width..]).ok()?;
        text.chars().next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jsonl(text: &str) -> Corpus {
        Corpus::of(vec![MappedFile::owned("x.jsonl".into(), text.as_bytes().to_vec())], true)
    }

    #[test]
    fn jsonl_lines_are_documents() {
        let corpus = jsonl("{\"text\": \"a\\nb\", \"id\": 3}\n\n{\"text\":\"\"}\r\n{\"text\":\"last\"}");
        let texts: Vec<String> = corpus.pieces().map(|piece| piece.unwrap().text.into_owned()).collect();
        assert_eq!(texts, ["a\nb", "", "last"]);
        assert!(corpus.has_documents());
    }

    #[test]
    fn a_bad_line_is_named_by_number() {
        for (bad, why) in
            [("{\"text\": 3}", "invalid type"), ("{\"tex", "EOF"), ("[]", ""), ("{\"a\":\"b\"}", "missing")]
        {
            let corpus = jsonl(&format!("{{\"text\":\"fine\"}}\n\n{bad}\n"));
            let error = corpus.pieces().find_map(Result::err).unwrap();
            assert!(matches!(&error, DataError::JsonLine { line: 3, .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn bad_utf8_is_named_by_offset() {
        let mut bytes = "déjà vu\n".repeat(40_000).into_bytes();
        let bad = bytes.len() - 3;
        bytes[bad] = 0xFF;
        let corpus = Corpus::of(vec![MappedFile::owned("x.txt".into(), bytes)], false);
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

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(text in "([a-c \n\u{3000}é]{0,9}){0,30}", piece_bytes in 1usize..9) {
            let mut start = 0;
            while start < text.len() {
                let end = piece_end(text.as_bytes(), start, piece_bytes);
                prop_assert!(end > start && text.is_char_boundary(end));
                start = end;
            }
        }
    }
}

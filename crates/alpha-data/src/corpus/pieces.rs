//! The text of a corpus, piece by piece.

use std::{path::Path, str};

use super::{
    Corpus, char_start,
    cut::{CONTEXT_BYTES, Cut, Joins, cut},
    window::{Document, Window},
};
use crate::DataError;

/// Part of the text of a corpus.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) text: String,
    /// The end of the piece before; empty at the start of a document and after a forced cut.
    pub(crate) context: String,
    /// Whether it is the first piece of a document, or of a text without documents.
    pub(crate) begins_document: bool,
    /// Whether it is the last piece of a document.
    pub(crate) ends_document: bool,
    pub(crate) path: &'a Path,
    /// Where the text starts, in bytes from the start of the file or, for jsonl, of the document.
    pub(crate) offset: u64,
    /// The line of a jsonl file, counted from 1.
    pub(crate) line: Option<u64>,
}

/// Iterator over the pieces of a [`Corpus`]. It ends after the first error.
pub(crate) struct Pieces<'a> {
    corpus: &'a Corpus,
    joins: Joins<'a>,
    next_file: usize,
    window: Option<Window<'a>>,
    document: Option<Document>,
    /// The end of the last piece.
    context: String,
    consumed_bytes: u64,
    forced_cuts: u64,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_piece() {
            Ok(piece) => piece.map(Ok),
            Err(error) => {
                (self.next_file, self.window, self.document) = (self.corpus.files.len(), None, None);
                Some(Err(error))
            }
        }
    }
}

impl<'a> Pieces<'a> {
    pub(super) fn new(corpus: &'a Corpus, joins: Joins<'a>) -> Pieces<'a> {
        let context = String::new();
        Pieces { corpus, joins, next_file: 0, window: None, document: None, context, consumed_bytes: 0, forced_cuts: 0 }
    }

    /// Bytes of the corpus that the pieces so far cover.
    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.consumed_bytes + self.window.as_ref().map_or(0, |window| window.offset)
    }

    /// How often text was cut where the tokenizer may join.
    pub(crate) fn forced_cuts(&self) -> u64 {
        self.forced_cuts
    }

    fn next_piece(&mut self) -> Result<Option<Piece<'a>>, DataError> {
        loop {
            let Some(window) = &mut self.window else {
                let Some(file) = self.corpus.files.get(self.next_file) else { return Ok(None) };
                self.window = Some(Window::of(file)?);
                self.next_file += 1;
                continue;
            };
            if let Some(document) = self.document.take() {
                return Ok(Some(self.piece_of(document)));
            }
            if window.rest().is_empty() && window.is_at_end {
                self.consumed_bytes += window.file.len;
                self.window = None;
                continue;
            }
            if !self.corpus.is_jsonl {
                return self.next_text().map(Some);
            }
            self.document = window.next_document()?;
        }
    }

    fn next_text(&mut self) -> Result<Piece<'a>, DataError> {
        let Some(window) = &mut self.window else { unreachable!("the caller has opened it") };
        let (len, is_forced) = loop {
            match cut(window.rest(), window.is_at_end, self.joins) {
                Cut::At(len) => break (len, false),
                Cut::Forced(len) => break (len, true),
                Cut::ReadOn => window.read_more()?,
            }
        };
        self.forced_cuts += u64::from(is_forced);
        let offset = window.offset;
        let text = str::from_utf8(&window.rest()[..len]).map_err(|error| DataError::NotUtf8 {
            path: window.file.path.clone(),
            offset: offset + error.valid_up_to() as u64,
        })?;
        let text = text.to_owned();
        window.consume(len);
        let begins_document = !std::mem::replace(&mut window.has_begun, true);
        let next_context = if is_forced { String::new() } else { end_of(&text).to_owned() };
        let context = std::mem::replace(&mut self.context, next_context);
        let context = if begins_document { String::new() } else { context };
        let ends_document = self.corpus.has_documents() && window.rest().is_empty() && window.is_at_end;
        Ok(Piece { text, context, begins_document, ends_document, path: &window.file.path, offset, line: None })
    }

    /// The next piece of a jsonl document; keeps the rest of the document.
    fn piece_of(&mut self, mut document: Document) -> Piece<'a> {
        let Some(window) = &self.window else { unreachable!("a document is of an open file") };
        let start = document.start;
        let rest = &document.text.as_bytes()[start..];
        let (len, is_forced) = match cut(rest, true, self.joins) {
            Cut::At(len) => (len, false),
            Cut::Forced(len) => (len, true),
            Cut::ReadOn => (rest.len(), false),
        };
        self.forced_cuts += u64::from(is_forced);
        let (begins_document, ends_document) = (start == 0, len == rest.len());
        let next_context = if is_forced { "" } else { end_of(&document.text[..start + len]) }.to_owned();
        let context = std::mem::replace(&mut self.context, next_context);
        let context = if begins_document { String::new() } else { context };
        let line = Some(document.line);
        let text = if begins_document && ends_document {
            document.text
        } else {
            let text = document.text[start..start + len].to_owned();
            if !ends_document {
                document.start += len;
                self.document = Some(document);
            }
            text
        };
        Piece { text, context, begins_document, ends_document, path: &window.file.path, offset: start as u64, line }
    }
}

/// The last [`CONTEXT_BYTES`] of a text, extended to a whole character.
fn end_of(text: &str) -> &str {
    &text[char_start(text, text.len().saturating_sub(CONTEXT_BYTES))..]
}

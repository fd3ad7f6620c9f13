//! The part of a file that has been read but not yet consumed, and the documents in its lines.

use std::io::Read;

use super::{READ_BYTES, TextFile};
use crate::{
    DataError,
    source::{BYTE_ORDER_MARK, jsonl},
};

/// Longest line of jsonl. A line is in memory twice: as JSON and as text.
const MAX_LINE_BYTES: usize = 1 << 30;

/// The part of a file that has been read but not yet consumed.
pub(super) struct Window<'a> {
    pub(super) file: &'a TextFile,
    reader: Box<dyn Read>,
    buffer: Vec<u8>,
    /// First byte in the buffer that is not consumed yet.
    start: usize,
    /// The offset of `start` in the file.
    pub(super) offset: u64,
    pub(super) is_at_end: bool,
    /// Whether a piece of the file has been returned.
    pub(super) has_begun: bool,
    /// Number of lines consumed.
    line: u64,
}

impl<'a> Window<'a> {
    pub(super) fn of(file: &'a TextFile) -> Result<Window<'a>, DataError> {
        let mut window = Window {
            file,
            reader: file.reader()?,
            buffer: Vec::new(),
            start: 0,
            offset: 0,
            is_at_end: false,
            has_begun: false,
            line: 0,
        };
        window.read_more()?;
        if window.rest().starts_with(BYTE_ORDER_MARK) {
            window.consume(BYTE_ORDER_MARK.len());
        }
        Ok(window)
    }

    /// The bytes that are read but not consumed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads another [`READ_BYTES`], or fewer at the end of the file.
    pub(super) fn read_more(&mut self) -> Result<(), DataError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let count = (&mut self.reader)
            .take(READ_BYTES as u64)
            .read_to_end(&mut self.buffer)
            .map_err(|source| DataError::io("read", &self.file.path, source))?;
        self.is_at_end = count < READ_BYTES;
        Ok(())
    }

    /// The document of the next line; `None` for a blank line.
    pub(super) fn next_document(&mut self) -> Result<Option<Document>, DataError> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.rest()[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + at;
            }
            searched = self.rest().len();
            if self.is_at_end {
                break searched;
            }
            if searched > MAX_LINE_BYTES {
                let (path, line) = (self.file.path.clone(), self.line + 1);
                return Err(DataError::LongLine { path, line, max_bytes: MAX_LINE_BYTES });
            }
            self.read_more()?;
        };
        self.line += 1;
        let (bytes, line) = (self.rest()[..end].trim_ascii(), self.line);
        let document = if bytes.is_empty() {
            None
        } else {
            let bad = |source| DataError::JsonLine { path: self.file.path.clone(), line, source };
            Some(Document { text: jsonl::document(bytes).map_err(bad)?.into_owned(), start: 0, line })
        };
        self.consume((end + 1).min(self.rest().len()));
        Ok(document)
    }
}

/// The document of a line of jsonl; `text` from `start` on is not consumed yet.
pub(super) struct Document {
    pub(super) text: String,
    pub(super) start: usize,
    pub(super) line: u64,
}

//! Text to ids, by the [`Scheme`] of the tokenizer.
//!
//! The ids are those that the `tokenizers` crate gives for the same `tokenizer.json`; tests compare the two. If the end-of-text
//! token is in the vocabulary, its literal text is cut out first and encodes to it.

use std::collections::HashMap;

use tokenizers::Model;

use super::{END_OF_TEXT, Scheme, Tokenizer, pattern, scheme};
use crate::{DataError, TokenizerFault, corpus::char_start, work};

/// The ids of at most this many words are remembered.
const MAX_WORDS: usize = 1 << 18;

/// A text, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'t> {
    pub(crate) text: &'t str,
    /// The end of the text before it; empty at the start of a document.
    pub(crate) context: &'t str,
}

/// Encodes one text after another and remembers the ids of BPE's words.
#[derive(Debug)]
pub(crate) struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    threads: usize,
    words: HashMap<Box<str>, Box<[u32]>>,
    byte_chars: Vec<char>,
}

impl<'t> Encoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, threads: usize) -> Encoder<'t> {
        let byte_chars = (0..=255).map(scheme::byte_char).collect();
        Encoder { tokenizer, threads, words: HashMap::new(), byte_chars }
    }

    /// Ids of several texts; an error has the index of its text.
    pub(crate) fn encode_batch(&mut self, texts: &[Text<'_>]) -> Result<Vec<Vec<u32>>, (usize, DataError)> {
        let results = if matches!(self.tokenizer.scheme, Scheme::Foreign) {
            work::in_parallel(texts, self.threads, |text| self.tokenizer.encode_foreign(*text))
        } else {
            texts.iter().map(|text| self.encode(text.text)).collect()
        };
        results.into_iter().enumerate().map(|(index, result)| result.map_err(|error| (index, error))).collect()
    }

    /// Ids of a text.
    pub(super) fn encode(&mut self, text: &str) -> Result<Vec<u32>, DataError> {
        let tokenizer = self.tokenizer;
        if matches!(tokenizer.scheme, Scheme::Foreign) {
            return tokenizer.encode_foreign(Text { text, context: "" });
        }
        let mut tokens = Vec::with_capacity(text.len() / 2);
        let mut start = 0;
        if let Some(end_of_text) = tokenizer.end_of_text {
            for (at, separator) in text.match_indices(END_OF_TEXT) {
                self.encode_part(&text[start..at], start, &mut tokens)?;
                tokens.push(end_of_text);
                start = at + separator.len();
            }
        }
        self.encode_part(&text[start..], start, &mut tokens)?;
        Ok(tokens)
    }

    /// Adds the ids of a text that begins at byte `start` of the user's text.
    fn encode_part(&mut self, text: &str, start: usize, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let unknown = |token: &str, offset: usize| DataError::NotInVocabulary {
            token: token.to_owned(),
            offset: (start + offset) as u64,
            path: None,
            line: None,
        };
        let tokenizer = self.tokenizer;
        match &tokenizer.scheme {
            Scheme::Char { ascii, rest } => {
                for (offset, char) in text.char_indices() {
                    let id = match ascii.get(char as usize) {
                        Some(id) => Some(*id).filter(|id| *id != u32::MAX),
                        None => rest.get(&char).copied(),
                    };
                    tokens.push(id.ok_or_else(|| unknown(char.encode_utf8(&mut [0; 4]), offset))?);
                }
            }
            Scheme::Byte => tokens.extend(text.bytes().map(u32::from)),
            Scheme::Word(vocab) => {
                for (word, offset) in scheme::words(text) {
                    tokens.push(*vocab.get(word).ok_or_else(|| unknown(word, offset))?);
                }
            }
            Scheme::Bpe => {
                for word in pattern::words(text) {
                    if let Some(known) = self.words.get(word) {
                        tokens.extend_from_slice(known);
                        continue;
                    }
                    let byte_level: String = word.bytes().map(|byte| self.byte_chars[byte as usize]).collect();
                    let merged = tokenizer.inner.get_model().tokenize(&byte_level).map_err(TokenizerFault::from)?;
                    if merged.last().map_or(0, |token| token.offsets.1) < byte_level.len() {
                        // The model skips a byte without a token.
                        let is_missing = |char: &char| tokenizer.inner.token_to_id(&char.to_string()).is_none();
                        let missing = byte_level.chars().position(|char| is_missing(&char)).unwrap_or_default();
                        let offset = word.as_ptr() as usize - text.as_ptr() as usize;
                        let at = char_start(word, missing);
                        let char: String = word[at..].chars().take(1).collect();
                        return Err(unknown(&char, offset + at));
                    }
                    let ids: Box<[u32]> = merged.iter().map(|token| token.id).collect();
                    tokens.extend_from_slice(&ids);
                    if self.words.len() < MAX_WORDS {
                        self.words.insert(word.into(), ids);
                    }
                }
            }
            Scheme::Foreign => unreachable!("the caller has left it to the crate"),
        }
        Ok(())
    }
}

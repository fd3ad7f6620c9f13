//! Where text may be cut into pieces; [`super`] has the rule.

use std::str;

/// Whether some token of two consecutive texts depends on both of them.
pub(crate) type Joins<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Fewest bytes of a piece, except for the last of a document.
pub(crate) const PIECE_BYTES: usize = 128 << 10;
/// Most bytes of a piece.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Bytes on either side of a possible cut that the tokenizer is asked about.
pub(crate) const CONTEXT_BYTES: usize = 512;
/// Most places of one kind that the tokenizer is asked about.
const MAX_PLACES: usize = 64;

/// Where a piece ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    At(usize),
    /// At a place where the tokenizer may join.
    Forced(usize),
    /// More of the text must be read first.
    ReadOn,
}

/// The end of the first piece of `bytes`; `is_whole` says that nothing follows them.
pub(crate) fn cut(bytes: &[u8], is_whole: bool, joins: Joins<'_>) -> Cut {
    if is_whole && bytes.len() <= 2 * PIECE_BYTES {
        return Cut::At(bytes.len());
    }
    // Any place up to twice the size must be seen with its context.
    if !is_whole && bytes.len() < 2 * PIECE_BYTES + CONTEXT_BYTES {
        return Cut::ReadOn;
    }
    let are_joined = |at: &usize| {
        let start = at.saturating_sub(CONTEXT_BYTES);
        let start = (start..*at).find(|at| is_char_start(bytes, *at)).unwrap_or(start);
        let end = (at + CONTEXT_BYTES).min(bytes.len());
        let end = (*at..=end).rev().find(|at| is_char_start(bytes, *at)).unwrap_or(end);
        match (str::from_utf8(&bytes[start..*at]), str::from_utf8(&bytes[*at..end])) {
            (Ok(before), Ok(after)) => joins(before, after),
            _ => false, // text that is not UTF-8 is refused later
        }
    };
    let near = PIECE_BYTES..2 * PIECE_BYTES;
    let far = PIECE_BYTES..bytes.len().min(MAX_BYTES).saturating_sub(8);
    let mut lines = near.filter(|at| is_line_start(bytes, *at)).take(MAX_PLACES);
    let mut words = far.filter(|at| is_word_start(bytes, *at)).take(MAX_PLACES);
    if let Some(at) = lines.find(|at| !are_joined(at)).or_else(|| words.find(|at| !are_joined(at))) {
        return Cut::At(at);
    }
    if bytes.len() >= MAX_BYTES {
        let end = (MAX_BYTES - 8..MAX_BYTES).find(|at| is_char_start(bytes, *at)).unwrap_or(MAX_BYTES - 8);
        return Cut::Forced(end);
    }
    if is_whole { Cut::At(bytes.len()) } else { Cut::ReadOn }
}

fn is_char_start(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| byte & 0xC0 != 0x80)
}

/// Whether a line begins here, with no white space at its start or at the end of the line before.
fn is_line_start(bytes: &[u8], at: usize) -> bool {
    bytes[at - 1] == b'\n' && is_solid(last_char(&bytes[..at - 1])) && is_solid(first_char(&bytes[at..]))
}

/// Whether a single space is here, between two characters that are not white space.
fn is_word_start(bytes: &[u8], at: usize) -> bool {
    bytes[at] == b' ' && is_solid(last_char(&bytes[..at])) && is_solid(first_char(&bytes[at + 1..]))
}

fn is_solid(char: Option<char>) -> bool {
    char.is_some_and(|char| !char.is_whitespace())
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

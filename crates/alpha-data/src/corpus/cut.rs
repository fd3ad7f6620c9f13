//! Where text is cut into pieces: only where a line begins or before a space, with characters on both sides that are not
//! white space, and where the tokenizer agrees that it joins nothing there.

use std::str;

/// Whether a tokenizer's tokens for these two texts, one after the other, depend on both.
pub(crate) type Joins<'a> = &'a dyn Fn(&str, &str) -> bool;

/// A piece has at least so many bytes, but for the last of a document.
pub(crate) const PIECE_BYTES: usize = 128 << 10;
/// … and at most so many.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// What stands on either side of a place where text may be cut, as far as a tokenizer is asked about it.
pub(crate) const CONTEXT_BYTES: usize = 512;
/// Places of a kind that a tokenizer is asked about.
const MAX_PLACES: usize = 64;

/// Where a piece ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    At(usize),
    /// Where a tokenizer might have joined.
    Forced(usize),
    /// More of the text has to be known.
    ReadOn,
}

/// Where the piece ends that `bytes` begins with; `is_whole` says that nothing follows them.
pub(crate) fn cut(bytes: &[u8], is_whole: bool, joins: Joins<'_>) -> Cut {
    if is_whole && bytes.len() <= 2 * PIECE_BYTES {
        return Cut::At(bytes.len());
    }
    // Enough to see the characters after any place up to twice the size.
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
            _ => false, // what is not UTF-8 is refused in a moment
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

/// A line begins here, and neither it nor the line before has white space at the border.
fn is_line_start(bytes: &[u8], at: usize) -> bool {
    bytes[at - 1] == b'\n' && is_solid(last_char(&bytes[..at - 1])) && is_solid(first_char(&bytes[at..]))
}

/// A single space stands here between two characters that are not white space.
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

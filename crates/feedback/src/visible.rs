//! Text that a terminal, a log or a commit message can show without being steered by it.
//!
//! Names, reasons and what trainers print come from elsewhere: an escape sequence in them could hide or forge a line, a
//! character without width could split a word that a reader searches for. Such characters are written as `\u{1b}` where
//! text leaves the loop: [`lines`] and [`line()`] for readers, [`json`] for scripts, which read back the exact text.

use std::fmt::Write as _;

use crate::LoopError;

/// Most characters of a text that a user gives, such as a hypothesis or a reason.
pub const MOST_CHARS: usize = 1_000;

/// Whether a reader could not see the character, or a terminal would act on it. Line ends and tabs are such too.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// For a place that holds one line: hidden characters become visible, a line end as `\n`.
pub fn line(text: &str) -> String {
    shown(text, |_| false)
}

/// For a place that holds several lines: line ends and tabs stay as they are.
pub fn lines(text: &str) -> String {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if !is_hidden(c) || stays(c) => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            _ => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// Valid JSON on one line that a terminal shows as it is. A reader of JSON gets the same value: outside of strings, JSON
/// has none of these characters.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}"); // writing to a `String` cannot fail
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The text, or its beginning and how much more there was: at most `most` characters and that remark.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} more characters)", &text[..end], text[end..].chars().count()),
    }
}

/// Checks that a text that a user gives has room in records and messages. `what` is its name.
pub fn check_length(what: &str, text: &str) -> Result<(), LoopError> {
    let chars = text.chars().count();
    if chars <= MOST_CHARS {
        return Ok(());
    }
    Err(LoopError::usage(format!("{what} has {chars} characters, at most {MOST_CHARS} are kept"))
        .hint("say it in a few sentences; details belong in the code or its documents"))
}

/// Digits of a hash in messages and labels.
pub const SHORT: usize = 12;

/// The first digits of a hash.
pub fn short(hash: &str) -> &str {
    hash.get(..SHORT).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        assert_eq!(line("a\x1b[2Jb\n\tc\r\u{7f}\u{9b}"), "a\\u{1b}[2Jb\\n\\tc\\u{d}\\u{7f}\\u{9b}");
        assert_eq!(lines("a\n\tb\x07\u{202e}\u{200b}"), "a\n\tb\\u{7}\\u{202e}\\u{200b}");
        let plain = "größer, 30 µs → 20 µs: ✓ 日本 👩\u{fe0f}";
        assert_eq!((line(plain).as_str(), lines(plain).as_str()), (plain, plain));
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("größer", 6), "größer");
        assert_eq!(cut("größer", 4), "größ… (2 more characters)");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_json_stays_exact(text in "(\\PC|\\pC|[\x00-\x1f\u{7f}-\u{9f}\u{200b}-\u{206f}\u{e0000}-\u{e007f}]){0,60}") {
            prop_assert!(!line(&text).contains(is_hidden));
            prop_assert!(!lines(&text).contains(|c| is_hidden(c) && c != '\n' && c != '\t'));
            let written = json(&serde_json::to_string(&[&text]).unwrap());
            prop_assert!(!written.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), [text]);
        }
    }
}

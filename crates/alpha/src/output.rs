//! The only place that writes to stdout and stderr.
//!
//! A reader that has gone away (`alpha … | head`) is not an error: the rest of the output is
//! dropped, and the command does the rest of its work.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

/// Writes `text` to stdout as it is, in one piece.
pub(crate) fn print(text: &str) -> io::Result<()> {
    quiet(write_all(io::stdout().lock(), text))
}

/// Text that may go to stdout: for a terminal, control characters are written as `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { visible(text) } else { Cow::Borrowed(text) }
}

/// The same for stderr.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if io::stderr().is_terminal() { visible(text) } else { Cow::Borrowed(text) }
}

/// Makes control characters visible, and those that change the direction of writing; keeps line breaks and tabs.
fn visible(text: &str) -> Cow<'_, str> {
    let is_harmful = |char: char| {
        let turns_direction =
            matches!(char, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        (char.is_control() && !matches!(char, '\n' | '\t')) || turns_direction
    };
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let show = |char: char| if is_harmful(char) { char.escape_unicode().to_string() } else { char.to_string() };
    Cow::Owned(text.chars().map(show).collect())
}

/// Writes a line to stderr. If that fails, there is no other place to report it.
pub(crate) fn note(line: &str) {
    let _ = write_all(io::stderr().lock(), &format!("{line}\n"));
}

/// Whether stderr is a terminal that can move its cursor and change its colour.
pub(crate) fn stderr_takes_escapes() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether stderr may carry colour: `NO_COLOR` (<https://no-color.org>) is unset or empty.
pub(crate) fn stderr_has_colour() -> bool {
    stderr_takes_escapes() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn quiet(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(
            visible("\u{1b}]0;title\u{7}a\r\n\tb\u{9b}2J\u{202e}"),
            "\\u{1b}]0;title\\u{7}a\\u{d}\n\tb\\u{9b}2J\\u{202e}"
        );
        assert!(matches!(visible("déjà vu\n🦀\t"), Cow::Borrowed(_)));
    }
}

//! The only place that writes to stdout and stderr.
//!
//! A reader that has gone away (`alpha … | head`) is not an error: what it no longer reads is
//! dropped, and the command does the rest of its work.

use std::io::{self, IsTerminal, Write};

/// Writes `text` to stdout as it is, in one piece.
pub(crate) fn print(text: &str) -> io::Result<()> {
    quiet(write_all(io::stdout().lock(), text))
}

/// Writes a line to stderr. That stderr cannot be written is nothing anybody could be told.
pub(crate) fn note(line: &str) {
    let _ = write_all(io::stderr().lock(), &format!("{line}\n"));
}

/// Whether stderr may carry colour: a terminal, and `NO_COLOR` (<https://no-color.org>) unset or empty.
pub(crate) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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

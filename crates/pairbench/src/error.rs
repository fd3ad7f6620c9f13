//! The error of the loop, with its hint and exit code.

use std::{fmt, io, path::Path};

use crate::Arm;

/// Why a step of the loop did not complete. A verdict is not an error, even an unwelcome one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopError {
    /// Who or what failed.
    pub kind: ErrorKind,
    /// What was found, and what was expected.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Who or what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line, the configuration or the state of the repository is wrong: exit code 2.
    Usage,
    /// A build, a file or the machine failed: exit code 1.
    Failed,
    /// The trainer of this arm failed, broke the protocol, or left no records: exit code 1.
    Trainer(Arm),
    /// A gate refused: exit code 4.
    Refused,
    /// No verdict within the budget: exit code 5.
    Undecided,
    /// The user asked to stop; the measurements so far are kept.
    Interrupted,
}

impl LoopError {
    /// The command line, the configuration or the state of the repository is wrong.
    pub fn usage(message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Usage, message)
    }

    /// A build, a file or the machine failed.
    pub fn failed(message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Failed, message)
    }

    /// An arm's trainer failed.
    pub fn trainer(arm: Arm, message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Trainer(arm), message)
    }

    /// A gate refused.
    pub fn refused(message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Refused, message)
    }

    /// No verdict within the budget.
    pub fn undecided(message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Undecided, message)
    }

    /// The user asked to stop.
    pub fn interrupted(message: impl Into<String>) -> LoopError {
        LoopError::new(ErrorKind::Interrupted, message)
    }

    fn new(kind: ErrorKind, message: impl Into<String>) -> LoopError {
        LoopError { kind, message: message.into(), hint: None }
    }

    /// A file or folder that could not be read or written.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> LoopError {
        LoopError::failed(format!("cannot {doing} `{}`: {error}", path.display()))
    }

    /// Blames an arm's trainer for a failure, such as records that cannot be read.
    #[must_use]
    pub fn of_trainer(self, arm: Arm) -> LoopError {
        match self.kind {
            ErrorKind::Failed => LoopError { kind: ErrorKind::Trainer(arm), ..self },
            _ => self,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> LoopError {
        LoopError { hint: Some(hint.into()), ..self }
    }

    /// The exit code of the command; a caller that was interrupted uses its signal's instead.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Failed | ErrorKind::Trainer(_) => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Refused => 4,
            ErrorKind::Undecided => 5,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// The message, and the hint on a line of its own.
impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n\nhint: {hint}"))
    }
}

impl std::error::Error for LoopError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_follows_the_message() {
        let error = LoopError::refused("no").hint("do this");
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("no\n\nhint: do this", 4));
    }
}

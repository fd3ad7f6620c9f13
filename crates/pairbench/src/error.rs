//! What ends a step of the loop early, and with which exit code.

use std::{io, path::Path};

use crate::Arm;

/// Why a step of the loop did not get to its end. A verdict, also an unwelcome one, is not an error.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The command line, the configuration or the state of the repository is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A trainer, a build or a file failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The trainer of an arm failed, broke the protocol, or left no records: exit code 1. Who is to blame counts.
    #[error("{message}")]
    Trainer {
        /// Whose trainer it was.
        arm: Arm,
        /// What it did.
        message: String,
    },
    /// A gate refused: exit code 4.
    #[error("{0}")]
    Refused(String),
    /// No verdict within the budget: exit code 5.
    #[error("{0}")]
    Undecided(String),
    /// Asked to stop; what was measured is kept.
    #[error("{0}")]
    Interrupted(String),
}

impl LoopError {
    /// A file or folder that could not be read or written.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> LoopError {
        LoopError::Failed(format!("cannot {doing} `{}`: {error}", path.display()))
    }

    /// The same failure as one of an arm's trainer, such as records of its that cannot be read.
    #[must_use]
    pub fn of_trainer(self, arm: Arm) -> LoopError {
        match self {
            LoopError::Failed(message) => LoopError::Trainer { arm, message },
            other => other,
        }
    }

    /// With what to do next. Shown on a line of its own.
    #[must_use]
    pub fn hint(self, hint: &str) -> LoopError {
        let with = |message: String| format!("{message}\n\nhint: {hint}");
        match self {
            LoopError::Usage(message) => LoopError::Usage(with(message)),
            LoopError::Failed(message) => LoopError::Failed(with(message)),
            LoopError::Trainer { arm, message } => LoopError::Trainer { arm, message: with(message) },
            LoopError::Refused(message) => LoopError::Refused(with(message)),
            LoopError::Undecided(message) => LoopError::Undecided(with(message)),
            LoopError::Interrupted(message) => LoopError::Interrupted(with(message)),
        }
    }

    /// The exit code of the command; a caller that was interrupted uses its signal's instead.
    pub fn exit_code(&self) -> u8 {
        match self {
            LoopError::Failed(_) | LoopError::Trainer { .. } => 1,
            LoopError::Usage(_) => 2,
            LoopError::Refused(_) => 4,
            LoopError::Undecided(_) => 5,
            LoopError::Interrupted(_) => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_follows_the_message() {
        let error = LoopError::Refused("no".into()).hint("do this");
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("no\n\nhint: do this", 4));
    }
}

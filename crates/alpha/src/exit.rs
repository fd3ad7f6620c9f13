//! Failures of a command: their messages and exit codes.

use std::{io, process::ExitCode};

use alpha_data::DataError;
use alpha_train::TrainError;

use crate::{output, signal::Signal};

/// The exit codes of the command line. Success is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The run failed, or a file that was opened is missing, empty, too short, broken or does not fit.
    Failed = 1,
    /// The command line or the configuration is wrong by itself.
    Usage = 2,
    /// A known backend or device that this machine or build lacks, or whose self-test failed.
    Unavailable = 3,
    /// A gate refused.
    Refused = 4,
    /// No verdict within the budget.
    Undecided = 5,
    /// The session ended (SIGHUP), state saved.
    HungUp = 129,
    /// Interrupted, state saved.
    Interrupted = 130,
    /// The time is up (SIGUSR1), state saved.
    TimeUp = 138,
    /// Terminated, state saved.
    Terminated = 143,
}

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Exit code 1: `message` says what was found and what was expected.
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message.into())
    }

    /// Exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message.into())
    }

    /// Exit codes 129, 130, 138 and 143: the message says where the state was saved.
    pub(crate) fn interrupted(signal: Signal, message: impl Into<String>) -> Failure {
        let exit = match signal {
            Signal::Interrupt => Exit::Interrupted,
            Signal::Terminate => Exit::Terminated,
            Signal::HangUp => Exit::HungUp,
            Signal::User1 => Exit::TimeUp,
        };
        Failure::new(exit, message.into())
    }

    /// Adds what to do next.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// The same failure, with the place where it was found before the message.
    pub(crate) fn within(self, place: &str) -> Failure {
        Failure { message: format!("{place}: {}", self.message), ..self }
    }

    /// An exit code without a message: the answer is on stdout.
    pub(crate) fn silent(exit: Exit) -> Failure {
        Failure::new(exit, "")
    }

    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    /// An error of the engine, with its hint.
    pub(crate) fn of(exit: Exit, error: &impl miette::Diagnostic) -> Failure {
        Failure { exit, message: error.to_string(), hint: error.help().map(|hint| hint.to_string()) }
    }

    /// Prints the failure to stderr.
    pub(crate) fn report(&self) -> ExitCode {
        let [error, hint] = if output::stderr_has_colour() {
            ["\x1b[1;31merror\x1b[0m", "\x1b[1;36mhint\x1b[0m"]
        } else {
            ["error", "hint"]
        };
        if !self.message.is_empty() {
            output::note(&format!("{error}: {}", self.message));
        }
        if let Some(text) = &self.hint {
            output::note(&format!("\n{hint}: {text}"));
        }
        ExitCode::from(self.exit as u8)
    }

    /// The exit code that the process will have.
    #[cfg(test)]
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The same message with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// Message and hint as one text.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\n\nhint: {hint}", self.message),
            None => self.message.clone(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::failed(error.to_string())
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Failure {
        Failure::from(TrainError::from(error))
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Failure {
        let exit = match error.exit_code() {
            2 => Exit::Usage,
            3 => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Failure::of(exit, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_data_brings_its_hint() {
        let failure = Failure::from(DataError::Empty { path: "x".into() });
        assert_eq!(failure, Failure::failed("`x` is empty").hint("give a file with text or tokens in it"));
        assert_eq!(failure.exit(), Exit::Failed);
    }
}

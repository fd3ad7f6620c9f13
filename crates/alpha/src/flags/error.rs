//! clap's errors in the form of all others: `error: …`, a blank line, `hint: …`.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::{camel_case, gone};
use crate::exit::Failure;

/// The failure for an error of parsing flags of `command` (`train`, `tokenizer build`; empty: of alpha).
pub(crate) fn failure(error: &Error, command: &str) -> Failure {
    let argument = text(error, ContextKind::InvalidArg);
    let flag = flag_of(argument);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_flag(argument, suggestion(error, ContextKind::SuggestedArg), command),
        ErrorKind::InvalidSubcommand => {
            let name = text(error, ContextKind::InvalidSubcommand);
            let hint = match suggestion(error, ContextKind::SuggestedSubcommand) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("{} lists the commands", help(command)),
            };
            Failure::usage(format!("unknown command `{name}`")).hint(hint)
        }
        ErrorKind::MissingRequiredArgument => {
            Failure::usage(format!("`{flag}` is missing")).hint(format!("{} says what it takes", help(command)))
        }
        ErrorKind::InvalidValue => {
            let value = text(error, ContextKind::InvalidValue);
            let known = list(error, ContextKind::ValidValue);
            let hint = match (suggestion(error, ContextKind::SuggestedValue), known.as_slice()) {
                (Some(near), _) => format!("did you mean `{near}`? one of {}", known.join(", ")),
                (None, []) => format!("{} says what `{flag}` takes", help(command)),
                (None, [only]) => format!("`{flag}` takes {only}"),
                (None, _) => format!("`{flag}` takes one of {}", known.join(", ")),
            };
            if value.is_empty() {
                Failure::usage(format!("`{flag}` needs a value")).hint(hint)
            } else if flag.starts_with('-') {
                Failure::usage(format!("`{flag}={value}`: no such value")).hint(hint)
            } else {
                Failure::usage(format!("`{value}`: no such value for `{flag}`")).hint(hint)
            }
        }
        ErrorKind::ValueValidation => {
            let value = text(error, ContextKind::InvalidValue);
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            Failure::usage(format!("`{flag}={value}`: {why}"))
                .hint(format!("{} says what `{flag}` takes", help(command)))
        }
        ErrorKind::InvalidUtf8 => Failure::usage("an argument is not UTF-8").hint("rename the file or folder"),
        _ => {
            let rendered = error.to_string();
            let first = rendered.lines().next().unwrap_or_default();
            Failure::usage(first.trim_start_matches("error: ").replace('\'', "`")).hint(help(command))
        }
    }
}

/// The failure for a flag that does not exist, or no longer does.
pub(crate) fn unknown_flag(argument: &str, suggested: Option<&str>, command: &str) -> Failure {
    let flag = flag_of(argument);
    if let Some(sentence) = gone::sentence(flag.trim_start_matches('-')) {
        return Failure::usage(format!("`{flag}` is gone")).hint(sentence);
    }
    let what = if flag.starts_with('-') { "unknown flag" } else { "unexpected argument" };
    let hint = match suggested {
        Some(known) => format!("did you mean `--{}`?", camel_case(known.trim_start_matches('-'))),
        None => format!("{} lists all flags", help(command)),
    };
    Failure::usage(format!("{what} `{flag}`")).hint(hint)
}

fn help(command: &str) -> String {
    if command.is_empty() { "`alpha --help`".to_owned() } else { format!("`alpha {command} --help`") }
}

/// `--batch <N>` → `--batch`.
fn flag_of(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or_default()
}

fn text(error: &Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text,
        Some(ContextValue::Strings(texts)) => texts.first().map_or("", String::as_str),
        _ => "",
    }
}

fn list(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn suggestion(error: &Error, kind: ContextKind) -> Option<&str> {
    Some(text(error, kind)).filter(|text| !text.is_empty())
}

//! Flags: their definitions, and additions to clap's parsing.
//!
//! A flag is defined once, as a field of a `clap::Args` struct; name, type, default and help
//! come from there. [`prepare`] adds the rules for all flags: kebab-case beside camelCase, negative
//! numbers as values, bare booleans, the last of several wins.

pub(crate) mod error;
pub(crate) mod gone;
pub(crate) mod layer;
pub(crate) mod train;
pub(crate) mod value;

use std::ffi::OsString;

use clap::{Arg, Command, builder::ValueParser};

/// Adds the rules for all flags to a command and its subcommands.
pub(crate) fn prepare(command: Command) -> Command {
    command.args_override_self(true).mut_args(prepare_flag).mut_subcommands(prepare)
}

fn prepare_flag(flag: Arg) -> Arg {
    let Some(long) = flag.get_long().map(str::to_owned) else { return flag };
    if !flag.get_action().takes_values() {
        return flag;
    }
    let kebab = kebab_case(&long);
    let flag = if kebab == long { flag } else { flag.alias(kebab) };
    if flag.get_value_parser().type_id() == ValueParser::bool().type_id() {
        flag.num_args(0..=1).default_missing_value("true").value_name("BOOL").hide_possible_values(true)
    } else {
        flag
    }
}

/// Joins a flag and a negative number after it, `--lr -1e-3` → `--lr=-1e-3`: clap would take
/// the number for a flag.
pub(crate) fn join_negative_numbers(arguments: &[OsString]) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let is_negative = argument.to_str().is_some_and(|text| text.starts_with('-') && text.parse::<f64>().is_ok());
        match joined.last_mut() {
            Some(last) if is_negative && is_open_flag(last) => {
                last.push("=");
                last.push(argument);
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

fn is_open_flag(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| text.starts_with("--") && text.len() > 2 && !text.contains('='))
}

/// `accumSteps` → `accum-steps`.
fn kebab_case(camel: &str) -> String {
    let mut kebab = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}

/// `accum-steps` → `accumSteps`.
fn camel_case(kebab: &str) -> String {
    let mut words = kebab.split(['-', '_']);
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_become_values() {
        let arguments =
            ["train", "--lr", "-1e-3", "--data", "x", "-5", "--seed=1", "-2", "--a", "-b"].map(OsString::from);
        let expected = ["train", "--lr=-1e-3", "--data", "x", "-5", "--seed=1", "-2", "--a", "-b"].map(OsString::from);
        assert_eq!(join_negative_numbers(&arguments), expected);
    }

    #[test]
    fn cases_convert_both_ways() {
        for (camel, kebab) in [("accumSteps", "accum-steps"), ("lr", "lr"), ("onNonfinite", "on-nonfinite")] {
            assert_eq!(kebab_case(camel), kebab);
            assert_eq!(camel_case(kebab), camel);
        }
    }
}

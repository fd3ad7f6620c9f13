//! Where a flag's value can come from, as layers of unparsed values.
//!
//! Command line, config file, stored configuration and preset are all the same thing: flag
//! names with texts. Merged, they are parsed by the one definition of the flags,
//! so that a value means the same in every layer.

use std::{collections::BTreeMap, ffi::OsString};

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use super::{error, train::TrainFlags};
use crate::exit::Failure;

/// Values by the flags' documented names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer(BTreeMap<String, Vec<OsString>>);

impl Layer {
    /// The values that were typed, defaults left out.
    pub(crate) fn typed(matches: &ArgMatches) -> Layer {
        let mut layer = Layer::default();
        for flag in command().get_arguments() {
            let id = flag.get_id().as_str();
            if matches.value_source(id) == Some(ValueSource::CommandLine) {
                let values = matches.get_raw(id).into_iter().flatten().map(OsString::from).collect();
                layer.0.insert(flag.get_long().unwrap_or(id).to_owned(), values);
            }
        }
        layer
    }

    /// A layer of these flags and values, for presets.
    pub(crate) fn of(values: &[(&str, &str)]) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in values {
            layer.add(name, value);
        }
        layer
    }

    /// One more value of a flag.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.entry(name.to_owned()).or_default().push(value.into());
    }

    /// This layer under another.
    pub(crate) fn under(mut self, upper: &Layer) -> Layer {
        self.0.extend(upper.0.iter().map(|(name, values)| (name.clone(), values.clone())));
        self
    }

    /// Whether the layer has a value for this flag.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The flag's last value, if it is text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last()?.to_str()
    }

    /// Names of all flags with values, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Parses the values, defaults filled in.
    pub(crate) fn parse(&self) -> Result<TrainFlags, Failure> {
        let arguments = self.0.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| {
                let mut argument = OsString::from(format!("--{name}="));
                argument.push(value);
                argument
            })
        });
        command()
            .try_get_matches_from(arguments)
            .and_then(|matches| TrainFlags::from_arg_matches(&matches))
            .map_err(|error| error::failure(&error, "train"))
    }
}

/// The documented name of a flag of `alpha train`, given in either spelling.
pub(crate) fn documented_name(name: &str) -> Option<String> {
    let command = command();
    let flag = command.get_arguments().find(|flag| {
        flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })?;
    flag.get_long().map(str::to_owned)
}

/// The failure for a name that no flag of `alpha train` has.
pub(crate) fn unknown_name(name: &str) -> Failure {
    match command().try_get_matches_from([format!("--{name}")]) {
        Err(parse_error) if parse_error.kind() == clap::error::ErrorKind::UnknownArgument => {
            error::failure(&parse_error, "train")
        }
        _ => error::unknown_flag(&format!("--{name}"), None, "train"),
    }
}

fn command() -> Command {
    super::prepare(TrainFlags::augment_args(Command::new("train").no_binary_name(true).disable_help_flag(true)))
}

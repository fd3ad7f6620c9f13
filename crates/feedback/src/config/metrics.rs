//! `workload.metrics`: where a trainer records its steps, and in what form.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::step_line::StepForm;

/// The record of a trainer's steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The file that it writes; none where it prints them.
    pub file: Option<PathBuf>,
    /// Their form.
    pub form: Form,
}

/// The form of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// The rows of `docs/turns.md`.
    Rows,
    /// Lines among others.
    Lines(StepForm),
    /// A JSON object a line, with these keys.
    Jsonl(Keys),
    /// A header and rows separated by commas, with these columns.
    Csv(Keys),
}

/// The names of the values of a step; dots lead into objects.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The step's number, from any first one on; rows without it are of something else.
    #[serde(default = "default_step")]
    pub step: String,
    /// The loss; rows without it are of something else.
    #[serde(default = "default_loss")]
    pub loss: String,
    /// The gradient norm.
    #[serde(default)]
    pub grad_norm: Option<String>,
    /// A hash of all tokens so far.
    #[serde(default)]
    pub data_hash: Option<String>,
}

fn default_step() -> String {
    "step".to_owned()
}

fn default_loss() -> String {
    "loss".to_owned()
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { step: default_step(), loss: default_loss(), grad_norm: None, data_hash: None }
    }
}

/// What a record shows of each step beside the loss. Rules about the rest are left out, which is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shows {
    /// Gradient norms.
    pub grad_norms: bool,
    /// Hashes of the tokens.
    pub data_hashes: bool,
    /// Numbers with all their digits.
    pub all_digits: bool,
}

impl Shows {
    /// All of it.
    pub const ALL: Shows = Shows { grad_norms: true, data_hashes: true, all_digits: true };
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { file: Some(PathBuf::from("run/metrics.jsonl")), form: Form::Rows }
    }
}

impl Metrics {
    /// What it shows.
    pub fn shows(&self) -> Shows {
        match &self.form {
            Form::Rows => Shows::ALL,
            Form::Lines(form) => Shows { grad_norms: form.has("grad_norm"), data_hashes: false, all_digits: false },
            Form::Jsonl(keys) | Form::Csv(keys) => {
                Shows { grad_norms: keys.grad_norm.is_some(), data_hashes: keys.data_hash.is_some(), all_digits: false }
            }
        }
    }

    /// The file with rows, where there is one.
    pub fn rows_file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|_| self.form == Form::Rows)
    }

    /// The form of the step lines that it prints.
    pub fn printed(&self) -> Option<&StepForm> {
        match &self.form {
            Form::Lines(form) if self.file.is_none() => Some(form),
            _ => None,
        }
    }
}

/// As `loop.toml` has it: the name of a file, or a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    File(PathBuf),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    format: String,
    file: Option<PathBuf>,
    regex: Option<String>,
    keys: Option<Keys>,
}

/// What is wrong with the table.
#[derive(Debug, thiserror::Error)]
enum BadTable {
    #[error("{0}; `metrics.format` can be `regex`, `jsonl`, `csv`, or that of a trainer: {1}")]
    Form(super::step_line::BadForm, String),
    #[error("`metrics.format = \"regex\"` needs `metrics.regex`")]
    NoExpression,
    #[error(
        "`metrics.regex` belongs to `format = \"regex\"`, `metrics.keys` to `jsonl` and `csv`; the format is `{0}`"
    )]
    OfAnother(String),
    #[error("`metrics.format = \"{0}\"` needs `metrics.file`")]
    NoFile(String),
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metrics, D::Error> {
        let table = match Written::deserialize(deserializer) {
            Ok(Written::File(file)) => return Ok(Metrics { file: Some(file), form: Form::Rows }),
            Ok(Written::Table(table)) => table,
            Err(_) => {
                return Err(serde::de::Error::custom(
                    "`metrics` is the name of a file, or a table with `format`, and `file`, `regex` or `keys` where the format has them; `keys` has `step`, `loss`, `grad_norm`, `data_hash`",
                ));
            }
        };
        table.read().map_err(serde::de::Error::custom)
    }
}

impl Table {
    fn read(self) -> Result<Metrics, BadTable> {
        let Table { format, file, regex, keys } = self;
        let is_keyed = matches!(format.as_str(), "jsonl" | "csv");
        if regex.is_some() && format != "regex" || keys.is_some() && !is_keyed {
            return Err(BadTable::OfAnother(format));
        }
        if is_keyed && file.is_none() {
            return Err(BadTable::NoFile(format));
        }
        let names = || StepForm::names().collect::<Vec<_>>().join(", ");
        let form = match format.as_str() {
            "jsonl" => Form::Jsonl(keys.unwrap_or_default()),
            "csv" => Form::Csv(keys.unwrap_or_default()),
            "regex" => {
                let expression = regex.ok_or(BadTable::NoExpression)?;
                Form::Lines(StepForm::of_expression(&expression).map_err(|error| BadTable::Form(error, names()))?)
            }
            name => Form::Lines(StepForm::known(name).map_err(|error| BadTable::Form(error, names()))?),
        };
        Ok(Metrics { file, form })
    }
}

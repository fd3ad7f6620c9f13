//! Reads what a trainer recorded of its steps, in whatever form it has.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use pairbench::{
    pair::lines::{Disorder, StepCounter, StepLine, ends_line, plain_text},
    process::sandbox::Sandbox,
};
use serde_json::Value;

use crate::{
    LoopError,
    config::{
        metrics::{Form, Keys, Metrics},
        step_line::{Number, Printed, StepForm, number},
    },
    parity::trajectory::{StepRecord, Trajectory},
};

/// Longest line that can be a record; of a longer one the rest is left out.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Whole numbers up to here are exact in an f64.
const MAX_STEP: f64 = 9_007_199_254_740_992.0;

/// Some trainers make one step more than they are told: `for step in range(steps + 1)`.
const MAX_EXTRA_STEPS: usize = 1;

/// Reads the record that a run of `steps` steps left in its folder or printed. `counters` names exact counts, which
/// only rows have.
///
/// # Errors
/// Where there is none, or it is not that of `steps` successive steps.
pub fn read<N: AsRef<str>>(
    metrics: &Metrics,
    run: &Sandbox,
    counters: &[N],
    steps: u64,
) -> Result<Trajectory, LoopError> {
    let written = metrics.file.as_deref().map(|file| run.written(file)).transpose()?;
    let printed = match (&metrics.form, written) {
        (Form::Rows, path) => return Trajectory::read(&path.unwrap_or_default(), counters),
        (Form::Lines(form), Some(path)) => of_lines(form, &path)?,
        (Form::Lines(form), None) => {
            let files = run.output_files().into_iter().map(|path| of_lines(form, &path));
            let recorded = files.collect::<Result<Vec<_>, _>>()?;
            recorded.into_iter().find(|steps| !steps.is_empty()).unwrap_or_default()
        }
        (Form::Jsonl(keys), path) => of_json(keys, &path.unwrap_or_default())?,
        (Form::Csv(keys), path) => of_csv(keys, &path.unwrap_or_default())?,
    };
    if printed.is_empty() {
        return Err(LoopError::failed("the trainer recorded no step in the form that `workload.metrics` names")
            .hint("compare the form with what it prints or writes; `alpha loop init` in a repository without a `loop.toml` tries the known ones"));
    }
    trajectory(printed, steps)
}

/// A step as it was recorded.
struct Recorded {
    loss: Number,
    grad_norm: Option<Number>,
    data_hash: Option<String>,
}

fn trajectory(mut recorded: Vec<Recorded>, steps: u64) -> Result<Trajectory, LoopError> {
    let expected = usize::try_from(steps).unwrap_or(usize::MAX);
    let extra = recorded.len().saturating_sub(expected);
    if extra > MAX_EXTRA_STEPS {
        return Err(LoopError::failed(format!(
            "the trainer recorded {} steps, and was told to make {steps}",
            recorded.len()
        )));
    }
    recorded.truncate(expected);
    common_unit(recorded.iter_mut().map(|step| &mut step.loss));
    common_unit(recorded.iter_mut().filter_map(|step| step.grad_norm.as_mut()));
    let rows = recorded
        .into_iter()
        .map(|Recorded { loss, grad_norm, data_hash }| StepRecord {
            loss: loss.value,
            loss_unit: loss.unit,
            grad_norm: grad_norm.map_or(f64::NAN, |norm| norm.value),
            grad_norm_unit: grad_norm.map_or(0.0, |norm| norm.unit),
            data_hash,
            ..StepRecord::default()
        })
        .collect();
    Ok(Trajectory { rows, extra_steps: extra as u64 })
}

/// A last digit that is a smaller share of its number than this tells any two f32 apart: the number is whole.
const WHOLE_SHARE: f64 = 1e-9;

/// Programs leave out zeros at the end of some numbers: the finest unit of those without an exponent is that of all of
/// them.
fn common_unit<'a>(numbers: impl Iterator<Item = &'a mut Number>) {
    let numbers: Vec<&mut Number> = numbers.filter(|number| number.value.is_finite()).collect();
    let fixed = numbers.iter().filter(|number| !number.is_scientific).map(|number| number.unit);
    let finest = fixed.fold(f64::INFINITY, f64::min);
    for number in numbers {
        let unit = if number.is_scientific { number.unit } else { finest };
        number.unit = if unit < WHOLE_SHARE * number.value.abs() { 0.0 } else { unit };
    }
}

fn of_lines(form: &StepForm, path: &Path) -> Result<Vec<Recorded>, LoopError> {
    let file = File::open(path).map_err(|error| LoopError::io("open", path, &error))?;
    let mut counter = StepCounter::default();
    let mut printed = Vec::new();
    each_line(BufReader::new(file), |line| {
        let Some(found) = form.parse(&plain_text(line)) else { return Ok(()) };
        if counter.count(found.line)? {
            printed.push(found);
        }
        Ok(())
    })
    .map_err(|fault| fault.of(path))?;
    Ok(of_printed(form, &printed))
}

fn of_printed(form: &StepForm, printed: &[Printed]) -> Vec<Recorded> {
    let losses: Vec<Number> = printed.iter().filter_map(|step| step.loss).collect();
    let losses = form.losses(&losses);
    let steps = losses.into_iter().zip(printed);
    steps.map(|(loss, step)| Recorded { loss, grad_norm: step.grad_norm, data_hash: None }).collect()
}

/// A JSON object a line. Objects without step or loss are of something else, such as an evaluation.
fn of_json(keys: &Keys, path: &Path) -> Result<Vec<Recorded>, LoopError> {
    let file = File::open(path).map_err(|error| LoopError::io("open", path, &error))?;
    let mut counter = StepCounter::default();
    let mut recorded = Vec::new();
    each_line(BufReader::new(file), |line| {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let object: Value = serde_json::from_slice(line)?;
        let value = |key: &str| value_of(&object, key);
        let (Some(step), Some(loss)) = (value(&keys.step), value(&keys.loss)) else { return Ok(()) };
        let step = whole(step.as_f64(), || step.to_string(), &keys.step)?;
        let loss = json_number(loss, &keys.loss)?;
        let grad_norm = keys.grad_norm.as_deref().map(|key| json_number(value(key).unwrap_or(&Value::Null), key));
        let data_hash = keys.data_hash.as_deref().map(|key| {
            let hash = value(key).filter(|hash| hash.is_string() || hash.is_number());
            hash.map(Value::to_string).ok_or_else(|| Fault::Missing { key: key.to_owned() })
        });
        if counter.count(StepLine { number: Some(step) })? {
            recorded.push(Recorded { loss, grad_norm: grad_norm.transpose()?, data_hash: data_hash.transpose()? });
        }
        Ok(())
    })
    .map_err(|fault| fault.of(path))?;
    Ok(recorded)
}

/// Rows below a header. Rows without step or loss are of something else.
fn of_csv(keys: &Keys, path: &Path) -> Result<Vec<Recorded>, LoopError> {
    read_csv(keys, path).map_err(|fault| fault.of(path))
}

fn read_csv(keys: &Keys, path: &Path) -> Result<Vec<Recorded>, Fault> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_path(path)?;
    let headers = reader.headers()?.clone();
    let column = |key: &str| {
        let found = headers.iter().position(|header| header == key);
        found.ok_or_else(|| Fault::NoColumn {
            key: key.to_owned(),
            found: headers.iter().collect::<Vec<_>>().join(", "),
        })
    };
    let (step_at, loss_at) = (column(&keys.step)?, column(&keys.loss)?);
    let norm_at = keys.grad_norm.as_deref().map(column).transpose()?;
    let hash_at = keys.data_hash.as_deref().map(column).transpose()?;
    let mut counter = StepCounter::default();
    let mut recorded = Vec::new();
    for row in reader.records() {
        let row = row?;
        let cell = |at: usize| row.get(at).filter(|cell| !cell.is_empty());
        let (Some(step), Some(loss)) = (cell(step_at), cell(loss_at)) else { continue };
        let step = whole(step.parse().ok(), || step.to_owned(), &keys.step)?;
        let of = |cell: Option<&str>, key: &str| {
            let cell = cell.ok_or_else(|| Fault::Missing { key: key.to_owned() })?;
            number(cell).ok_or_else(|| Fault::Number { key: key.to_owned(), found: cell.to_owned() })
        };
        let loss = of(Some(loss), &keys.loss)?;
        let grad_norm = norm_at.map(|at| of(cell(at), keys.grad_norm.as_deref().unwrap_or_default())).transpose()?;
        let data_hash = hash_at.map(|at| row.get(at).unwrap_or_default().to_owned());
        if counter.count(StepLine { number: Some(step) })? {
            recorded.push(Recorded { loss, grad_norm, data_hash });
        }
    }
    Ok(recorded)
}

/// The value of a key, or of a path of keys with dots between them.
fn value_of<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| key.split('.').try_fold(object, |value, part| value.get(part)))
}

/// A step's number, which some programs write as `7.0`.
fn whole(number: Option<f64>, found: impl FnOnce() -> String, key: &str) -> Result<u64, Fault> {
    let number = number.filter(|number| number.fract() == 0.0 && (0.0..=MAX_STEP).contains(number));
    number.map(|number| number as u64).ok_or_else(|| Fault::Number { key: key.to_owned(), found: found() })
}

fn json_number(value: &Value, key: &str) -> Result<Number, Fault> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        // Not finite.
        Value::Null => "nan".to_owned(),
        other => return Err(Fault::Number { key: key.to_owned(), found: other.to_string() }),
    };
    number(&text).ok_or(Fault::Number { key: key.to_owned(), found: text })
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Disorder(#[from] Disorder),
    #[error("a line is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Csv(#[from] csv::Error),
    #[error("has no column `{key}`; it has {found}")]
    NoColumn { key: String, found: String },
    #[error("a step has no `{key}`")]
    Missing { key: String },
    #[error("`{key}` is `{found}`, expected a number")]
    Number { key: String, found: String },
}

impl Fault {
    fn of(self, path: &Path) -> LoopError {
        LoopError::failed(format!("the record `{}`: {self}", path.display()))
            .hint("`workload.metrics` of `loop.toml` names its form")
    }
}

/// Calls `each` for every line, whose end may be a carriage return.
fn each_line(mut input: impl BufRead, mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        for line in bytes.split(ends_line) {
            each(line)?;
        }
    }
}

#[cfg(test)]
mod tests;

//! The stored configuration of a run that is resumed: a layer of flags, with which given flags
//! are compared.

use std::fs;

use alpha_train::config::TrainConfig;
use serde_json::{Map, Value};

use crate::{
    config_file,
    exit::{Exit, Failure},
    flags::layer::Layer,
};

/// Flags that may differ when a run is resumed: the number of steps, logging, evaluation, sampling, limits that can save
/// a run that went wrong, where the data lies (its content is compared instead), and flags that do not affect the model.
const FREE: &[&str] = &[
    "allowDataChange",
    "config",
    "data",
    "evalInterval",
    "evalIters",
    "gradClip",
    "ignoreMemoryCheck",
    "keepCheckpoints",
    "logEvery",
    "onNonfinite",
    "postSamples",
    "remote",
    "resume",
    "runDir",
    "sampleInterval",
    "samplePrompts",
    "spikeThreshold",
    "steps",
    "strictPlanning",
    "threads",
    "trace",
    "valData",
];

/// Flags that a resumed run does not take from the stored configuration. Threads are among them: their number changes no bit.
const OF_THE_PROCESS: &[&str] = &["allowDataChange", "config", "ignoreMemoryCheck", "resume", "runDir", "threads"];

/// The stored values as flags. Keys that are not flags are records, not settings.
pub(crate) fn layer(stored: &Map<String, Value>) -> Result<Layer, Failure> {
    let flags = stored
        .iter()
        .filter(|(key, _)| crate::flags::layer::documented_name(key).is_some_and(|name| name == **key))
        .filter(|(key, _)| !OF_THE_PROCESS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let layer = config_file::from_json(&flags)?;
    layer.parse().map_err(|failure| {
        failure
            .within("the stored `config.json`")
            .with_exit(Exit::Failed)
            .hint("the file was changed or is of another version; begin a new run with `--init`")
    })?;
    Ok(layer)
}

/// Checks that flags that were given equal those that are stored.
pub(crate) fn check_equal(config: &TrainConfig, stored: &Map<String, Value>, given: &Layer) -> Result<(), Failure> {
    let resolved = serde_json::to_value(config).map_err(|error| Failure::failed(error.to_string()))?;
    for name in given.names().filter(|name| !FREE.contains(name)) {
        // The alias is another name of `dtype`.
        let name = if name == "fp16" { "dtype" } else { name };
        let [now, then] = [&resolved[name], stored.get(name).unwrap_or(&Value::Null)];
        if !is_same(now, then) {
            return Err(Failure::usage(format!(
                "`--{name}={}`, but the run that is resumed has {}",
                shown(now),
                shown(then)
            ))
            .hint(format!("leave `--{name}` out to continue that run, or begin a new one with `--init`")));
        }
    }
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Equal, or two names of one file.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => {
            a == b || matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
        }
        _ => a == b,
    }
}

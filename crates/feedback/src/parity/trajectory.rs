//! The record of a run: `metrics.jsonl`, one JSON object a step (`docs/turns.md`).
//!
//! Numbers are read to the exact f64 that the text names, so equal bits mean equal text. A trainer writes `null` for a
//! number that is not finite; it is read as NaN. A file that is torn, out of order or not JSON is an error: an
//! incomplete record proves nothing.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::LoopError;

/// Exact counts of a step that are read unless the configuration names others.
pub const DEFAULT_COUNTERS: [&str; 8] =
    ["gpu_ops_count", "submissions", "read_backs", "kernels", "tensor_passes", "bytes_moved", "flops", "allocations"];

/// Longest row.
const MAX_ROW_BYTES: u64 = 1 << 20;

/// Whole numbers up to here are exact in an f64.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The record of one step. Numbers may be NaN, which stands for `null`. Stored without times and counters: only what
/// was learned is judged again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Mean over the step's micro-batches, before the update.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Norm of the gradient before clipping.
    #[serde(deserialize_with = "number_or_null")]
    pub grad_norm: f64,
    /// The distance between two losses that are recorded differently; 0 where all digits are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub loss_unit: f64,
    /// The same of gradient norms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grad_norm_unit: f64,
    /// Hash of every token consumed so far.
    pub data_hash: Option<String>,
    /// Wall time of the step by the trainer's own clock.
    #[serde(skip)]
    pub ms_per_iter: Option<f64>,
    /// Milliseconds of each phase: of `timing_fwd_ms` the key is `fwd`.
    #[serde(skip)]
    pub timing_ms: BTreeMap<String, f64>,
    /// Exact counts.
    #[serde(skip)]
    pub counters: BTreeMap<String, u64>,
}

/// The records of a run, from its first step on: the record of step s is `rows[s − 1]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// One for each step; never empty after [`Trajectory::read`].
    pub rows: Vec<StepRecord>,
    /// Steps that it made beyond those that it was told to make, and whose records are left out.
    #[serde(default, skip_serializing_if = "is_none")]
    pub extra_steps: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(unit: &f64) -> bool {
    *unit == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(steps: &u64) -> bool {
    *steps == 0
}

/// What is wrong with a line of a record.
#[derive(Debug, thiserror::Error)]
enum BadRow {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the file is empty, expected a row a step")]
    Empty,
    #[error("the row is longer than {MAX_ROW_BYTES} bytes")]
    TooLong,
    #[error("the row is torn: the file ends before the line does")]
    Torn,
    #[error("not the record of a step: {0}")]
    Form(#[from] serde_json::Error),
    #[error("found step {found}, expected {expected}: steps are counted from 1, each once")]
    Order { found: u64, expected: u64 },
    #[error("`{key}` is `{value}`, expected {expected}")]
    Value { key: String, value: Value, expected: &'static str },
}

impl Trajectory {
    /// Reads a file whose steps are 1, 2, … n, each once. `counters` names the keys that are exact counts.
    pub fn read<N: AsRef<str>>(path: &Path, counters: &[N]) -> Result<Trajectory, LoopError> {
        let file = File::open(path).map_err(|error| {
            LoopError::io("open", path, &error).hint("`metrics` in `loop.toml` names the file that the trainer writes")
        })?;
        Trajectory::parse(BufReader::new(file), counters).map_err(|(line, why)| {
            LoopError::failed(format!("`{}`, line {line}: {why}", path.display()))
                .hint("the trainer did not write a whole record of every step; see `docs/turns.md`")
        })
    }

    /// The trajectory, or the number of the first line that is wrong and why it is.
    fn parse<N: AsRef<str>>(mut input: impl BufRead, counters: &[N]) -> Result<Trajectory, (usize, BadRow)> {
        let mut rows = Vec::new();
        let mut text = Vec::new();
        loop {
            let line = rows.len() + 1;
            let row = match read_line(&mut input, &mut text).and_then(|()| {
                if text.is_empty() { Ok(None) } else { parse_row(&text, line as u64, counters).map(Some) }
            }) {
                Ok(Some(row)) => row,
                Ok(None) if rows.is_empty() => return Err((line, BadRow::Empty)),
                Ok(None) => return Ok(Trajectory { rows, extra_steps: 0 }),
                Err(why) => return Err((line, why)),
            };
            rows.push(row);
        }
    }

    /// Optimiser steps.
    pub fn steps(&self) -> usize {
        self.rows.len()
    }
}

/// Reads a line with its end, or nothing at the end of the file.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> Result<(), BadRow> {
    text.clear();
    input.by_ref().take(MAX_ROW_BYTES).read_until(b'\n', text)?;
    match text.last() {
        None | Some(b'\n') => Ok(()),
        Some(_) if text.len() as u64 == MAX_ROW_BYTES => Err(BadRow::TooLong),
        Some(_) => Err(BadRow::Torn),
    }
}

#[derive(Deserialize)]
struct Row {
    step: u64,
    #[serde(deserialize_with = "number_or_null")]
    loss: f64,
    #[serde(rename = "gradNorm", deserialize_with = "number_or_null")]
    grad_norm: f64,
    data_hash: Option<String>,
    ms_per_iter: Option<f64>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// A key that must be there, unlike an `Option`.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|number| number.unwrap_or(f64::NAN))
}

fn parse_row<N: AsRef<str>>(text: &[u8], step: u64, counters: &[N]) -> Result<StepRecord, BadRow> {
    let row: Row = serde_json::from_slice(text)?;
    if row.step != step {
        return Err(BadRow::Order { found: row.step, expected: step });
    }
    let mut record = StepRecord {
        loss: row.loss,
        grad_norm: row.grad_norm,
        data_hash: row.data_hash,
        ms_per_iter: row.ms_per_iter,
        ..StepRecord::default()
    };
    for (key, value) in row.others {
        if counters.iter().any(|name| name.as_ref() == key) {
            let Some(count) = exact_count(&value) else {
                return Err(BadRow::Value { key, value, expected: "an exact count" });
            };
            record.counters.insert(key, count);
        } else if let Some(phase) = key.strip_prefix("timing_").and_then(|rest| rest.strip_suffix("_ms")) {
            let time = if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
            let Some(time) = time else { return Err(BadRow::Value { key, value, expected: "milliseconds" }) };
            record.timing_ms.insert(phase.into(), time);
        }
    }
    Ok(record)
}

/// A whole number from 0 on, also where a trainer writes it as `1.2e12`.
fn exact_count(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Trajectory, (usize, String)> {
        Trajectory::parse(text.as_bytes(), &DEFAULT_COUNTERS).map_err(|(line, why)| (line, why.to_string()))
    }

    const FIRST: &str = r#"{"step":1,"loss":7.6137,"gradNorm":4.0789995,"elapsed_ms":3,"data_hash":"0a","ms_per_iter":2.5,"timing_fwd_ms":1.25,"timing_bwd_ms":null,"kernels":54,"flops":1.5e12}"#;

    #[test]
    fn a_row_is_read_to_the_bit() {
        let trajectory = parse(&format!("{FIRST}\n{{\"gradNorm\":0.1,\"loss\":null,\"step\":2}}\n")).unwrap();
        let [first, second] = &trajectory.rows[..] else { panic!("{trajectory:?}") };
        assert_eq!((first.loss.to_bits(), first.grad_norm.to_bits()), (7.6137f64.to_bits(), 4.078_999_5f64.to_bits()));
        assert_eq!((first.data_hash.as_deref(), first.ms_per_iter), (Some("0a"), Some(2.5)));
        assert_eq!(first.timing_ms["fwd"].to_bits(), 1.25f64.to_bits());
        assert!(first.timing_ms["bwd"].is_nan());
        assert_eq!(first.counters, BTreeMap::from([("kernels".into(), 54), ("flops".into(), 1_500_000_000_000)]));
        assert!(second.loss.is_nan());
        assert_eq!((second.data_hash.as_deref(), second.counters.len()), (None, 0));
    }

    #[test]
    fn only_named_counters_are_read() {
        let text = format!("{FIRST}\n").replace("\"kernels\":54", "\"kernels\":-1,\"passes\":7");
        let own = Trajectory::parse(text.as_bytes(), &["passes"]).unwrap();
        assert_eq!(own.rows[0].counters, BTreeMap::from([("passes".into(), 7)]));
        assert!(parse(&text).unwrap_err().1.contains("`kernels` is `-1`"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let second = FIRST.replace("\"step\":1", "\"step\":2");
        for (text, line, named) in [
            (String::new(), 1, "empty"),
            ("\n".into(), 1, "not the record"),
            (FIRST.into(), 1, "torn"),
            (format!("{FIRST}\n{}", &second[..40]), 2, "torn"),
            (format!("{FIRST}\n{FIRST}\n"), 2, "found step 1, expected 2"),
            (format!("{second}\n"), 1, "found step 2, expected 1"),
            (format!("{FIRST}\n\n{second}\n"), 2, "not the record"),
            (format!("{FIRST}\n[1]\n"), 2, "not the record"),
            (format!("{}\n", FIRST.replace("\"loss\":7.6137,", "")), 1, "missing field `loss`"),
            (format!("{}\n", FIRST.replace("\"loss\"", "\"loss\":1,\"loss\"")), 1, "duplicate field `loss`"),
            (format!("{}\n", FIRST.replace("7.6137", "NaN")), 1, "not the record"),
            (format!("{}\n", FIRST.replace("7.6137", "1e999")), 1, "out of range"),
            (format!("{}\n", FIRST.replace("1.25", "\"fast\"")), 1, "`timing_fwd_ms` is `\"fast\"`"),
            (format!("{}\n", FIRST.replace("54", "54.5")), 1, "`kernels` is `54.5`"),
            ("x".repeat(3 << 20), 1, "longer than 1048576 bytes"),
        ] {
            let (found_line, why) = parse(&text).unwrap_err();
            assert!(found_line == line && why.contains(named), "line {found_line}: {why}, expected {line}: {named}");
        }
    }

    #[test]
    fn the_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let error = Trajectory::read(&path, &DEFAULT_COUNTERS).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl") && error.contains("hint: "), "{error}");
        std::fs::write(&path, format!("{FIRST}\n{{")).unwrap();
        let error = Trajectory::read(&path, &DEFAULT_COUNTERS).unwrap_err();
        assert!(error.to_string().contains("metrics.jsonl`, line 2: the row is torn"), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Trajectory::parse(&bytes[..], &DEFAULT_COUNTERS);
        }

        #[test]
        fn a_cut_file_is_its_whole_rows_or_an_error(rows in 1usize..5, cut in any::<prop::sample::Index>()) {
            let row = |step| format!("{}\n", FIRST.replace("\"step\":1", &format!("\"step\":{step}")));
            let text: String = (1..=rows).map(row).collect();
            let cut = 1 + cut.index(text.len());
            match parse(&text[..cut]) {
                Ok(trajectory) => prop_assert_eq!(trajectory.steps() * row(1).len(), cut),
                Err((line, why)) => {
                    prop_assert!(cut % row(1).len() != 0 && why.contains("torn"), "{}", why);
                    prop_assert_eq!(line, cut / row(1).len() + 1);
                }
            }
        }

        #[test]
        fn every_finite_number_comes_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let trajectory = parse(&format!("{{\"step\":1,\"loss\":{number:e},\"gradNorm\":0}}\n")).unwrap();
            prop_assert_eq!(trajectory.rows[0].loss.to_bits(), bits);
        }
    }
}

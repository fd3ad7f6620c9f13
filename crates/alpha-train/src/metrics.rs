//! The record of each step: a row of `metrics.jsonl`, and the lines on the console.
//!
//! Names of the row's keys are a promise to people's scripts: add, never rename. Single-precision
//! numbers are written in the shortest form that reads back to the same bits. JSON has no `NaN`:
//! a number that is not finite is `null` and named in `nonfinite`.

use std::{fmt, fs, path::Path};

use alpha_data::DataHash;
use alpha_tensor::{Counters, Launches};
use serde::{Deserialize, Serialize};

use crate::{
    error::TrainError,
    files::{self, JsonLines},
};

/// Wall time of a step by what it was spent on; the parts add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PhaseTimes {
    /// Preparing the batch.
    pub data_ms: f64,
    /// Forward, loss included.
    pub fwd_ms: f64,
    /// Backward.
    pub bwd_ms: f64,
    /// Norm of the gradient.
    pub grad_norm_ms: f64,
    /// Clipping, where it is a pass of its own.
    pub grad_clip_ms: f64,
    /// Optimiser.
    pub optim_ms: f64,
    /// Everything else: what no operation covers.
    pub flush_ms: f64,
}

/// Why an update was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Skipped {
    /// The gradient norm exceeded the spike threshold.
    Spike,
    /// The loss or the gradient norm was not finite.
    Nonfinite,
    /// A gradient overflowed f16: the loss scale was too large.
    Overflow,
}

/// Everything that is recorded about one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Row", from = "Row")]
pub struct StepRecord {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the micro-steps, before the update.
    pub loss: f32,
    /// Validation loss, where the step was evaluated.
    pub val_loss: Option<f32>,
    /// Learning rate of the update.
    pub lr: f32,
    /// Norm of the mean gradient before clipping.
    pub grad_norm: f32,
    /// The factor of the gradient.
    pub clip_coef: f32,
    /// Since the process began.
    pub elapsed_ms: f64,
    /// Of this step.
    pub tokens_per_sec: f64,
    /// Of this step.
    pub ms_per_iter: f64,
    /// Dispatches on a GPU, kernels run on the CPU.
    pub gpu_ops_count: u64,
    /// With `--trace`.
    pub timing: Option<PhaseTimes>,
    /// Work of the step, by the operation table.
    pub counters: Counters,
    /// Work that was sent to a device in the step; none on the host.
    pub launches: Option<Launches>,
    /// The device, where it is not the processor.
    pub device: Option<String>,
    /// Memory allocations during the step.
    pub allocations: u64,
    /// Hash of all data that the run has consumed, this step's included; none where the run goes on from a checkpoint that
    /// has none.
    pub data_hash: Option<DataHash>,
    /// The factor of the loss in f16.
    pub loss_scale: Option<f32>,
    /// Set where the update was left out.
    pub skipped: Option<Skipped>,
}

/// A row as it stands in the file. `None` is `null` for numbers that may be not finite.
#[derive(Serialize, Deserialize)]
#[expect(clippy::option_option, reason = "a key that is missing, and one that is `null`")]
struct Row {
    step: u64,
    loss: Option<f32>,
    #[serde(rename = "valLoss", default, skip_serializing_if = "Option::is_none")]
    val_loss: Option<Option<f32>>,
    lr: Option<f32>,
    #[serde(rename = "gradNorm")]
    grad_norm: Option<f32>,
    elapsed_ms: Option<f64>,
    tokens_per_sec: Option<f64>,
    ms_per_iter: Option<f64>,
    clip_coef: Option<f32>,
    gpu_ops_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_data_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_fwd_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_bwd_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_grad_norm_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_grad_clip_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_optim_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timing_flush_ms: Option<f64>,
    #[serde(default)]
    kernels: u64,
    #[serde(default)]
    tensor_passes: u64,
    #[serde(default)]
    bytes_moved: u64,
    #[serde(default)]
    flops: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dispatches: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submissions: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read_backs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default)]
    allocations: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_hash: Option<DataHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nonfinite: Vec<String>,
}

/// Times are kept to the microsecond.
fn round_ms(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

impl From<StepRecord> for Row {
    fn from(record: StepRecord) -> Row {
        let mut nonfinite = Vec::new();
        let mut f32_or_null = |name: &str, value: f32| {
            if !value.is_finite() {
                nonfinite.push(name.to_string());
            }
            value.is_finite().then_some(value)
        };
        let loss = f32_or_null("loss", record.loss);
        let val_loss = record.val_loss.map(|value| f32_or_null("valLoss", value));
        let lr = f32_or_null("lr", record.lr);
        let grad_norm = f32_or_null("gradNorm", record.grad_norm);
        let clip_coef = f32_or_null("clip_coef", record.clip_coef);
        let mut ms_or_null = |name: &str, value: f64| {
            if !value.is_finite() {
                nonfinite.push(name.to_string());
            }
            value.is_finite().then_some(round_ms(value))
        };
        let timing = |part: fn(&PhaseTimes) -> f64| record.timing.as_ref().map(|timing| round_ms(part(timing)));
        Row {
            step: record.step,
            loss,
            val_loss,
            lr,
            grad_norm,
            elapsed_ms: ms_or_null("elapsed_ms", record.elapsed_ms),
            tokens_per_sec: ms_or_null("tokens_per_sec", record.tokens_per_sec),
            ms_per_iter: ms_or_null("ms_per_iter", record.ms_per_iter),
            clip_coef,
            gpu_ops_count: record.gpu_ops_count,
            timing_data_ms: timing(|timing| timing.data_ms),
            timing_fwd_ms: timing(|timing| timing.fwd_ms),
            timing_bwd_ms: timing(|timing| timing.bwd_ms),
            timing_grad_norm_ms: timing(|timing| timing.grad_norm_ms),
            timing_grad_clip_ms: timing(|timing| timing.grad_clip_ms),
            timing_optim_ms: timing(|timing| timing.optim_ms),
            timing_flush_ms: timing(|timing| timing.flush_ms),
            kernels: record.counters.kernels,
            tensor_passes: record.counters.tensor_passes,
            bytes_moved: record.counters.bytes,
            flops: record.counters.flops,
            dispatches: record.launches.map(|launches| launches.dispatches),
            submissions: record.launches.map(|launches| launches.submissions),
            read_backs: record.launches.map(|launches| launches.read_backs),
            device: record.device,
            allocations: record.allocations,
            data_hash: record.data_hash,
            loss_scale: record.loss_scale,
            skipped: record.skipped,
            nonfinite,
        }
    }
}

impl From<Row> for StepRecord {
    fn from(row: Row) -> StepRecord {
        let has_bad_val_loss = row.nonfinite.iter().any(|name| name == "valLoss");
        let timing = row.timing_fwd_ms.map(|fwd_ms| PhaseTimes {
            data_ms: row.timing_data_ms.unwrap_or_default(),
            fwd_ms,
            bwd_ms: row.timing_bwd_ms.unwrap_or_default(),
            grad_norm_ms: row.timing_grad_norm_ms.unwrap_or_default(),
            grad_clip_ms: row.timing_grad_clip_ms.unwrap_or_default(),
            optim_ms: row.timing_optim_ms.unwrap_or_default(),
            flush_ms: row.timing_flush_ms.unwrap_or_default(),
        });
        StepRecord {
            step: row.step,
            loss: row.loss.unwrap_or(f32::NAN),
            val_loss: row.val_loss.flatten().or(has_bad_val_loss.then_some(f32::NAN)),
            lr: row.lr.unwrap_or(f32::NAN),
            grad_norm: row.grad_norm.unwrap_or(f32::NAN),
            clip_coef: row.clip_coef.unwrap_or(f32::NAN),
            elapsed_ms: row.elapsed_ms.unwrap_or(f64::NAN),
            tokens_per_sec: row.tokens_per_sec.unwrap_or(f64::NAN),
            ms_per_iter: row.ms_per_iter.unwrap_or(f64::NAN),
            gpu_ops_count: row.gpu_ops_count,
            timing,
            counters: Counters {
                kernels: row.kernels,
                tensor_passes: row.tensor_passes,
                bytes: row.bytes_moved,
                flops: row.flops,
            },
            launches: row.dispatches.map(|dispatches| Launches {
                dispatches,
                submissions: row.submissions.unwrap_or_default(),
                read_backs: row.read_backs.unwrap_or_default(),
            }),
            device: row.device,
            allocations: row.allocations,
            data_hash: row.data_hash,
            loss_scale: row.loss_scale,
            skipped: row.skipped,
        }
    }
}

/// Name of the file.
pub const FILE_NAME: &str = "metrics.jsonl";

/// Appends to `metrics.jsonl`, one row and one `write` a step.
#[derive(Debug)]
pub struct MetricsWriter {
    lines: JsonLines,
}

impl MetricsWriter {
    /// Opens the file of a run that begins, or goes on after `last_step`; cuts off later rows.
    pub fn open(run_dir: &Path, last_step: u64) -> Result<MetricsWriter, TrainError> {
        let path = run_dir.join(FILE_NAME);
        files::truncate_json_lines_after(&path, last_step)?;
        Ok(MetricsWriter { lines: JsonLines::open(&path)? })
    }

    /// Appends the row of a step.
    pub fn append(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        self.lines.append(record)
    }

    /// Changes the last row, if it is that of `step`; returns what it is then.
    pub fn amend_last(
        &mut self,
        run_dir: &Path,
        step: u64,
        change: impl FnOnce(&mut StepRecord),
    ) -> Result<Option<StepRecord>, TrainError> {
        let Some(mut record) = read_metrics(run_dir)?.pop().filter(|record| record.step == step) else {
            return Ok(None);
        };
        change(&mut record);
        let path = run_dir.join(FILE_NAME);
        files::replace_last_json_line(&path, &record)?;
        self.lines = JsonLines::open(&path)?;
        Ok(Some(record))
    }

    /// Returns once every row is on disk.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.lines.sync()
    }
}

/// Reads `metrics.jsonl` of a run. Lines that are not rows, such as a torn last one, are left out.
pub fn read_metrics(run_dir: &Path) -> Result<Vec<StepRecord>, TrainError> {
    let path = run_dir.join(FILE_NAME);
    let bytes = fs::read(&path).map_err(|source| TrainError::io("read", &path, source))?;
    Ok(bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// A row of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Step after which it was drawn.
    pub step: u64,
    /// What the model was given.
    pub prompt: String,
    /// What it wrote.
    pub text: String,
    /// Seed of the draw.
    pub seed: u64,
    /// Temperature.
    pub temp: f32,
    /// Candidates kept; 0 = all.
    pub topk: usize,
    /// Probability mass kept; 1 = all.
    pub topp: f32,
}

/// Name of the file with the samples; a [`JsonLines`] of [`SampleRecord`].
pub const SAMPLES_FILE_NAME: &str = "samples.jsonl";

/// `step 12/100 | loss=5.1234 … | 3122 tok/s`.
pub fn format_step_line(record: &StepRecord, total_steps: u64) -> String {
    use std::fmt::Write;
    let mut line = format!("step {}/{total_steps} | loss={}", record.step, Decimals(record.loss.into(), 4));
    let _ = record.val_loss.map(|loss| write!(line, " val_loss={}", Decimals(loss.into(), 4)));
    let _ = write!(line, " | lr={:.2e} | grad_norm={}", record.lr, Decimals(record.grad_norm.into(), 3));
    if record.clip_coef < 1.0 {
        let _ = write!(line, " clip={:.4}", record.clip_coef);
    }
    let _ = write!(line, " | {}/it | {} tok/s", Ms(record.ms_per_iter), Decimals(record.tokens_per_sec, 0));
    if record.launches.is_some() {
        let _ = write!(line, " | {} gpu_ops", record.gpu_ops_count);
    }
    line
}

/// `  [trace] data=0.03ms fwd=12ms …`; none without timing.
pub fn format_trace_line(record: &StepRecord) -> Option<String> {
    let timing = record.timing?;
    Some(format!(
        "  [trace] data={} fwd={} bwd={} gradnorm={} clip={} optim={} flush={} gpu_ops={}",
        Ms(timing.data_ms),
        Ms(timing.fwd_ms),
        Ms(timing.bwd_ms),
        Ms(timing.grad_norm_ms),
        Ms(timing.grad_clip_ms),
        Ms(timing.optim_ms),
        Ms(timing.flush_ms),
        record.gpu_ops_count
    ))
}

/// A number with this many decimals; `nan` and `inf` in lower case.
struct Decimals(f64, usize);

impl fmt::Display for Decimals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimals(value, decimals) = *self;
        if value.is_nan() { f.write_str("nan") } else { write!(f, "{value:.decimals$}") }
    }
}

/// A time: two decimals below 10 ms, none above.
struct Ms(f64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 < 9.995 { 2 } else { 0 };
        write!(f, "{}ms", Decimals(self.0, decimals))
    }
}

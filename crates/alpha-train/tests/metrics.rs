//! Rows of `metrics.jsonl` and the lines on the console.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::{fs, path::Path};

use alpha_data::DataHash;
use alpha_tensor::{Counters, Launches};
use alpha_train::{
    files::JsonLines,
    metrics::{
        MetricsWriter, PhaseTimes, SampleRecord, Skipped, StepRecord, format_step_line, format_trace_line, read_metrics,
    },
};
use proptest::prelude::*;

fn record() -> StepRecord {
    StepRecord {
        step: 12,
        loss: 5.1234,
        val_loss: Some(5.2345),
        lr: 3e-5,
        grad_norm: 1.234,
        clip_coef: 0.8104,
        elapsed_ms: 500.25,
        tokens_per_sec: 3122.0,
        ms_per_iter: 41.0,
        gpu_ops_count: 92,
        timing: Some(PhaseTimes {
            data_ms: 0.03,
            fwd_ms: 12.0,
            bwd_ms: 20.0,
            grad_norm_ms: 3.1,
            grad_clip_ms: 0.0,
            optim_ms: 1.2,
            flush_ms: 4.7,
        }),
        counters: Counters { kernels: 92, tensor_passes: 300, bytes: 4_000_000, flops: 5_000_000_000 },
        launches: None,
        device: None,
        allocations: 0,
        data_hash: Some(DataHash::default()),
        loss_scale: None,
        skipped: None,
    }
}

fn rows(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("metrics.jsonl")).unwrap().lines().map(String::from).collect()
}

#[test]
fn a_row_has_the_names_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = MetricsWriter::open(dir.path(), 0).unwrap();
    writer.append(&record()).unwrap();
    writer.append(&StepRecord { step: 13, val_loss: None, timing: None, ..record() }).unwrap();
    let expected = r#"{"step":12,"loss":5.1234,"valLoss":5.2345,"lr":0.00003,"gradNorm":1.234,"elapsed_ms":500.25,"tokens_per_sec":3122.0,"ms_per_iter":41.0,"clip_coef":0.8104,"gpu_ops_count":92,"timing_data_ms":0.03,"timing_fwd_ms":12.0,"timing_bwd_ms":20.0,"timing_grad_norm_ms":3.1,"timing_grad_clip_ms":0.0,"timing_optim_ms":1.2,"timing_flush_ms":4.7,"kernels":92,"tensor_passes":300,"bytes_moved":4000000,"flops":5000000000,"allocations":0,"data_hash":"cbf29ce484222325"}"#;
    let normal = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let rows = rows(dir.path());
    assert_eq!(normal(&rows[0]), normal(expected));
    let keys = normal(&rows[1]).as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(!keys.iter().any(|key| key == "valLoss" || key.starts_with("timing_")), "{keys:?}");
    assert_eq!(
        read_metrics(dir.path()).unwrap(),
        [record(), StepRecord { step: 13, val_loss: None, timing: None, ..record() }]
    );
}

#[test]
fn numbers_that_are_not_finite_are_null_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let bad = StepRecord {
        loss: f32::NAN,
        val_loss: Some(f32::NAN),
        grad_norm: f32::INFINITY,
        skipped: Some(Skipped::Nonfinite),
        ..record()
    };
    MetricsWriter::open(dir.path(), 0).unwrap().append(&bad).unwrap();
    let row: serde_json::Value = serde_json::from_str(&rows(dir.path())[0]).unwrap();
    assert!(row["loss"].is_null() && row["gradNorm"].is_null());
    assert!(row.as_object().unwrap().contains_key("valLoss") && row["valLoss"].is_null());
    assert_eq!(row["nonfinite"], serde_json::json!(["loss", "valLoss", "gradNorm"]));
    assert_eq!(row["skipped"], "nonfinite");
    let read = &read_metrics(dir.path()).unwrap()[0];
    assert!(read.loss.is_nan() && read.val_loss.unwrap().is_nan() && read.grad_norm.is_nan());
}

fn significant_digits(number: &str) -> String {
    let mantissa = number.split('e').next().unwrap().replace(['-', '.'], "");
    mantissa.trim_matches('0').into()
}

proptest! {
    #[test]
    fn single_precision_numbers_read_back_to_the_same_bits(bits in any::<u32>(), more in any::<u32>()) {
        let (loss, grad_norm) = (f32::from_bits(bits), f32::from_bits(more));
        prop_assume!(loss.is_finite() && grad_norm.is_finite());
        let text = serde_json::to_string(&StepRecord { loss, grad_norm, ..StepRecord::default() }).unwrap();
        let read: StepRecord = serde_json::from_str(&text).unwrap();
        prop_assert_eq!((read.loss.to_bits(), read.grad_norm.to_bits()), (bits, more));
        // Shortest: as many digits as Rust prints for the single-precision number. (Not always the
        // same: 20982492 and 20982493 read back to one number.)
        let number = text.split("\"loss\":").nth(1).unwrap().split(',').next().unwrap();
        prop_assert_eq!(significant_digits(number).len(), significant_digits(&format!("{loss:?}")).len());
        prop_assert_eq!(number.parse::<f32>().unwrap().to_bits(), bits);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))] // each syncs a file

    #[test]
    fn any_file_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metrics.jsonl"), bytes).unwrap();
        read_metrics(dir.path()).unwrap();
        MetricsWriter::open(dir.path(), 5).unwrap();
    }
}

#[test]
fn going_on_from_a_step_cuts_what_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = MetricsWriter::open(dir.path(), 0).unwrap();
    for step in 1..=5 {
        writer.append(&StepRecord { step, ..record() }).unwrap();
    }
    writer.sync().unwrap();
    drop(writer);
    let before = rows(dir.path());
    let path = dir.path().join("metrics.jsonl");
    let torn = format!("{}{}", fs::read_to_string(&path).unwrap(), "{\"step\":6,\"lo");
    fs::write(&path, torn).unwrap();
    assert_eq!(read_metrics(dir.path()).unwrap().len(), 5);
    let mut writer = MetricsWriter::open(dir.path(), 3).unwrap();
    assert_eq!(rows(dir.path()), before[..3]);
    writer.append(&StepRecord { step: 4, ..record() }).unwrap();
    assert_eq!(rows(dir.path()), before[..4]);
}

#[test]
fn samples_are_rows_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("samples.jsonl");
    let sample = SampleRecord {
        step: 100,
        prompt: "The ".into(),
        text: "\"end\"\n".into(),
        seed: 42,
        temp: 0.8,
        topk: 40,
        topp: 1.0,
    };
    JsonLines::open(&path).unwrap().append(&sample).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        "{\"step\":100,\"prompt\":\"The \",\"text\":\"\\\"end\\\"\\n\",\"seed\":42,\"temp\":0.8,\"topk\":40,\"topp\":1.0}\n"
    );
}

#[test]
fn the_step_line_is_that_of_the_contract() {
    let check = |record: &StepRecord, launches, expected: &str| {
        assert_eq!(format_step_line(&StepRecord { launches, ..record.clone() }, 100), expected);
    };
    check(
        &record(),
        Some(Launches { dispatches: 92, submissions: 1, read_backs: 0 }),
        "step 12/100 | loss=5.1234 val_loss=5.2345 | lr=3.00e-5 | grad_norm=1.234 clip=0.8104 | 41ms/it | 3122 tok/s | 92 gpu_ops",
    );
    let plain = StepRecord { val_loss: None, clip_coef: 1.0, ms_per_iter: 6.238, ..record() };
    check(&plain, None, "step 12/100 | loss=5.1234 | lr=3.00e-5 | grad_norm=1.234 | 6.24ms/it | 3122 tok/s");
    let bad = StepRecord {
        loss: f32::NAN,
        val_loss: Some(f32::INFINITY),
        grad_norm: f32::INFINITY,
        clip_coef: 1.0,
        ..record()
    };
    check(&bad, None, "step 12/100 | loss=nan val_loss=inf | lr=3.00e-5 | grad_norm=inf | 41ms/it | 3122 tok/s");
}

#[test]
fn the_trace_line_is_that_of_the_contract() {
    assert_eq!(
        format_trace_line(&record()).unwrap(),
        "  [trace] data=0.03ms fwd=12ms bwd=20ms gradnorm=3.10ms clip=0.00ms optim=1.20ms flush=4.70ms gpu_ops=92"
    );
    assert_eq!(format_trace_line(&StepRecord { timing: None, ..record() }), None);
}

#[test]
fn times_have_two_decimals_below_ten_milliseconds() {
    for (ms, expected) in
        [(0.0, "0.00ms/it"), (9.994, "9.99ms/it"), (9.996, "10ms/it"), (10.4, "10ms/it"), (1234.5, "1234ms/it")]
    {
        let line = format_step_line(&StepRecord { ms_per_iter: ms, ..record() }, 1);
        assert!(line.contains(&format!(" {expected} ")), "{line}");
    }
}

//! `--trace`: phases of each step, totals per kernel, and a file for Perfetto.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::place::Place;

const STEPS: u64 = 15;

fn traced(flags: &[&str]) -> Place {
    let place = Place::with_text();
    place.train("run", &[&["--trace", &format!("--steps={STEPS}")], flags].concat()).succeeded();
    place
}

#[test]
fn phases_add_up_to_the_step() {
    for flags in [&["--backend=cpu", "--accumSteps=2"][..], &["--backend=cpu_ref"]] {
        let place = traced(flags);
        for row in place.metrics("run") {
            let number = |key: &str| row[key].as_f64().unwrap();
            let timings = row.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("timing_"));
            let sum: f64 = timings.map(|(_, value)| value.as_f64().unwrap()).sum();
            let whole = number("ms_per_iter");
            assert!((sum - whole).abs() <= 0.03 * whole, "{row}");
            for phase in ["timing_data_ms", "timing_fwd_ms", "timing_bwd_ms", "timing_optim_ms"] {
                assert!(number(phase) > 0.0, "{row}");
            }
            assert!(number("timing_flush_ms") >= 0.0);
        }
    }
}

#[test]
fn counters_are_those_of_the_operation_table() {
    let place = traced(&[]);
    let rows = place.metrics("run");
    for key in ["kernels", "tensor_passes", "bytes_moved", "flops", "gpu_ops_count"] {
        let values: BTreeSet<u64> = rows.iter().map(|row| row[key].as_u64().unwrap()).collect();
        assert!(values.len() == 1 && !values.contains(&0), "{key}: {values:?}");
    }
    let row = &rows[0];
    assert_eq!(row["kernels"], row["gpu_ops_count"]);
    // Two operations a weight and token forward, four backward; operations that are not matrix products come on top.
    let (layers, dim, vocab, tokens) = (2, 32, 17, 4 * 16);
    let products = 6 * tokens * (layers * 12 * dim * dim + vocab * dim);
    let flops = row["flops"].as_u64().unwrap();
    assert!((products..2 * products).contains(&flops), "{flops} flops, matrix products alone {products}");
    let sizes = 4 * (layers * 12 * dim * dim + vocab * dim);
    assert!(row["bytes_moved"].as_u64().unwrap() > 4 * sizes, "weights, gradients and both moments are touched");
}

#[test]
fn kernels_account_for_every_step() {
    let place = traced(&["--accumSteps=2"]);
    let report = place.json("run/kernels.json");
    let rows = place.metrics("run");
    assert_eq!(report["steps"], STEPS);
    let kernels = report["kernels"].as_array().unwrap();
    for (kernel_key, row_key) in [("calls", "kernels"), ("flops", "flops"), ("bytes", "bytes_moved")] {
        let total: u64 = kernels.iter().map(|kernel| kernel[kernel_key].as_u64().unwrap()).sum();
        let expected: u64 = rows.iter().map(|row| row[row_key].as_u64().unwrap()).sum();
        assert_eq!(total, expected, "{kernel_key}");
    }
    let time_ms: f64 = kernels.iter().map(|kernel| kernel["time_ms"].as_f64().unwrap()).sum();
    let steps_ms: f64 = place.column("run", "ms_per_iter").iter().sum();
    assert!(time_ms > 0.0 && time_ms <= steps_ms * 1.001, "{time_ms} ms in kernels, {steps_ms} ms in steps");
}

#[test]
fn the_trace_has_one_track_a_thread() {
    let place = traced(&["--threads=3"]);
    let trace = place.json("run/trace.json");
    let events = trace["traceEvents"].as_array().unwrap();
    let tids = |kind: &str, name: Option<&str>| -> BTreeSet<u64> {
        let chosen = events.iter().filter(|event| event["ph"] == kind && name.is_none_or(|name| event["name"] == name));
        chosen.map(|event| event["tid"].as_u64().unwrap()).collect()
    };
    assert_eq!(tids("M", Some("thread_name")), BTreeSet::from([0, 1, 2]));
    assert_eq!(tids("X", None), BTreeSet::from([0, 1, 2]));
    let complete = events.iter().filter(|event| event["ph"] == "X");
    let steps = complete.clone().filter(|event| event["cat"] == "step");
    let names: Vec<&str> = steps.map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, (1..=STEPS).map(|step| format!("step {step}")).collect::<Vec<_>>());
    for event in complete {
        assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["dur"].as_f64().unwrap() >= 0.0, "{event}");
        assert!(event["name"].is_string() && event["cat"].is_string() && event["pid"] == 1, "{event}");
    }
    // Events of one track may contain each other but never overlap in part: viewers refuse that.
    for tid in 0..3 {
        let on_track = events.iter().filter(|event| event["ph"] == "X" && event["tid"] == tid);
        let mut spans: Vec<(i64, i64)> = on_track.map(span_ns).collect();
        spans.sort_by_key(|(start, end)| (*start, -end));
        let mut open: Vec<i64> = Vec::new();
        for (start, end) in spans {
            while open.last().is_some_and(|outer_end| *outer_end <= start) {
                open.pop();
            }
            assert!(open.last().is_none_or(|outer_end| end <= *outer_end), "events overlap on track {tid}");
            open.push(end);
        }
    }
}

fn span_ns(event: &Value) -> (i64, i64) {
    let ns = |key: &str| (event[key].as_f64().unwrap() * 1e3).round() as i64;
    (ns("ts"), ns("ts") + ns("dur"))
}

#[test]
fn without_trace_there_are_no_trace_files() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    assert_eq!(place.names("run"), [".lock", "checkpoint-2", "config.json", "metrics.jsonl"]);
}

//! A run: it learns, and its lines and rows are as promised.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    lines::{StepLine, is_trace_line},
    place::{Place, words},
};

/// Entropy of a character if only the frequencies are known, in nats.
fn unigram_entropy(text: &str) -> f64 {
    let mut counts: BTreeMap<char, f64> = BTreeMap::new();
    text.chars().for_each(|character| *counts.entry(character).or_default() += 1.0);
    let total: f64 = counts.values().sum();
    counts.values().map(|count| -count / total * (count / total).ln()).sum()
}

#[test]
fn sixty_steps_learn_more_than_letter_frequencies() {
    let place = Place::with_text();
    place.train("run", &["--steps=60", "--evalInterval=60", "--evalIters=8"]).succeeded();
    let rows = place.metrics("run");
    let first = rows[0]["loss"].as_f64().unwrap();
    assert!((first - 17f64.ln()).abs() < 0.3, "an untrained model knows nothing: ln 17, found {first}");
    let val_loss = rows[59]["valLoss"].as_f64().unwrap();
    let entropy = unigram_entropy(&words(1200));
    assert!(entropy > 2.4, "{entropy}");
    assert!(val_loss < 1.7, "validation loss {val_loss} after 60 steps, letter frequencies alone give {entropy}");
}

#[test]
fn lines_are_printed_when_and_as_promised() {
    let place = Place::with_text();
    let flags = ["--steps=23", "--evalInterval=10", "--logEvery=7", "--trace", "--gradClip=0.5"];
    let done = place.train("run", &flags).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    let (steps, traces): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("step "));
    assert!(traces.len() == steps.len() && traces.iter().all(|line| is_trace_line(line)), "{lines:#?}");
    let steps: Vec<StepLine> = steps.iter().map(|line| StepLine::parse(line).expect(line)).collect();
    assert_eq!(steps.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 7, 10, 14, 20, 21, 23]);
    let rows = place.metrics("run");
    for line in steps {
        let row = &rows[line.step as usize - 1];
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(line.steps, 23);
        assert_eq!(line.loss, format!("{:.4}", number("loss")));
        assert_eq!(line.grad_norm, format!("{:.3}", number("gradNorm")));
        assert_eq!(line.lr, format!("{:.2e}", number("lr")));
        assert_eq!(line.val_loss.is_some(), [10, 20].contains(&line.step));
        let val_loss = row.get("valLoss").map(|loss| format!("{:.4}", loss.as_f64().unwrap()));
        assert_eq!(line.val_loss, val_loss.as_deref());
        let coefficient = (0.5 / (number("gradNorm") + 1e-6)).min(1.0);
        assert!((number("clip_coef") - coefficient).abs() < 1e-6);
        assert_eq!(line.clip.is_some(), coefficient < 1.0);
    }
    // Of a run without `--trace`, one line a step and nothing else.
    let done = place.train("plain", &["--steps=3"]).succeeded();
    assert_eq!(done.stdout.lines().map(|line| StepLine::parse(line).expect(line).step).collect::<Vec<_>>(), [1, 2, 3]);
}

const KEYS: [&str; 9] =
    ["step", "loss", "lr", "gradNorm", "elapsed_ms", "tokens_per_sec", "ms_per_iter", "clip_coef", "gpu_ops_count"];
const TIMING_KEYS: [&str; 7] = [
    "timing_data_ms",
    "timing_fwd_ms",
    "timing_bwd_ms",
    "timing_grad_norm_ms",
    "timing_grad_clip_ms",
    "timing_optim_ms",
    "timing_flush_ms",
];
const OWN_KEYS: [&str; 6] = ["kernels", "tensor_passes", "bytes_moved", "flops", "allocations", "data_hash"];

#[test]
fn rows_have_the_promised_keys() {
    let place = Place::with_text();
    for trace in [false, true] {
        let run = format!("trace-{trace}");
        place.train(&run, &["--steps=6", "--evalInterval=3", &format!("--trace={trace}")]).succeeded();
        let rows = place.metrics(&run);
        assert_eq!(rows.len(), 6);
        for (index, row) in rows.iter().enumerate() {
            let mut expected: Vec<&str> = [&KEYS[..], &OWN_KEYS].concat();
            expected.extend(TIMING_KEYS.iter().filter(|_| trace));
            expected.extend(((index + 1) % 3 == 0).then_some("valLoss"));
            expected.sort_unstable();
            let mut keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys, expected);
            assert_eq!(row["step"], index + 1);
            for (key, value) in row.as_object().unwrap() {
                assert_eq!(value.is_number(), key != "data_hash", "{row}");
            }
        }
    }
}

/// Digits of a number as it stands in a row, without point, exponent and outer zeros.
fn significant_digits(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap();
    mantissa.replace('.', "").trim_matches('0').to_owned()
}

#[test]
fn numbers_in_rows_are_the_shortest_that_read_back() {
    let place = Place::with_text();
    place.train("run", &["--steps=12"]).succeeded();
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    for line in text.lines() {
        for key in ["\"loss\":", "\"gradNorm\":"] {
            let number = line.split_once(key).unwrap().1.split([',', '}']).next().unwrap();
            let value: f32 = number.parse().unwrap();
            assert_eq!(significant_digits(number), significant_digits(&format!("{value:e}")), "{key}{number}");
        }
    }
}

#[test]
fn speed_is_that_of_the_step() {
    let place = Place::with_text();
    place.train("run", &["--steps=8", "--accumSteps=3", "--evalInterval=2"]).succeeded();
    let rows = place.metrics("run");
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    for row in &rows {
        let tokens = number(row, "tokens_per_sec") * number(row, "ms_per_iter") / 1e3;
        assert!((tokens - 4.0 * 16.0 * 3.0).abs() < 1.0, "{row}");
    }
    let elapsed = place.column("run", "elapsed_ms");
    assert!(
        elapsed.windows(2).zip(&rows[1..]).all(|(pair, row)| pair[1] - pair[0] >= number(row, "ms_per_iter") * 0.999)
    );
}

#[test]
fn no_step_but_the_first_two_allocates() {
    let place = Place::with_text();
    for (run, flags) in [
        ("plain", &["--steps=12"][..]),
        ("eventful", &["--steps=12", "--evalInterval=4", "--sampleInterval=5", "--trace", "--accumSteps=2"]),
        (
            "other",
            &["--steps=12", "--dropout=0.1", "--activation=swiglu", "--tie=false", "--bias=false", "--checkpoint"],
        ),
        ("packed", &["--steps=12", "--packed", "--threads=1"]),
    ] {
        place.train(run, flags).succeeded();
        let allocations = place.column(run, "allocations");
        assert!(allocations[2..].iter().all(|&count| count == 0.0), "{run}: {allocations:?}");
    }
}

#[test]
fn packed_without_validation_data_says_what_it_evaluates_on() {
    let place = Place::with_text();
    let done = place.train("run", &["--steps=2", "--packed", "--evalInterval=1", "--evalIters=3"]).succeeded();
    let tokens = format!("first {} tokens", 3 * 4 * 16);
    assert!(done.stderr.lines().any(|line| line.contains("--valData") && line.contains(&tokens)), "{}", done.stderr);
}

/// Under `--packed` micro-steps read on where the last one ended, so that two of half the size make the same step.
#[test]
fn accumulation_is_a_larger_batch() {
    let place = Place::with_text();
    let packed = ["--packed", "--steps=15"];
    place.train("whole", &[&packed[..], &["--batch=4"]].concat()).succeeded();
    place.train("halves", &[&packed[..], &["--batch=2", "--accumSteps=2"]].concat()).succeeded();
    for key in ["loss", "gradNorm"] {
        for (whole, halves) in place.column("whole", key).into_iter().zip(place.column("halves", key)) {
            assert!((whole - halves).abs() <= 1e-3 * whole.abs(), "{key}: {whole} and {halves}");
        }
    }
}

#[test]
fn the_resolved_configuration_gives_the_same_run_again() {
    let place = Place::with_text();
    place.train("run", &["--steps=4", "--seed=7", "--activation=silu"]).succeeded();
    let config = place.json("run/config.json");
    assert_eq!((&config["seed"], &config["activation"], &config["ffnDim"]), (&7.into(), &"silu".into(), &128.into()));
    place.alpha(&["train", "--config=run/config.json", "--runDir=again"]).succeeded();
    assert!(place.weights("run", 4) == place.weights("again", 4));
}

#[test]
fn samples_are_recorded() {
    let place = Place::with_text();
    place.train("run", &["--steps=4", "--sampleInterval=2", "--samplePrompts=the cat"]).succeeded();
    let text = std::fs::read_to_string(place.path("run/samples.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["step"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 4]);
    for row in rows {
        let mut keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["prompt", "seed", "step", "temp", "text", "topk", "topp"]);
        assert_eq!(row["prompt"], "the cat");
        assert!(!row["text"].as_str().unwrap().is_empty());
    }
}

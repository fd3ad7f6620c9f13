//! Golden cases: the binary against `PyTorch` in f64 (`tests/golden`, written by `scripts/make_golden.py`).
//!
//! Each case trains through the command line, on each backend, from the weights, tokens and flags of its folder, and is
//! compared in what the run folder holds: each step's loss and gradient norm, and the last checkpoint's weights.
//! Weights are compared by how far they moved: L2 of the difference over L2 of the move, per tensor. The key bias is
//! left out: its gradient is zero by analysis, so its updates are rounding noise that `AdamW` amplifies.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const LOSS_TOLERANCE: f64 = 1e-4;
const GRAD_NORM_TOLERANCE: f64 = 1e-3;
const MOVE_TOLERANCE: f64 = 1e-2;

#[test]
fn tied_gelu_on_cpu() {
    check("tied-gelu", "cpu");
}

#[test]
fn tied_gelu_on_cpu_ref() {
    check("tied-gelu", "cpu_ref");
}

#[test]
fn untied_relu_accum_on_cpu() {
    check("untied-relu-accum", "cpu");
}

#[test]
fn untied_relu_accum_on_cpu_ref() {
    check("untied-relu-accum", "cpu_ref");
}

#[test]
fn silu_no_bias_on_cpu() {
    check("silu-no-bias", "cpu");
}

#[test]
fn silu_no_bias_on_cpu_ref() {
    check("silu-no-bias", "cpu_ref");
}

#[test]
fn swiglu_single_on_cpu() {
    check("swiglu-single", "cpu");
}

#[test]
fn swiglu_single_on_cpu_ref() {
    check("swiglu-single", "cpu_ref");
}

#[test]
fn every_case_is_run() {
    let this_file = include_str!("golden.rs");
    let mut cases = 0;
    for entry in fs::read_dir(golden()).expect("tests/golden is there") {
        let name = entry.expect("tests/golden can be read").file_name().into_string().expect("names are ASCII");
        for backend in ["cpu", "cpu_ref"] {
            assert!(
                this_file.contains(&format!("check(\"{name}\", \"{backend}\")")),
                "`{name}` does not run on {backend}"
            );
        }
        cases += 1;
    }
    assert!(cases >= 4, "found {cases} golden cases");
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// Runs one case on one backend and compares.
#[track_caller]
fn check(case: &str, backend: &str) {
    let folder = golden().join(case);
    let recipe = read_json(&folder.join("recipe.json"));
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let run_dir = scratch.path().join("run");
    let flags = recipe["flags"].as_array().expect("the recipe has flags");
    let output = Command::new(env!("CARGO_BIN_EXE_alpha"))
        .arg("train")
        .arg(format!("--data={}", folder.join("tokens.bin").display()))
        .arg(format!("--init={}", folder.display()))
        .arg(format!("--runDir={}", run_dir.display()))
        .arg(format!("--backend={backend}"))
        .arg("--threads=2")
        .args(flags.iter().filter_map(Value::as_str))
        .env("XDG_CACHE_HOME", scratch.path())
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{case} on {backend}: {}", String::from_utf8_lossy(&output.stderr));

    let initial = Tensors::read(&folder.join("model.safetensors"));
    let expected = Tensors::read(&folder.join("expected.safetensors"));
    compare_steps(&run_dir, &expected);
    let steps = recipe["steps"].as_u64().expect("the recipe has steps");
    let checkpoint = Tensors::read(&run_dir.join(format!("checkpoint-{steps}/model.safetensors")));
    compare_weights(&checkpoint, &initial, &expected);
}

/// Loss and gradient norm of each step.
#[track_caller]
fn compare_steps(run_dir: &Path, expected: &Tensors) {
    let metrics = fs::read_to_string(run_dir.join("metrics.jsonl")).expect("the run wrote metrics");
    let rows: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect();
    assert_eq!(rows.len(), expected.get("loss").len());
    for (key, name, tolerance) in [("loss", "loss", LOSS_TOLERANCE), ("gradNorm", "grad_norm", GRAD_NORM_TOLERANCE)] {
        for (step, (row, &expected)) in rows.iter().zip(expected.get(name)).enumerate() {
            let found = row[key].as_f64().unwrap_or(f64::NAN);
            let error = (found - expected).abs() / expected;
            assert!(
                error <= tolerance,
                "step {}: `{key}` is {found}, expected {expected} (off by {error:e})",
                step + 1
            );
        }
    }
}

/// Weights after the last step; names in the checkpoint have the prefix `transformer.`, those of a case have not.
#[track_caller]
fn compare_weights(found: &Tensors, initial: &Tensors, expected: &Tensors) {
    let mut compared = 0;
    for (name, after) in &expected.0 {
        let Some(name) = name.strip_prefix("final.") else { continue };
        let found_name = if name == "lm_head.weight" { name.into() } else { format!("transformer.{name}") };
        let (found, after) = (without_key_bias(name, found.get(&found_name)), without_key_bias(name, after));
        // A run with a shorter context keeps the first rows of the position embedding.
        let before = without_key_bias(name, &initial.get(name)[..expected.get(&format!("final.{name}")).len()]);
        assert_eq!(found.len(), after.len(), "`{name}`");
        let (moved, off) = (distance(&after, &before), distance(&found, &after));
        assert!(off <= MOVE_TOLERANCE * moved, "`{name}` is off by {off:e}, having moved by {moved:e}");
        compared += 1;
    }
    assert_eq!(compared, found.0.len(), "the checkpoint has other tensors: {:?}", found.0.keys());
}

fn without_key_bias(name: &str, values: &[f64]) -> Vec<f64> {
    if !name.ends_with("attn.c_attn.bias") {
        return values.to_vec();
    }
    let third = values.len() / 3;
    [&values[..third], &values[2 * third..]].concat()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the file can be read");
    serde_json::from_str(&text).expect("the file is JSON")
}

/// A `.safetensors` file as f64, read without the product's own reader: 8 bytes of header length, a JSON header with
/// types and byte ranges, data.
struct Tensors(BTreeMap<String, Vec<f64>>);

impl Tensors {
    fn read(path: &Path) -> Tensors {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (length, rest) = bytes.split_first_chunk::<8>().expect("a header length");
        let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a small header"));
        let header: BTreeMap<String, Value> = serde_json::from_slice(header).expect("a JSON header");
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__").map(|(name, info)| {
            let offset =
                |i: usize| usize::try_from(info["data_offsets"][i].as_u64().expect("an offset")).expect("it fits");
            let data = &data[offset(0)..offset(1)];
            let values = match info["dtype"].as_str() {
                Some("F32") => data.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
                Some("F64") => data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
                other => panic!("`{name}` is of type {other:?}"),
            };
            (name, values)
        });
        Tensors(tensors.collect())
    }

    #[track_caller]
    fn get(&self, name: &str) -> &[f64] {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}` in {:?}", self.0.keys()))
    }
}

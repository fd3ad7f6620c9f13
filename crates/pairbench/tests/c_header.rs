//! `include/alpha_turns.h`: a trainer in C, compiled as C99 and as C++ where the machine has a compiler for it, takes turns
//! and writes its records.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use pairbench::{
    Quiet,
    draws::Randomization,
    pair::{
        self, PairRequest,
        schedule::Blocks,
        timed_command::{Sharing, TimedCommand},
    },
    process::{isolation::Isolation, sandbox::SandboxSpec},
};

const STEPS: u64 = 12;

const TRAINER: &str = r#"
#include "alpha_turns.h"
#include <math.h>
static void save(void *context, unsigned long step) {
    char name[64];
    snprintf(name, sizeof name, "weights-%lu", step);
    FILE *file = fopen(name, "w");
    fprintf(file, "%g", *(double *)context);
    fclose(file);
}
int main(int count, char **words) {
    unsigned long steps = strtoul(words[count - 1], NULL, 10), step;
    unsigned long long hash = 0;
    double weight = 1.0;
    alpha_turns turns;
    FILE *metrics = fopen("metrics.jsonl", "w");
    alpha_turns_open(&turns);
    for (step = 1; step <= steps; step++) {
        alpha_turns_before_step(&turns, save, &weight);
        weight /= 2.0;
        hash = alpha_turns_hash(hash, &step, sizeof step);
        alpha_turns_row(metrics, step, weight / 3.0, step == 2 ? INFINITY : 1.0, hash);
        alpha_turns_after_step(&turns, step == steps);
    }
    return fclose(metrics);
}
"#;

/// The compiled trainer in a folder of its own.
fn compiled(root: &Path, compiler: &str, standard: &str) -> PathBuf {
    let folder = root.join(standard);
    fs::create_dir(&folder).unwrap();
    let source = folder.join("trainer.c");
    fs::write(&source, TRAINER).unwrap();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include");
    let done = Command::new(compiler)
        .args(["-x", if compiler == "c++" { "c++" } else { "c" }, &format!("-std={standard}")])
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .args([&header, &source])
        .arg("-o")
        .arg(folder.join("trainer"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    folder
}

#[test]
fn a_trainer_in_c_takes_turns_and_writes_its_records() {
    let root = tempfile::tempdir().unwrap();
    let isolation = Arc::new(Isolation::detect(&[], &[]));
    let has_cpp = Command::new("c++").arg("--version").output().is_ok();
    let other = if has_cpp { ("c++", "c++11") } else { ("cc", "gnu11") };
    let folders = [compiled(root.path(), "cc", "c99"), compiled(root.path(), other.0, other.1)];
    let specs = folders.map(|folder| SandboxSpec::of_folder(&folder, &isolation).unwrap());
    let script = Blocks { warmup_steps: 4, block_steps: 2, blocks: 3, steps: STEPS }.script_with_saves(1);
    let request = PairRequest {
        command: TimedCommand {
            line: "./trainer {steps}".to_owned(),
            steps: STEPS,
            sharing: Sharing::Turns,
            turn_timeout: Duration::from_secs(60),
            writes_weights: true,
            step_lines: None,
        },
        specs: [&specs[0], &specs[1]],
        script: &script,
        draws: Randomization { seed: 1 },
        number: 0,
        work: &root.path().join("work"),
        slowed: None,
    };
    let run = pair::run(&request, &Quiet).unwrap();
    assert_eq!(run.void, None);
    let read = |arm: usize, name: &str| fs::read_to_string(run.arms[arm].folder.path().join(name)).unwrap();
    assert_eq!(read(0, "metrics.jsonl"), read(1, "metrics.jsonl"), "C and C++ train the same");
    let metrics = read(0, "metrics.jsonl");
    let rows: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len() as u64, STEPS);
    for (row, step) in rows.iter().zip(1..) {
        assert_eq!(row["step"], step);
        assert_eq!(row["loss"].as_f64().unwrap().to_bits(), (0.5_f64.powi(step) / 3.0).to_bits(), "to the last bit");
        assert_eq!(row["gradNorm"].is_null(), step == 2);
    }
    // FNV-1a by the definition: each step's number, chained.
    let hash = (1..=STEPS).fold(0_u64, |hash, step| {
        step.to_le_bytes()
            .iter()
            .fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    });
    assert_eq!(rows[STEPS as usize - 1]["data_hash"], format!("{hash:016x}"));
    assert_eq!((read(0, "weights-0").as_str(), read(1, "weights-2").as_str()), ("1", "0.25"));
}

#[test]
fn without_a_loop_it_trains_as_always() {
    let root = tempfile::tempdir().unwrap();
    let folder = compiled(root.path(), "cc", "c99");
    let done = Command::new("./trainer").arg("3").current_dir(&folder).env_remove("ALPHA_TURNS").status().unwrap();
    assert!(done.success());
    assert_eq!(fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines().count(), 3);
    // A loop that is gone ends it.
    let gone = Command::new("./trainer").arg("3").current_dir(&folder).env("ALPHA_TURNS", "/nowhere").output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("cannot connect"));
}

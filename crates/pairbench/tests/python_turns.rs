//! `python/alpha_loop`: a trainer in Python takes turns by three lines, writes its records, and saves when it is asked to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use pairbench::{
    LoopError, Quiet,
    draws::Randomization,
    pair::{
        self, PairRequest, PairRun,
        schedule::Blocks,
        timed_command::{Sharing, TimedCommand},
    },
    process::{isolation::Isolation, sandbox::SandboxSpec},
};

const STEPS: u64 = 12;

const TRAINER: &str = r#"
import sys
from alpha_loop import Turns
weight = 1.0
def save(step):
    with open(f"weights-{step}", "w") as file:
        file.write(str(weight))
turns = Turns("metrics.jsonl", save=SAVE)
for step in range(1, int(sys.argv[1]) + 1):
    turns.before_step()
    weight /= 2
    turns.after_step(weight / 3, float("inf") if step == 2 else 1.0, (step.to_bytes(8, "little"), b"x"))
"#;

fn module() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/alpha_loop/__init__.py")).unwrap()
}

/// A folder with the trainer and the module.
fn folder(root: &Path, source: &str) -> std::path::PathBuf {
    let folder = root.join("trainer");
    fs::create_dir_all(folder.join("alpha_loop")).unwrap();
    fs::write(folder.join("alpha_loop/__init__.py"), module()).unwrap();
    fs::write(folder.join("train.py"), source).unwrap();
    folder
}

fn pair(root: &Path, source: &str) -> Result<PairRun, LoopError> {
    let isolation = Arc::new(Isolation::detect(&[], &[]));
    let spec = SandboxSpec::of_folder(&folder(root, source), &isolation).unwrap();
    let request = PairRequest {
        command: TimedCommand {
            line: "python3 train.py {steps}".to_owned(),
            steps: STEPS,
            sharing: Sharing::Turns,
            turn_timeout: Duration::from_secs(60),
            writes_weights: true,
            step_lines: None,
        },
        specs: [&spec, &spec],
        script: &Blocks { warmup_steps: 4, block_steps: 2, blocks: 3, steps: STEPS }.script_with_saves(1),
        draws: Randomization { seed: 1 },
        number: 0,
        work: &root.join("work"),
        slowed: None,
    };
    pair::run(&request, &Quiet)
}

fn rows(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_trainer_in_python_takes_turns_and_writes_its_records() {
    let root = tempfile::tempdir().unwrap();
    let run = pair(root.path(), &TRAINER.replace("SAVE", "save")).unwrap();
    assert_eq!(run.void, None);
    let read = |arm: usize, name: &str| fs::read_to_string(run.arms[arm].folder.path().join(name)).unwrap();
    assert_eq!(read(0, "metrics.jsonl"), read(1, "metrics.jsonl"));
    let rows = rows(&read(0, "metrics.jsonl"));
    assert_eq!(rows.len() as u64, STEPS);
    for (row, step) in rows.iter().zip(1..) {
        assert_eq!(row["step"], step);
        assert_eq!(row["loss"].as_f64().unwrap().to_bits(), (0.5_f64.powi(step) / 3.0).to_bits(), "to the last bit");
        assert_eq!(row["gradNorm"].is_null(), step == 2);
    }
    let hashes: std::collections::BTreeSet<&str> = rows.iter().map(|row| row["data_hash"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), rows.len(), "the hash covers all tokens so far");
    assert_eq!((read(0, "weights-0").as_str(), read(1, "weights-2").as_str()), ("1.0", "0.25"));
}

#[test]
fn without_a_loop_it_trains_as_always_and_writes_the_same_rows() {
    let root = tempfile::tempdir().unwrap();
    let source = TRAINER.replace("SAVE", "None");
    let trained = |steps: &str, variable: Option<&str>| {
        let mut command = Command::new("python3");
        command.args(["train.py", steps]).current_dir(folder(root.path(), &source)).env_remove("ALPHA_TURNS");
        command.envs(variable.map(|path| ("ALPHA_TURNS", path))).output().unwrap()
    };
    assert!(trained("200", None).status.success());
    let whole = rows(&fs::read_to_string(root.path().join("trainer/metrics.jsonl")).unwrap());
    assert_eq!(whole.len(), 200);
    // The hash is that of the tokens alone: a shorter run has the same rows.
    assert!(trained("3", None).status.success());
    assert_eq!(rows(&fs::read_to_string(root.path().join("trainer/metrics.jsonl")).unwrap()), whole[..3]);
    // A loop that is gone ends it.
    assert!(!trained("3", Some("/nowhere")).status.success());
}

#[test]
fn a_trainer_that_cannot_save_says_so() {
    let root = tempfile::tempdir().unwrap();
    let error = pair(root.path(), &TRAINER.replace("SAVE", "None")).unwrap_err().to_string();
    assert!(error.contains("failed cannot save: Turns was made without `save`"), "{error}");
}

#[test]
fn a_training_that_ends_early_is_told() {
    let root = tempfile::tempdir().unwrap();
    let source = TRAINER.replace("SAVE", "save").replace("int(sys.argv[1]) + 1", "4");
    let error = pair(root.path(), &source).unwrap_err().to_string();
    assert!(error.contains("ended (exit status: 0)"), "{error}");
}

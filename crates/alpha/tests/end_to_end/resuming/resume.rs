//! A run that was ended in any way goes on as if it had not been interrupted.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    lines::StepLine,
    place::{Place, Running},
    tensors::assert_same_checkpoint,
};

const STEPS: u64 = 60;
const FLAGS: &[&str] = &["--steps=60", "--evalInterval=5", "--dropout=0.1", "--accumSteps=2"];

/// A place where `whole` is the run without interruption.
fn with_whole_run() -> Place {
    let place = Place::with_text();
    place.train("whole", &[FLAGS, &["--keepCheckpoints=20"]].concat()).succeeded();
    place
}

/// Checks that a run ended as `whole` did: the rows of each step once, the last checkpoint bit for bit.
#[track_caller]
fn assert_as_whole(place: &Place, run: &str, steps: u64) {
    let trajectory = |run: &str| -> Vec<[Option<Value>; 7]> {
        let keys = ["step", "loss", "valLoss", "gradNorm", "lr", "clip_coef", "data_hash"];
        place.metrics(run).iter().map(|row| keys.map(|key| row.get(key).cloned())).collect()
    };
    assert_eq!(place.column(run, "step"), (1..=steps).map(|step| step as f64).collect::<Vec<_>>());
    assert_eq!(trajectory(run), trajectory("whole"));
    let checkpoint = |run: &str| place.path(run).join(format!("checkpoint-{steps}"));
    assert_same_checkpoint(&checkpoint(run), &checkpoint("whole"));
    assert!(!place.names(run).iter().any(|name| name.starts_with(".tmp-")), "{:?}", place.names(run));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn from_the_middle_it_is_the_same_run() {
    let place = with_whole_run();
    // By name, although there are later checkpoints and rows, which are dropped.
    copy(&place.path("whole"), &place.path("by-name"));
    place.alpha(&["train", "--resume=by-name/checkpoint-30"]).succeeded();
    assert_as_whole(&place, "by-name", STEPS);
    // By `auto`, after a crash in the middle of a row.
    copy(&place.path("whole"), &place.path("crashed"));
    for step in (35..=STEPS).step_by(5) {
        fs::remove_dir_all(place.path("crashed").join(format!("checkpoint-{step}"))).unwrap();
    }
    let metrics = fs::read(place.path("whole/metrics.jsonl")).unwrap();
    place.write("crashed/metrics.jsonl", &metrics[..metrics.len() * 2 / 3]);
    place.write("crashed/.tmp-1-checkpoint-35/model.safetensors", "half of a fi");
    let done = place.resume("crashed", &[]).succeeded();
    assert!(done.stderr.contains("checkpoint-30"), "{}", done.stderr);
    assert_eq!(StepLine::parse(done.stdout.lines().next().unwrap()).unwrap().step, 31);
    assert_as_whole(&place, "crashed", STEPS);
}

#[test]
fn killed_again_and_again_it_is_the_same_run() {
    let place = with_whole_run();
    let mut steps = Vec::new();
    for (round, lines) in [2, 9, 5, 7, 1, 6, 11].into_iter().enumerate() {
        let resume = ["--resume=auto"];
        let mut run = Running::start(&mut place.train_command("run", &[FLAGS, &resume[..]].concat()));
        let read = run.read_lines(lines);
        run.kill();
        if let Some(line) = read.first() {
            steps.push(StepLine::parse(line).expect("a whole line").step);
        }
        assert!(place.path("run/metrics.jsonl").exists(), "round {round}");
    }
    assert!(steps.windows(2).all(|pair| pair[0] <= pair[1]) && steps.last() > steps.first(), "no progress: {steps:?}");
    place.resume("run", &[]).succeeded();
    assert_as_whole(&place, "run", STEPS);
}

/// A schedule that does not know how many steps there will be, so that runs of other lengths are the same run.
const OPEN_END: &[&str] = &["--schedule=constant", "--warmupIters=4", "--evalInterval=50", "--dropout=0.1"];

#[test]
fn signals_end_the_step_save_and_tell() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::with_text();
        let endless = [OPEN_END, &["--steps=1000000"]].concat();
        let mut run = Running::start(&mut place.train_command("run", &endless));
        run.read_lines(3);
        let done = run.end_by(signal);
        done.refused(code, &["--resume=auto"]);
        let saved = *place.checkpoint_steps("run").last().unwrap();
        assert!(done.stderr.contains(&format!("checkpoint-{saved}")), "{}", done.stderr);
        assert_eq!(place.metrics("run").last().unwrap()["step"], saved);
        let steps = saved + 10;
        let steps_flag = format!("--steps={steps}");
        place.resume("run", &[&steps_flag]).succeeded();
        place.train("whole", &[OPEN_END, &[&steps_flag]].concat()).succeeded();
        assert_as_whole(&place, "run", steps);
    }
}

#[test]
fn more_steps_can_be_asked_for() {
    let place = Place::with_text();
    place.train("whole", &[OPEN_END, &["--steps=40"]].concat()).succeeded();
    place.train("run", &[OPEN_END, &["--steps=25"]].concat()).succeeded();
    place.resume("run", &["--steps=40"]).succeeded();
    assert_as_whole(&place, "run", 40);
}

#[test]
fn a_finished_run_is_left_alone() {
    let place = Place::with_text();
    place.train("run", &["--steps=5"]).succeeded();
    let before = place.tree("run");
    let done = place.resume("run", &[]).succeeded();
    assert!(done.stderr.contains("nothing to do") && done.stdout.is_empty(), "{}", done.stderr);
    assert!(place.tree("run") == before);
}

#[test]
fn with_nothing_to_resume_it_begins() {
    let place = Place::with_text();
    let done = place.train("run", &["--steps=3", "--resume=auto"]).succeeded();
    let said: Vec<&str> = done.stderr.lines().filter(|line| line.contains("step 1")).collect();
    assert_eq!(said.len(), 1, "said once:\n{}", done.stderr);
    assert_eq!(place.column("run", "step"), [1.0, 2.0, 3.0]);
}

#[test]
fn flags_must_equal_the_stored_ones() {
    let place = Place::with_text();
    place.train("run", &["--steps=5"]).succeeded();
    let before = place.tree("run");
    for (flag, stored) in [
        ("--lr=0.001", "0.01"),
        ("--batch=8", "4"),
        ("--seed=43", "42"),
        ("--dropout=0.5", "0"),
        ("--activation=relu", "gelu"),
    ] {
        let done = place.resume("run", &["--steps=9", flag]);
        done.refused(2, &[flag, stored]);
    }
    assert!(place.tree("run") == before);
    let free = ["--steps=9", "--lr=1e-2", "--logEvery=2", "--evalInterval=3", "--evalIters=1", "--sampleInterval=4"];
    place.resume("run", &free).succeeded();
    assert_eq!(place.column("run", "step").len(), 9);
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let place = Place::with_text();
    place.train("run", &["--steps=5", "--evalInterval=2", "--keepCheckpoints=9"]).succeeded();
    place.alpha(&["train", "--resume=run/checkpoint-3"]).refused(1, &["run/checkpoint-3"]);
    fs::remove_file(place.path("run/checkpoint-2/training_state.safetensors")).unwrap();
    place.alpha(&["train", "--resume=run/checkpoint-2"]).refused(1, &["training_state.safetensors", "--init"]);
    assert_eq!(place.checkpoint_steps("run"), [2, 4, 5]);
}

#[test]
fn another_runs_checkpoint_begins_a_folder_of_its_own() {
    let place = Place::with_text();
    place.train("a", &["--steps=4", "--evalInterval=2"]).succeeded();
    place.train("b", &["--steps=6", "--evalInterval=2", "--seed=7"]).succeeded();
    let checkpoint = place.path("a").join("checkpoint-2");
    let resume = format!("--resume={}", checkpoint.display());
    let run_dir = format!("--runDir={}", place.path("b").display());
    place.alpha(&["train", &resume, &run_dir]).succeeded();
    // b's own run was moved aside whole, and a's is unchanged.
    let old = fs::read_dir(place.path("b").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("b.old-"))
        .expect("b's run was moved");
    assert!(old.join("checkpoint-6").is_dir());
    assert!(place.path("a").join("checkpoint-4").is_dir());
    assert_eq!(place.column("b", "step"), [3.0, 4.0]);
}

#[test]
fn a_checkpoint_under_another_steps_name_is_refused() {
    let place = Place::with_text();
    place.train("run", &["--steps=4", "--evalInterval=2"]).succeeded();
    let run = place.path("run");
    fs::rename(run.join("checkpoint-4"), run.join("checkpoint-9")).unwrap();
    let refused = place.train("run", &["--resume=auto", "--steps=12"]);
    refused.refused(1, &["checkpoint-9", "step 4"]);
    assert!(run.join("checkpoint-2").is_dir() && run.join("checkpoint-9").is_dir());
}

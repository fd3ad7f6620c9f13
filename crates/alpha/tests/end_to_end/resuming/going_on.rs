//! Stopping in the middle of work, and flags that a resumed run accepts.

use std::{
    fs::{self, File},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::{
    outcome::finish,
    place::{Place, Running},
    tensors::assert_same_checkpoint,
};

/// A row without the values that depend on the clock.
fn lasting(row: &serde_json::Value) -> serde_json::Value {
    let mut row = row.clone();
    let is_lasting = |key: &str| ["step", "loss", "valLoss", "lr", "gradNorm", "data_hash"].contains(&key);
    row.as_object_mut().unwrap().retain(|key, _| is_lasting(key));
    row
}

#[test]
fn an_evaluation_that_is_cut_off_is_made_up_for() {
    let place = Place::with_text();
    let long: &[&str] = &["--evalInterval=3", "--evalIters=1000000"];
    for (run, steps) in [("last", "--steps=3"), ("amid", "--steps=6")] {
        place.train("whole", &[steps, "--evalInterval=3"]).succeeded();
        let mut running = Running::start(&mut place.train_command(run, &[long, &[steps]].concat()));
        running.read_lines(1);
        thread::sleep(Duration::from_millis(1500));
        let done = running.end_by("INT");
        assert_eq!(done.code, Some(130), "{}", done.stderr);
        assert!(done.stderr.contains("stopped after step 3"), "{}", done.stderr);
        assert!(place.metrics(run)[2].get("valLoss").is_none_or(serde_json::Value::is_null));
        place.resume(run, &["--evalIters=2"]).succeeded();
        let [found, expected] = [run, "whole"].map(|run| place.metrics(run).iter().map(lasting).collect::<Vec<_>>());
        assert_eq!(found, expected);
        let last = found.len();
        let folder = |run: &str| place.path(run).join(format!("checkpoint-{last}"));
        assert_same_checkpoint(&folder(run), &folder("whole"));
        assert_eq!(place.checkpoint_steps(run), place.checkpoint_steps("whole"));
    }
}

#[test]
fn a_stop_is_said_also_where_lines_cannot_be_written() {
    let place = Place::with_text();
    let mut command = place.train_command("run", &["--steps=100000", "--evalInterval=0", "--logEvery=1"]);
    command.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while !place.path("run/metrics.jsonl").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(300));
    let mut kill = place.command("sh");
    finish(kill.args(["-c", &format!("kill -INT {}", child.id())])).succeeded();
    let ended = child.wait_with_output().unwrap();
    let words = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{words}");
    assert!(words.contains("its state is in `run/checkpoint-") && words.contains("could not be written"), "{words}");
}

#[test]
fn what_is_asked_of_a_run_that_goes_on() {
    let place = Place::with_text();
    let automatic = "--warmupIters=0";
    place.train("run", &["--steps=20", automatic, "--lr=1e-3"]).succeeded();
    place.resume("run", &["--steps=40", automatic]).succeeded();
    fs::remove_dir_all(place.path("run/checkpoint-40")).unwrap();
    // The same words again mean the same.
    place.resume("run", &["--steps=40", automatic]).succeeded();
    // The message names the flag that was typed, not one that follows from it.
    let done = place.resume("run", &["--steps=50", "--lr=1e-5"]);
    done.refused(2, &["`--lr=0.00001`", "has 0.001"]);
    assert!(!done.stderr.contains("lrMin"), "{}", done.stderr);
    place.train("other", &["--lr=1e-4", "--lrMin=1e-3"]).refused(2, &["`--lrMin=0.001` is above `--lr=0.0001`"]);
}

#[test]
fn a_run_that_went_wrong_can_be_saved() {
    let place = Place::with_text();
    let flags: &[&str] = &["--lr=1e30", "--gradClip=0", "--warmupIters=-1", "--steps=6", "--evalInterval=1"];
    place.train("run", flags).refused(1, &["`--onNonfinite=skip`", "`--gradClip`", "--init"]);
    let done = place.resume("run", &["--onNonfinite=skip"]);
    assert!(!done.stderr.contains("but the run that is resumed has"), "{}", done.stderr);
    assert_eq!(place.metrics("run").len(), 6, "{}", done.stderr);
}

#[test]
fn the_trace_of_the_first_part_is_kept() {
    let place = Place::with_text();
    place.train("run", &["--steps=4", "--trace=true"]).succeeded();
    let first = fs::read(place.path("run/kernels.json")).unwrap();
    let done = place.resume("run", &["--steps=6"]).succeeded();
    assert!(done.stderr.contains("`kernels-to-4.json`"), "{}", done.stderr);
    assert_eq!(fs::read(place.path("run/kernels-to-4.json")).unwrap(), first);
    assert!(place.path("run/trace-to-4.json").exists() && place.path("run/trace.json").exists());
    // Going another way from there does not take the kept trace for that of the steps that are run again.
    place.alpha(&["train", "--resume=run/checkpoint-4", "--steps=5"]).succeeded();
    assert_eq!(fs::read(place.path("run/kernels-to-4.json")).unwrap(), first);
}

#[test]
fn what_is_read_of_a_prompt_and_of_data_is_said_once() {
    let place = Place::with_text();
    let prompt = "--samplePrompts=the cat and the dog and the bird";
    let done = place.train("run", &["--steps=4", "--sampleInterval=2", prompt]).succeeded();
    assert_eq!(done.stderr.matches("it sees only the last of them").count(), 1, "{}", done.stderr);
    let done =
        place.train("packed", &["--packed=true", "--steps=1", "--evalInterval=1", "--evalIters=9000"]).succeeded();
    assert!(done.stderr.contains("which is all of it, repeatedly"), "{}", done.stderr);
}

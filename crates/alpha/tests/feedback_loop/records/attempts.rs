//! Every attempt counts, and so does every pair: crashes, kills, lost records, new commits and other working trees do not
//! reduce the count.

use std::fs;

use serde_json::Value;

use crate::{
    changes::{FASTER, RENAMED, SLOWER},
    interruption::{Moment, toy_that_signals},
    outcome::finish,
    toy::{Toy, files},
};

/// With all the time that a busy machine may need.
const COMPARE: [&str; 2] = ["compare", "--budget=30m"];

/// The state of the only attempt.
fn state(toy: &Toy) -> Value {
    serde_json::from_str(&fs::read_to_string(state_path(toy)).unwrap()).unwrap()
}

fn state_path(toy: &Toy) -> std::path::PathBuf {
    let folder = toy.path(".git/alpha-loop/attempts");
    let found: Vec<_> =
        files(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn attempts(toy: &Toy) -> f64 {
    toy.json(&["status"]).number("attempts")
}

/// Has the candidate's trainer crash at the end of these of its runs.
fn crash_in(toy: &Toy, runs: &str) {
    toy.without_walls();
    let place = "    if is_traced:\n        write_kernels";
    let crash = format!(
        "    with open(\"{}\", \"a+\") as file:\n        file.write(\"x\")\n        file.flush()\n        file.seek(0)\n        \
         if len(file.read()) in {runs}:\n            raise SystemExit(3)\n",
        toy.outside("own-runs").display()
    );
    toy.edit(place, &format!("{crash}{place}"));
}

/// A pair that ended early counts against the candidate: its trainer may have ended it because it looked bad.
#[test]
fn a_trainer_that_crashes_at_the_end_of_a_pair_does_not_gain() {
    let toy = Toy::new();
    toy.begin();
    toy.change(FASTER);
    crash_in(&toy, "[2]");
    let crashed = toy.alpha(&COMPARE);
    assert_eq!(crashed.code, Some(1), "{}", crashed.stderr);
    assert!(crashed.stderr.contains("the candidate failed"), "{}", crashed.stderr);
    let kept = state(&toy);
    assert_eq!(kept["pairs"].as_array().unwrap().len(), 2, "{kept:#}");
    assert!(kept["bookkeeping"]["lost"][0]["why"].as_str().unwrap().contains("failed"), "{kept:#}");
    // A gain of two thirds is shown in spite of it, by more pairs than the ten that it needs without.
    let compared = toy.json(&COMPARE).says("FASTER", 0);
    assert_eq!(compared.number("lost"), 1.0, "{:#}", compared.object);
    assert!(compared.number("pairs") > 10.0, "{:#}", compared.object);
    assert_eq!(attempts(&toy), 1.0);
}

#[test]
fn a_trainer_that_crashes_again_and_again_is_refused() {
    let toy = Toy::new();
    toy.begin();
    toy.change(FASTER);
    crash_in(&toy, "[2, 4, 6]");
    assert_eq!([toy.alpha(&COMPARE).code, toy.alpha(&COMPARE).code], [Some(1), Some(1)]);
    toy.json(&COMPARE).is_refused_for(&["spoiled by the candidate"]);
}

#[test]
fn a_loop_that_is_killed_leaves_a_pair_that_has_begun() {
    let toy = toy_that_signals("SIGKILL", 1 + 2 * 3 + 1, Moment::Turn);
    toy.change(RENAMED);
    assert_eq!(toy.alpha(&COMPARE).code, None);
    let kept = state(&toy);
    assert_eq!(kept["bookkeeping"]["begun"]["number"], 3, "{kept:#}");
    assert_eq!((kept["pairs"].as_array().unwrap().len(), attempts(&toy)), (3, 1.0));
    // The record has the attempt that was given up.
    toy.alpha(&["drop", "it was killed"]).succeeded();
    let history = toy.json(&["history"]);
    assert_eq!(history.object["attempts"][0]["pairs"], 4, "{:#}", history.object);
}

#[test]
fn neither_cleaning_nor_a_commit_resets_the_count_and_everybody_sees_it() {
    let toy = Toy::new();
    toy.begin();
    toy.change(SLOWER);
    toy.json(&COMPARE).says("SLOWER", 4);
    toy.alpha(&["drop"]).succeeded();
    toy.restore();
    toy.git(&["clean", "-fdxq"]);
    assert!(!toy.path("perf/ledger").exists());
    let text = toy.read("src/trainer.py");
    toy.write("src/trainer.py", &format!("# a comment\n{text}"));
    toy.commit("a comment");
    assert_eq!(attempts(&toy), 1.0);

    let status_in = |folder: &std::path::Path| -> Value {
        let mut command = toy.alpha_command(&["status", "--json"]);
        let done = finish(command.current_dir(folder));
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stderr))
    };
    let linked = toy.outside("linked");
    toy.git(&["worktree", "add", "-q", "--detach", &linked.to_string_lossy()]);
    assert_eq!(status_in(&linked)["attempts"], 1);

    // Push and fetch carry it.
    let (hub, other) = (toy.outside("hub"), toy.outside("other"));
    toy.git(&["clone", "-q", "--bare", ".", &hub.to_string_lossy()]);
    toy.git(&["remote", "add", "hub", &hub.to_string_lossy()]);
    toy.git(&["push", "-q", "hub", "refs/alpha-loop/attempts"]);
    toy.git(&["clone", "-q", &hub.to_string_lossy(), &other.to_string_lossy()]);
    let in_other = other.to_string_lossy().into_owned();
    assert_eq!(status_in(&other)["attempts"], 0);
    toy.git(&[
        "-C",
        &in_other,
        "fetch",
        "-q",
        "origin",
        "+refs/alpha-loop/attempts:refs/alpha-loop/remotes/origin/attempts",
    ]);
    assert_eq!(status_in(&other)["attempts"], 1);
}

/// A state that is deleted is another attempt, and a reference that is deleted is missed.
#[test]
fn what_is_deleted_is_missed() {
    let toy = Toy::new();
    toy.begin();
    toy.change(SLOWER);
    toy.json(&COMPARE).says("SLOWER", 4);
    fs::remove_file(state_path(&toy)).unwrap();
    fs::remove_dir_all(toy.path("perf/ledger")).unwrap();
    toy.json(&COMPARE).says("SLOWER", 4);
    assert_eq!(attempts(&toy), 2.0);
    toy.git(&["update-ref", "-d", "refs/alpha-loop/attempts"]);
    fs::remove_dir_all(toy.path(".git/alpha-loop/counted")).unwrap();
    // The record knows.
    assert_eq!(attempts(&toy), 2.0);
}

/// Whether the record fits or not.
#[test]
fn an_attempt_whose_record_cannot_be_written_is_counted() {
    let toy = Toy::new();
    toy.begin();
    let path = toy.path(".git/alpha-loop/cycle.json");
    let mut cycle: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    cycle["hypothesis"] = "x".repeat(60_000).into();
    fs::write(&path, cycle.to_string()).unwrap();
    toy.change(SLOWER);
    let done = toy.alpha(&COMPARE);
    assert!(matches!(done.code, Some(1 | 4)), "{}", done.stderr);
    assert_eq!(attempts(&toy), 1.0);
}

#[test]
fn an_attempt_with_absurd_numbers_is_refused_by_name() {
    let toy = toy_that_signals("SIGINT", 1 + 2 * 2 + 1, Moment::Turn);
    toy.change(RENAMED);
    assert_eq!(toy.alpha(&COMPARE).code, Some(130));
    let sound = state(&toy);
    for (pointer, value, named) in [
        ("/plan/pairs", Value::from(1_000_000_000_000_000_000_u64), "1000000000000000000 pairs"),
        ("/plan/blocks/blocks", Value::from(u64::MAX), "do not fit"),
        ("/plan/blocks/steps", Value::from(61), "its plan is of 61 steps"),
        ("/epsilon_pct", Value::from(-1.0), "smallest gain"),
    ] {
        let mut absurd = sound.clone();
        *absurd.pointer_mut(pointer).unwrap() = value;
        fs::write(state_path(&toy), absurd.to_string()).unwrap();
        let refused = toy.alpha(&COMPARE);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(refused.stderr.contains(named) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
}

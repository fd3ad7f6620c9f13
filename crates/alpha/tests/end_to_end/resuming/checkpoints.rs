//! The run folder: its lock, an earlier run in it, and the checkpoints that stay.

use std::fs;

use crate::place::{Place, Running, words};

/// Names of the folders that earlier runs in `run` were moved to.
fn set_aside(place: &Place) -> Vec<String> {
    place.names(".").into_iter().filter(|name| name.starts_with("run.old-")).collect()
}

#[test]
fn an_earlier_run_is_set_aside_whole() {
    let place = Place::with_text();
    place.train("run", &["--steps=3", "--seed=1"]).succeeded();
    place.write("run/notes.txt", "mine");
    let mut first = place.tree("run");
    let done = place.train("run", &["--steps=2", "--seed=2"]).succeeded();
    let old = set_aside(&place);
    assert_eq!(old.len(), 1, "{old:?}");
    assert!(done.stderr.contains(&old[0]), "{}", done.stderr);
    // Files that are not a run's stay where they are, and so does the lock.
    assert_eq!(fs::read(place.path("run/notes.txt")).unwrap(), b"mine");
    first.retain(|path, _| !path.ends_with("notes.txt") && !path.ends_with(".lock"));
    assert!(place.tree(&old[0]) == first);
    assert_eq!(place.column("run", "step"), [1.0, 2.0]);
    // The newest is kept.
    let second = place.weights("run", 2);
    place.train("run", &["--steps=1", "--seed=3"]).succeeded();
    let old = set_aside(&place);
    assert_eq!(old.len(), 1, "{old:?}");
    assert!(place.weights(&old[0], 2) == second);
}

#[test]
fn a_folder_in_use_is_refused() {
    let place = Place::with_text();
    let mut run = Running::start(&mut place.train_command("run", &["--steps=1000000", "--evalInterval=3"]));
    run.read_lines(4);
    let pid = run.pid().to_string();
    place.train("run", &["--steps=2"]).refused(1, &["in use", &pid, "--runDir"]);
    place.resume("run", &[]).refused(1, &["in use", &pid]);
    assert!(set_aside(&place).is_empty());
    run.kill();
    // The lock died with the process.
    place.train("run", &["--steps=2"]).succeeded();
    assert_eq!(set_aside(&place).len(), 1);
}

#[test]
fn the_newest_and_the_best_checkpoint_stay() {
    let place = Place::with_text();
    // The letters of the text backwards: learning one order is unlearning the other.
    let text: String = words(1200);
    place.write("backwards.txt", text.chars().rev().collect::<String>());
    let flags = ["--valData=backwards.txt", "--steps=40", "--evalInterval=5", "--keepCheckpoints=2", "--evalIters=8"];
    place.train("run", &flags).succeeded();
    let rows = place.metrics("run");
    let evaluated = rows.iter().filter_map(|row| Some((row["valLoss"].as_f64()?, row["step"].as_u64()?)));
    let best = evaluated.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    assert!(best < 35, "the last is the best: this test says nothing");
    assert_eq!(place.checkpoint_steps("run"), [best, 35, 40]);
}

#[test]
fn without_evaluations_the_last_step_is_saved() {
    let place = Place::with_text();
    place.train("run", &["--steps=7", "--evalInterval=0"]).succeeded();
    assert_eq!(place.checkpoint_steps("run"), [7]);
    assert!(place.metrics("run").iter().all(|row| row.get("valLoss").is_none()));
    place.train("off", &["--steps=7", "--evalInterval=3"]).succeeded();
    assert_eq!(place.checkpoint_steps("off"), [3, 6, 7]);
    assert!(place.metrics("off")[6].get("valLoss").is_none(), "an evaluation only where the interval says");
}

/// The contract's layout, file by file.
#[test]
fn a_checkpoint_is_a_hugging_face_folder() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    let files = ["config.json", "model.safetensors", "tokenizer.json", "training_state.safetensors"];
    assert_eq!(place.names("run/checkpoint-2"), files);
    let config = place.json("run/checkpoint-2/config.json");
    assert_eq!(
        (&config["model_type"], &config["n_embd"], &config["n_positions"]),
        (&"gpt2".into(), &32.into(), &16.into())
    );
    let weights = crate::tensors::Tensors::read(&place.path("run/checkpoint-2/model.safetensors"));
    assert!(weights.tensors.iter().all(|(name, ..)| name.starts_with("transformer.")));
}

//! The toy trainer itself: it learns, repeats itself, and speaks the turn protocol as `docs/turns.md` has it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::{outcome::finish, toy::Toy};

const STEPS: usize = 60;

/// A toy whose trainer is built.
fn built() -> Toy {
    let toy = Toy::untested();
    finish(&mut toy.command("./build.sh")).succeeded();
    toy
}

fn train(toy: &Toy, flags: &[&str]) -> Vec<Value> {
    finish(toy.command("./out/trainer").arg("--steps=60").args(flags)).succeeded();
    rows(toy)
}

fn rows(toy: &Toy) -> Vec<Value> {
    toy.read("run/metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A row without the times in it.
fn timeless(mut row: Value) -> Value {
    row.as_object_mut().unwrap().remove("ms_per_iter").unwrap();
    row
}

#[test]
fn it_learns_and_repeats_itself() {
    let toy = built();
    let first = train(&toy, &["--seed=5"]);
    let steps: Vec<u64> = first.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=STEPS as u64).collect::<Vec<_>>());
    let mean = |rows: &[Value]| rows.iter().map(|row| row["loss"].as_f64().unwrap()).sum::<f64>() / rows.len() as f64;
    // A model that knows nothing has ln 16 = 2.77; one that knows the frequencies of the characters has 2.5.
    assert!(mean(&first[..5]) > 2.6 && mean(&first[50..]) < 2.5, "{} {}", mean(&first[..5]), mean(&first[50..]));
    let again: Vec<Value> = train(&toy, &["--seed=5"]).into_iter().map(timeless).collect();
    let first: Vec<Value> = first.into_iter().map(timeless).collect();
    assert_eq!(first, again);
    // Drawing text while it trains changes nothing either.
    let drawing: Vec<Value> = train(&toy, &["--seed=5", "--sampleInterval=10"]).into_iter().map(timeless).collect();
    assert_eq!(first, drawing);
    let other: Vec<Value> = train(&toy, &["--seed=6"]).into_iter().map(timeless).collect();
    assert!(first.iter().zip(&other).all(|(a, b)| a["loss"] != b["loss"] && a["data_hash"] != b["data_hash"]));
}

#[test]
fn its_trace_holds_every_kernel() {
    let toy = built();
    let rows = train(&toy, &["--trace"]);
    for phase in ["timing_fwd_ms", "timing_bwd_ms", "timing_optim_ms"] {
        assert!(rows.iter().all(|row| row[phase].as_f64().unwrap() > 0.0), "{phase}");
    }
    let kernels: Value = serde_json::from_str(&toy.read("run/kernels.json")).unwrap();
    assert_eq!(kernels["steps"], STEPS);
    let kernels = kernels["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), rows[0]["kernels"].as_u64().unwrap() as usize);
    assert!(kernels.iter().all(|kernel| kernel["calls"] == STEPS && kernel["time_ms"].as_f64().unwrap() > 0.0));
}

#[test]
fn its_weights_can_be_sampled_and_evaluated() {
    let toy = built();
    train(&toy, &[]);
    let run = |arguments: &[&str]| -> Value {
        let done = finish(toy.command("./out/trainer").args(arguments)).succeeded();
        serde_json::from_str(&done.stdout).unwrap()
    };
    let last = "--eval=run/checkpoint-60";
    let loss = run(&[last])["loss"].as_f64().unwrap();
    assert!((1.5..2.5).contains(&loss), "{loss}");
    let weights = "--sample=run/checkpoint-60";
    let greedy = run(&[weights, "--temperature=0"]);
    let drawn = run(&[weights, "--seed=7"]);
    for sample in [&greedy, &drawn] {
        let tokens = sample["tokens"].as_array().unwrap();
        assert_eq!((tokens.len(), sample["margins"].as_array().unwrap().len()), (64, 64));
        assert_eq!(sample["text"].as_str().unwrap().len(), 64);
        assert!(tokens.iter().any(|token| *token != tokens[0]), "one token for ever: {sample}");
        assert!(sample["margins"].as_array().unwrap().iter().all(|margin| margin.as_f64().unwrap() >= 0.0));
    }
    assert_eq!(drawn, run(&[weights, "--seed=7"]));
    assert_ne!(drawn["text"], run(&[weights, "--seed=8"])["text"]);
}

/// The loop's side of the protocol.
struct Conversation {
    trainer: Child,
    answers: BufReader<UnixStream>,
}

impl Conversation {
    fn with(toy: &Toy) -> Conversation {
        let socket = toy.outside("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = toy.command("./out/trainer");
        let trainer = command.arg("--steps=60").env("ALPHA_TURNS", &socket).stderr(Stdio::null()).spawn().unwrap();
        let answers = BufReader::new(listener.accept().unwrap().0);
        let mut conversation = Conversation { trainer, answers };
        assert_eq!(conversation.answer(), "hello 1");
        conversation
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.answers.get_mut(), "{line}").unwrap();
        self.answer()
    }
}

#[test]
fn turns_change_no_bit() {
    let toy = built();
    let plain: Vec<Value> = train(&toy, &[]).into_iter().map(timeless).collect();
    let weights = std::fs::read(toy.path("run/checkpoint-60/model.safetensors")).unwrap();
    std::fs::remove_dir_all(toy.path("run")).unwrap();
    let mut turns = Conversation::with(&toy);
    assert_eq!(turns.ask("save"), "saved");
    assert_eq!(turns.ask("go 1"), "done 1");
    assert_eq!(turns.ask("save"), "saved");
    assert_eq!(turns.ask("go 24"), "done 25");
    assert_eq!(rows(&toy).len(), 25, "rows are there when `done` is said");
    assert_eq!(turns.ask("go 100"), "done 60");
    assert!(turns.trainer.wait().unwrap().success());
    assert_eq!(rows(&toy).into_iter().map(timeless).collect::<Vec<_>>(), plain);
    let saved = |step: usize| std::fs::read(toy.path(&format!("run/checkpoint-{step}/model.safetensors"))).unwrap();
    assert!(saved(60) == weights);
    assert!(saved(0) != saved(1) && saved(0).len() == saved(60).len());
}

#[test]
fn it_ends_when_the_loop_is_gone() {
    let toy = built();
    let mut turns = Conversation::with(&toy);
    assert_eq!(turns.ask("go 5"), "done 5");
    let Conversation { mut trainer, answers } = turns;
    drop(answers);
    assert_eq!(trainer.wait().unwrap().code(), Some(1));
}

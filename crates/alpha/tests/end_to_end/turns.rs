//! `alpha train` in turns (`docs/turns.md`): a test plays the loop.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
};

use serde_json::Value;

use crate::{
    outcome::{Done, finish},
    place::{Place, Running},
    tensors::assert_same_checkpoint,
};

/// The loop's side of a run.
struct Loop {
    run: Running,
    lines: BufReader<UnixStream>,
}

impl Loop {
    /// Starts a run and waits until it is ready for its first step.
    fn start(place: &Place, run: &str, flags: &[&str]) -> Loop {
        let dir = tempfile::tempdir().unwrap(); // not in the place, whose path may be too long for a socket
        let path = dir.path().join("turns");
        let listener = UnixListener::bind(&path).unwrap();
        let run = Running::start(place.train_command(run, flags).env("ALPHA_TURNS", &path));
        let mut this = Loop { run, lines: BufReader::new(listener.accept().unwrap().0) };
        assert_eq!(this.hear(), "hello 1");
        this
    }

    /// Sends a line and waits for the answer.
    fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.lines.get_mut(), "{line}").unwrap();
    }

    /// The next line of the trainer; empty at the end.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.is_empty() || line.ends_with('\n'), "a torn line: {line:?}");
        line.trim_end_matches('\n').to_owned()
    }

    /// Waits for the end of the run, which sends nothing more.
    fn end(mut self) -> Done {
        let done = self.run.end();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        done
    }
}

/// The values of every step that training decides.
fn trajectory(place: &Place, run: &str) -> Vec<[Option<Value>; 7]> {
    let keys = ["step", "loss", "valLoss", "gradNorm", "lr", "clip_coef", "data_hash"];
    place.metrics(run).iter().map(|row| keys.map(|key| row.get(key).cloned())).collect()
}

const STEPS: u64 = 20;
const FLAGS: &[&str] = &["--steps=20", "--evalInterval=5", "--dropout=0.1", "--accumSteps=2", "--sampleInterval=6"];

#[test]
fn turns_change_no_bit() {
    let place = Place::with_text();
    place.train("whole", FLAGS).succeeded();
    let mut run = Loop::start(&place, "run", FLAGS);
    assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap(), b"", "not a step before the first turn");
    for (steps, done) in [(1, 1), (7, 8), (2, 10), (100, STEPS)] {
        assert_eq!(run.ask(&format!("go {steps}")), format!("done {done}"));
        assert_eq!(place.metrics("run").len() as u64, done, "rows are there when the answer is");
    }
    run.end().succeeded();
    assert_eq!(trajectory(&place, "run"), trajectory(&place, "whole"));
    assert_same_checkpoint(&place.path("run/checkpoint-20"), &place.path("whole/checkpoint-20"));
    assert!(place.column("run", "allocations")[2..].iter().all(|&count| count == 0.0));
}

#[test]
fn saves_are_the_weights_of_their_step() {
    let place = Place::with_text();
    let mut run = Loop::start(&place, "run", &["--steps=3", "--evalInterval=1"]);
    for (order, answer) in
        [("save", "saved"), ("go 1", "done 1"), ("save", "saved"), ("save", "saved"), ("go 1", "done 2")]
    {
        assert_eq!(run.ask(order), answer);
    }
    assert_eq!(run.ask("save"), "saved");
    assert_eq!(run.ask("go 1"), "done 3");
    run.end().succeeded();
    let saved = |step: u64| fs::read(place.path(&format!("run/weights-{step}.safetensors"))).unwrap();
    assert!(saved(1) == place.weights("run", 1));
    assert!(saved(2) == place.weights("run", 2));
    assert!(saved(1) != saved(2));
    // The initial weights are those of a run that applies no update.
    place.train("still", &["--steps=1", "--spikeThreshold=1e-9"]).succeeded();
    assert!(saved(0) == place.weights("still", 1));
    // They are not checkpoints, and go where their run goes.
    let weights = ["weights-0.safetensors", "weights-1.safetensors", "weights-2.safetensors"];
    let expected: Vec<&str> =
        [&[".lock", "checkpoint-1", "checkpoint-2", "checkpoint-3", "config.json", "metrics.jsonl"][..], &weights]
            .concat();
    assert_eq!(place.names("run"), expected);
    assert!(place.resume("run", &[]).succeeded().stderr.contains("nothing to do"));
    place.train("run", &["--steps=1"]).succeeded();
    assert_eq!(place.names("run"), [".lock", "checkpoint-1", "config.json", "metrics.jsonl"]);
}

#[test]
fn a_resumed_run_counts_from_its_beginning() {
    let place = Place::with_text();
    place.train("run", &[FLAGS, &["--keepCheckpoints=9"]].concat()).succeeded();
    let (whole, weights) = (trajectory(&place, "run"), place.weights("run", STEPS));
    let mut run = Loop::start(&place, "run", &[FLAGS, &["--resume=run/checkpoint-10"]].concat());
    assert_eq!(run.ask("go 4"), "done 14");
    assert_eq!(run.ask("go 6"), "done 20");
    run.end().succeeded();
    assert_eq!(trajectory(&place, "run"), whole);
    assert!(place.weights("run", STEPS) == weights);
}

/// A loop that stops the process group between turns finds it unchanged.
#[test]
fn a_frozen_run_goes_on() {
    let place = Place::with_text();
    place.train("whole", FLAGS).succeeded();
    let mut run = Loop::start(&place, "run", FLAGS);
    for turn in 1..=4 {
        run.run.signal("STOP");
        run.tell("go 5");
        run.run.signal("CONT");
        assert_eq!(run.hear(), format!("done {}", 5 * turn));
    }
    run.end().succeeded();
    assert_same_checkpoint(&place.path("run/checkpoint-20"), &place.path("whole/checkpoint-20"));
}

#[test]
fn a_loop_that_is_gone_ends_the_run() {
    let place = Place::with_text();
    let Loop { run, lines } = Loop::start(&place, "early", FLAGS);
    drop(lines);
    run.end().refused(1, &["ALPHA_TURNS", "gone", "step 0"]);
    assert!(place.checkpoint_steps("early").is_empty());
    let mut run = Loop::start(&place, "run", FLAGS);
    assert_eq!(run.ask("go 7"), "done 7");
    let Loop { run, lines } = run;
    drop(lines);
    run.end().refused(1, &["ALPHA_TURNS", "gone", "step 7"]);
    assert_eq!(place.column("run", "step").len(), 7);
    assert_eq!(place.checkpoint_steps("run"), [5], "nothing is saved that was not due");
}

#[test]
fn a_line_that_is_none_ends_the_run() {
    let place = Place::with_text();
    for line in ["stop", "go 0", "go ten"] {
        let mut run = Loop::start(&place, "run", FLAGS);
        let answer = run.ask(line);
        assert!(answer.starts_with("failed ") && answer.contains(line), "{answer}");
        run.end().refused(1, &[line, "`go N` or `save`", "docs/turns.md"]);
    }
}

#[test]
fn a_turn_that_fails_says_why() {
    let place = Place::with_text();
    let mut run = Loop::start(&place, "run", &["--lr=1e30", "--gradClip=0", "--warmupIters=-1", "--steps=20"]);
    let answer = run.ask("go 20");
    let step = place.metrics("run").len();
    assert!(answer.starts_with(&format!("failed step {step} is not finite")), "{answer}");
    run.end().refused(1, &["first tensor"]);
}

#[test]
fn without_a_loop_to_connect_to_it_does_not_begin() {
    let place = Place::with_text();
    let done = finish(place.train_command("run", FLAGS).env("ALPHA_TURNS", "nowhere"));
    done.refused(1, &["ALPHA_TURNS", "nowhere"]);
    assert_eq!(fs::read(place.path("run/metrics.jsonl")).unwrap(), b"");
    assert!(place.checkpoint_steps("run").is_empty());
    finish(place.train_command("run", &["--steps=2"]).env("ALPHA_TURNS", "")).succeeded();
    // Other commands do not run in turns.
    let mut eval = place.command(env!("CARGO_BIN_EXE_alpha"));
    eval.args(["eval", "--checkpoint=run/checkpoint-2", "--data=text.txt"]).env("ALPHA_TURNS", "nowhere");
    finish(&mut eval).succeeded();
}

#[test]
fn signals_end_the_waiting_and_save() {
    let place = Place::with_text();
    let flags = ["--steps=12", "--dropout=0.1", "--evalInterval=0"];
    place.train("whole", &flags).succeeded();
    for (signal, code, steps) in [("TERM", 143, 0), ("INT", 130, 5)] {
        let mut run = Loop::start(&place, "run", &flags);
        if steps > 0 {
            assert_eq!(run.ask(&format!("go {steps}")), format!("done {steps}"));
        }
        run.run.signal(signal);
        run.end().refused(code, &[&format!("checkpoint-{steps}"), "--resume=auto"]);
        assert_eq!(place.checkpoint_steps("run"), [steps]);
        place.resume("run", &[]).succeeded();
        assert_eq!(trajectory(&place, "run"), trajectory(&place, "whole"));
        assert_same_checkpoint(&place.path("run/checkpoint-12"), &place.path("whole/checkpoint-12"));
    }
}

#[test]
fn a_signal_within_a_turn_ends_that() {
    let place = Place::with_text();
    let mut run = Loop::start(&place, "run", &["--steps=1000000", "--evalInterval=0"]);
    run.tell("go 1000000");
    run.run.read_lines(3);
    run.run.signal("TERM");
    let answer = run.hear();
    let step: u64 = answer.strip_prefix("failed asked to stop after step ").unwrap().parse().unwrap();
    run.end().refused(143, &["--resume=auto"]);
    assert_eq!(place.checkpoint_steps("run"), [step]);
}

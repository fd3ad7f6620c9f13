//! Ways to look faster without being faster. Each is done here, and either has no effect or is refused by its name.

use std::fs;

use crate::{
    changes::{Edits, FASTER, RENAMED},
    outcome::finish,
    toy::{Answer, Toy},
};

/// Compares with a change that gains nothing but its trick.
#[track_caller]
fn compare_with(edits: Edits) -> Answer {
    let toy = Toy::new();
    toy.begin();
    toy.change(edits);
    toy.json(&["compare"])
}

/// Checks that a trick gained nothing.
#[track_caller]
fn has_no_effect(answer: &Answer) {
    assert!(matches!(answer.code, Some(4 | 5)), "{:#}\n{}", answer.object, answer.stderr);
    let verdict = answer.text("verdict");
    assert!(["SAME", "SLOWER", "UNDECIDED", "REFUSED"].contains(&verdict), "{:#}", answer.object);
}

/// Starts a process that burns processor time for ever.
#[track_caller]
fn start_burner(toy: &Toy, leave_the_group: &[&str]) {
    toy.edit_start(&[&["if os.fork() == 0:"], leave_the_group, &["    while True: pass"]].concat());
}

#[test]
fn patched_timers_have_no_effect() {
    let patch = [(
        "from time import perf_counter",
        "import time\n\ntime.perf_counter = time.time = time.monotonic = lambda: 0.0\nfrom time import perf_counter",
    )];
    let compared = compare_with(&patch);
    compared.says("SAME", 4);
}

#[test]
fn less_work_is_refused() {
    let toy = Toy::new();
    toy.begin();
    let tricks: &[(Edits, &[&str])] = &[
        // Fewer tokens, each in another way.
        (&[("BATCH = 2", "BATCH = 1")], &["tokens"]),
        (
            &[("s.read(loader.batch(batch))", "s.read([window[:5] for window in loader.batch(batch)])")],
            &["loss", "grad_norm"],
        ),
        // A layer less.
        (&[("    s.mixed = plus(s.x, mixed)", "    s.mixed = s.x")], &["loss", "grad_norm"]),
        // Every second step is the one before it again.
        (
            &[("        for phase, kernel in STEP:\n", "        for phase, kernel in STEP if step % 2 else ():\n")],
            &["loss", "grad_norm", "tokens", "updates"],
        ),
    ];
    for (edits, causes) in tricks {
        toy.refuses(edits, causes);
    }
}

#[test]
fn other_training_is_refused() {
    let toy = Toy::new();
    toy.begin();
    let tricks: &[(Edits, &[&str])] = &[
        (&[("int(flags.get(\"seed\", 1)), int(flags.get(\"batch\"", "7, int(flags.get(\"batch\"")], &["tokens"]),
        (&[("Loader(read_tokens()[0], seed", "Loader(read_tokens()[0][:100], seed")], &["tokens"]),
        (&[("State(initial(seed))", "State(initial(seed + 1))")], &["loss_1_5", "updates"]),
        (&[("LR, WARMUP = 0.03, 4", "LR, WARMUP = 0.03, 1")], &["loss_1_5", "updates"]),
    ];
    for (edits, causes) in tricks {
        toy.refuses(edits, causes);
    }
}

/// A trainer that finds traces of an earlier run does nothing; each leaves traces wherever it can.
#[test]
fn what_an_earlier_run_left_has_no_effect() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&[
        "places = [os.environ.get(name, \".\") for name in (\"HOME\", \"TMPDIR\")] + [\".\", \"run\", \"out\", \"data\"]",
        "if any(os.path.exists(f\"{place}/left\") for place in places):",
        "    WORK.clear()",
        "for place in places:",
        "    try:",
        "        open(f\"{place}/left\", \"w\").close()",
        "    except OSError:",
        "        pass",
    ]);
    toy.json(&["compare"]).says("SAME", 4);
}

/// It is stopped with its group, so it gains nothing; it ends with its trainer.
#[test]
fn a_child_gains_nothing() {
    let toy = Toy::new();
    toy.begin();
    start_burner(&toy, &[]);
    has_no_effect(&toy.json(&["compare"]));
    assert_eq!(toy.processes(), Vec::<String>::new());
}

/// A process that left its group is stopped all the same where walls or a control group hold it; elsewhere it is found.
#[track_caller]
fn is_held_or_refused(compared: &crate::toy::Answer) {
    let isolation = pairbench::process::isolation::Isolation::detect(&[], &[]);
    if isolation.has_walls() || isolation.protection().cgroup {
        has_no_effect(compared);
    } else {
        compared.is_refused_for(&["other_turn"]);
    }
}

#[test]
fn a_process_that_leaves_the_group_gains_nothing() {
    for door in [&["    os.setsid()"][..], &["    os.setsid()", "    if os.fork(): os._exit(0)"]] {
        let toy = Toy::new();
        toy.begin();
        start_burner(&toy, door);
        is_held_or_refused(&toy.json(&["compare"]));
        assert_eq!(toy.processes(), Vec::<String>::new());
    }
}

/// Started late, in the first turn, after the check for such processes.
#[test]
fn a_process_that_starts_in_a_turn_and_leaves_gains_nothing() {
    let toy = Toy::new();
    toy.begin();
    toy.edit(
        "        started = perf_counter()\n",
        "        if step == 3 and os.fork() == 0:\n            os.setsid()\n            while True: pass\n        started = perf_counter()\n",
    );
    is_held_or_refused(&toy.json(&["compare"]));
    assert_eq!(toy.processes(), Vec::<String>::new());
}

/// Work that is put off until after `done` runs in neither arm's turn.
#[test]
fn a_thread_that_works_after_done_gains_nothing() {
    let toy = Toy::new();
    toy.begin();
    toy.change(&[
        ("\"attention\": 40_000", "\"attention\": 0"),
        ("\"attention_backward\": 40_000", "\"attention_backward\": 0"),
        ("    metrics, turns = Metrics(), Turns()\n", "    metrics, turns = Metrics(), Turns()\n    import threading\n"),
        (
            "        turns.after_step(step == steps)\n",
            "        turns.after_step(step == steps)\n        for late in [threading.Thread(target=spin, args=(80_000,))]:\n            late.start()\n",
        ),
    ]);
    has_no_effect(&toy.json(&["compare"]));
}

/// The steady steps are faster, the runs are not.
#[test]
fn work_moved_to_the_start_is_refused() {
    let toy = Toy::new();
    toy.begin();
    toy.change(FASTER);
    toy.edit_start(&["spin(90 * 80_000)"]);
    toy.json(&["compare"]).is_refused_for(&["moved_work"]);
}

#[test]
fn files_of_the_instrument_are_sealed() {
    let toy = Toy::new();
    toy.count_runs();
    toy.commit("every run leaves a mark");
    toy.begin();
    let changes: &[(&str, &str, &str)] = &[
        ("loop.toml", "epsilon_pct = 30", "epsilon_pct = 1"),
        ("loop.toml", "steps = 60", "steps = 50"),
        ("src/instrument.py", "self.random.below(len(self.tokens) - self.block)", "0"),
        ("data/text.txt", "the man ", "the hen "),
    ];
    for (name, from, to) in changes {
        toy.restore();
        toy.change(FASTER);
        let text = toy.read(name);
        toy.write(name, &text.replacen(from, to, 1));
        assert_ne!(toy.read(name), text);
        let compared = toy.json(&["compare"]);
        compared.is_refused_for(&["instrument"]);
        assert!(compared.text("reason").contains(name), "{:#}", compared.object);
    }
    assert_eq!(toy.runs(), 0, "what is refused for what it is needs no run");
    // A change that was refused because of another is judged by itself without it.
    toy.restore();
    toy.change(FASTER);
    toy.json(&["compare"]).says("FASTER", 0);
    // By itself a change of the instrument is a commit of another kind, which claims nothing.
    toy.restore();
    toy.edit_file("loop.toml", "epsilon_pct = 30", "epsilon_pct = 14");
    toy.alpha(&["commit", "-m", "a finer epsilon"]).failed(4, &[]);
    toy.alpha(&["commit", "--instrument", "-m", "a finer epsilon"]).failed(4, &["epsilon_pct", "--weakens"]);
    let landed = toy.json(&["commit", "--instrument", "--weakens=small gains count", "-m", "a finer epsilon"]);
    assert_eq!(landed.code, Some(0), "{}", landed.stderr);
    let subject = toy.git(&["log", "-1", "--format=%s"]);
    assert!(subject.contains("a finer epsilon") && !subject.contains('%'), "{subject}");
}

#[test]
fn asking_again_gets_the_same_answer() {
    let toy = Toy::new();
    toy.count_runs();
    toy.commit("every run leaves a mark");
    toy.begin();
    toy.change(RENAMED);
    let first = toy.json(&["compare"]).says("SAME", 4);
    let runs = toy.runs();
    assert!(runs >= 16, "{runs}");
    let second = toy.json(&["compare"]).says("SAME", 4);
    for key in ["speedup_pct", "ci_low_pct", "ci_high_pct", "pairs", "record"] {
        assert_eq!(first.object[key], second.object[key], "{key}");
    }
    // Another tree that builds the same program is not another attempt.
    toy.edit("# Forward. `s` holds what a step computes.", "# Forward.");
    let third = toy.json(&["compare"]).says("SAME", 4);
    assert_eq!(first.object["speedup_pct"], third.object["speedup_pct"]);
    // Nor does a new cycle make one.
    toy.alpha(&["drop"]).succeeded();
    toy.begin();
    toy.json(&["compare"]).says("SAME", 4);
    assert_eq!(toy.runs(), runs, "nothing ran again");
}

/// A confirmation that failed cannot be tried again either: the candidate is fast until it is to be confirmed.
#[test]
fn a_gain_that_does_not_last_is_not_confirmed() {
    let toy = Toy::new();
    toy.without_walls();
    let slow = toy.outside("slow");
    toy.begin();
    toy.change(FASTER);
    toy.edit_start(&[
        &format!("if os.path.exists({slow:?}):"),
        "    WORK.update(attention=40_000, attention_backward=40_000)",
    ]);
    toy.json(&["compare"]).says("FASTER", 0);
    fs::write(&slow, "").unwrap();
    let parent = toy.head();
    toy.alpha(&["commit", "--widen=the gain is gone", "-m", "fast for a while"]).failed(4, &["confirm"]);
    fs::remove_file(&slow).unwrap();
    toy.alpha(&["commit", "--widen=the gain is gone", "-m", "fast for a while"]).failed(4, &["confirm"]);
    assert_eq!(toy.head(), parent);
}

/// A gain that is somewhere else than where it was declared to be.
#[test]
fn a_gain_outside_the_declared_area_is_refused_unless_widened() {
    let toy = Toy::new();
    toy.alpha(&["start", "the head is slow", "--area=head"]).succeeded();
    toy.change(FASTER);
    toy.json(&["compare"]).says("FASTER", 0);
    let parent = toy.head();
    toy.alpha(&["commit", "-m", "a faster head"]).failed(4, &["attention", "--widen"]);
    assert_eq!(toy.head(), parent);
    toy.alpha(&["commit", "--widen=it was attention", "-m", "a faster head"]).succeeded();
    assert!(toy.git(&["log", "-1", "--format=%B"]).contains("it was attention"));
}

/// Peaks between the two: the baseline's step takes three times as long as they allow, the candidate's a third.
#[test]
fn a_speed_beyond_the_roofline_is_quarantined() {
    let toy = Toy::new();
    // What a step without waste reaches here, from the trainer's own trace.
    finish(&mut toy.command("./build.sh")).succeeded();
    finish(toy.command("./out/trainer").args(["--steps=30", "--trace"])).succeeded();
    let traced: serde_json::Value = serde_json::from_str(&toy.read("run/kernels.json")).unwrap();
    let sum = |key: &str| -> f64 {
        traced["kernels"].as_array().unwrap().iter().map(|kernel| kernel[key].as_f64().unwrap()).sum()
    };
    let gflops = sum("flops") / sum("time_ms") / 1e6 / 3.0;
    toy.edit_file(
        "loop.toml",
        "peaks = \"./out/trainer --peaks\"",
        &format!("peaks = \"echo '{{\\\"gflops\\\": {gflops:e}, \\\"gb_s\\\": 1e-3}}'\""),
    );
    toy.edit("\"adamw\": 10_000", "\"adamw\": 500_000");
    toy.commit("a slow baseline");
    toy.alpha(&["start", "too good to be true", "--area=optimizer"]).succeeded();
    toy.edit("\"adamw\": 500_000", "\"adamw\": 10_000");
    toy.json(&["compare"]).is_refused_for(&["beyond_roofline"]);
}

/// A process that exits when its turn ends is not stopped: its memory is taken apart in the other's turn.
#[test]
fn what_exits_in_every_turn_of_the_other_gains_nothing() {
    let toy = Toy::new();
    toy.begin();
    toy.edit_start(&[
        "import socket",
        "ballast, send = bytearray(b\"x\") * (400 << 20), socket.socket.sendall",
        "def leave_and_send(self, data):",
        "    if data.startswith(b\"done\") and os.fork() == 0:",
        "        os._exit(0)",
        "    return send(self, data)",
        "socket.socket.sendall = leave_and_send",
    ]);
    let compared = toy.json(&["compare"]);
    has_no_effect(&compared);
}

//! Whole cycles: a true gain lands, a false one does not, and a change that is neither is called so.

use std::fs;

use crate::{
    changes::{FASTER, LEANER, RENAMED, SLOWER},
    toy::Toy,
};

/// `perf: <summary> (+X.XX% tok/s)`: the number.
#[track_caller]
fn claimed_pct(subject: &str, summary: &str) -> f64 {
    let rest = subject.strip_prefix("perf: ").and_then(|rest| rest.strip_prefix(summary));
    let number = rest.and_then(|rest| rest.strip_prefix(" (+")?.strip_suffix("% tok/s)"));
    let number = number.unwrap_or_else(|| panic!("subject `{subject}`"));
    assert_eq!(number.split_once('.').map(|(_, decimals)| decimals.len()), Some(2), "{subject}");
    number.parse().unwrap()
}

#[test]
fn a_true_gain_lands_step_by_step() {
    let toy = Toy::new();
    let parent = toy.head();
    let opened = toy.json(&["start", "attention wastes its time", "--area=attention", "--parity=t0"]);
    assert_eq!(opened.code, Some(0), "{}", opened.stderr);
    toy.change(FASTER);
    toy.write("notes.txt", "of the user's own");
    toy.git(&["add", "notes.txt"]);
    let before = toy.belongings();
    let smoke = toy.json(&["smoke"]);
    assert_eq!(smoke.code, Some(0), "{:#}\n{}", smoke.object, smoke.stderr);
    let compared = toy.json(&["compare"]).says("FASTER", 0);
    toy.assert_untouched(&before);
    assert_eq!(toy.head(), parent);
    // Two fifths of the step were waste: 1 / (1 − 2/5) is +67 %; what the rest takes varies with the machine.
    let [low, estimate, high] = ["ci_low_pct", "speedup_pct", "ci_high_pct"].map(|key| compared.number(key));
    assert!(30.0 < estimate && estimate < 150.0, "{:#}", compared.object);
    assert!(0.0 < low && low <= estimate && estimate <= high, "{:#}", compared.object);
    assert!(compared.number("pairs") >= 8.0 && compared.number("seconds") > 0.0);
    assert_eq!(compared.object["parity"]["passed"], true, "{:#}", compared.object);
    for key in ["reason", "counters", "baseline", "candidate", "record"] {
        assert!(!compared.object[key].is_null(), "no `{key}` in {:#}", compared.object);
    }
    let record = compared.text("record");
    assert!(toy.path(&format!("perf/ledger/{record}.json")).is_file(), "{record}");

    toy.git(&["rm", "-q", "--cached", "notes.txt"]);
    fs::remove_file(toy.path("notes.txt")).unwrap();
    let landed = toy.json(&["commit", "-m", "no waste in attention"]);
    assert_eq!(landed.code, Some(0), "{:#}\n{}", landed.object, landed.stderr);
    assert_eq!(landed.text("commit"), toy.head());
    assert_eq!(toy.git(&["rev-parse", "HEAD^"]), parent);
    assert_eq!(toy.git(&["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(toy.git(&["status", "--porcelain"]), "");
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let pct = claimed_pct(message.lines().next().unwrap(), "no waste in attention");
    assert!((pct - landed.number("claim_pct")).abs() < 0.0051, "{pct} {:#}", landed.object);
    for word in ["attention wastes its time", "src/trainer.py", "./out/trainer --steps", "attention_backward"] {
        assert!(message.contains(word), "no `{word}` in:\n{message}");
    }
    let trailers = toy.git(&["log", "-1", "--format=%(trailers:only)"]);
    for name in ["Alpha-Record: ", "Alpha-Interval: +", "Alpha-Pairs: "] {
        assert!(trailers.contains(name), "no `{name}` in:\n{message}");
    }
    let record = trailers.lines().find_map(|line| line.strip_prefix("Alpha-Record: ")).unwrap();
    assert!(toy.git(&["ls-tree", "-r", "--name-only", "HEAD"]).contains(&format!("perf/ledger/{record}")));
    assert!(toy.git(&["show", "HEAD:src/trainer.py"]).contains("\"attention\": 0,"));

    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(0), "{:#}", verified.object);
    toy.alpha(&["compare"]).failed(4, &["hint: "]); // HEAD is the working tree: nothing to compare
    let status = toy.json(&["status"]);
    assert_eq!((status.code, status.object["cycle"].is_null()), (Some(0), true), "{:#}", status.object);
    assert_eq!(status.object["accepted"]["commit"], toy.head());
    assert_eq!(status.object["accepted"]["built"], true);
}

#[test]
fn a_true_gain_lands_in_one_go() {
    let toy = Toy::new();
    let parent = toy.head();
    toy.begin();
    toy.change(FASTER);
    let done = toy.json(&["run", "-m", "no waste in attention"]);
    assert_eq!(done.code, Some(0), "{:#}\n{}", done.object, done.stderr);
    assert_eq!(toy.git(&["rev-parse", "HEAD^"]), parent);
    claimed_pct(&toy.git(&["log", "-1", "--format=%s"]), "no waste in attention");
    // The parts of the time add up to the whole.
    let seconds =
        |part: &str| done.object["seconds"][part].as_f64().unwrap_or_else(|| panic!("{part}: {:#}", done.object));
    let parts = ["build", "smoke", "compare", "commit", "next"].map(seconds);
    assert!(parts[1..].iter().all(|part| *part > 0.0), "{parts:?}");
    let (sum, total) = (parts.iter().sum::<f64>(), seconds("total"));
    assert!(0.9 * total < sum && sum <= total, "{parts:?} of {total}");
    assert!(done.object["compare"]["verdict"] == "FASTER" && done.object["next"].is_object(), "{:#}", done.object);
}

#[test]
fn a_false_gain_is_refused() {
    let toy = Toy::new();
    let parent = toy.head();
    toy.begin();
    toy.change(SLOWER);
    let before = toy.belongings();
    let compared = toy.json(&["compare"]).says("SLOWER", 4);
    assert!(compared.number("ci_high_pct") < 0.0, "{:#}", compared.object);
    toy.alpha(&["commit", "-m", "no waste in attention"]).failed(4, &["SLOWER", "hint: "]);
    toy.alpha(&["commit", "--no-claim", "-m", "no waste in attention"]).failed(4, &["SLOWER"]);
    let again = toy.json(&["run", "-m", "no waste in attention"]);
    assert_eq!(again.code, Some(4), "{:#}", again.object);
    assert_eq!(toy.head(), parent);
    toy.assert_untouched(&before);
    let dropped = toy.json(&["drop", "it was slower"]);
    assert_eq!(dropped.code, Some(0), "{}", dropped.stderr);
    // The record stays, and so does the user's edit.
    assert!(toy.path(&format!("perf/ledger/{}.json", compared.text("record"))).is_file());
    toy.assert_untouched(&before);
    assert!(toy.json(&["status"]).object["cycle"].is_null());
}

#[test]
fn no_effect_lands_without_a_claim_only() {
    let toy = Toy::new();
    toy.begin();
    toy.change(RENAMED);
    let compared = toy.json(&["compare"]).says("SAME", 4);
    assert!(compared.number("ci_low_pct") > -30.0 && compared.number("ci_high_pct") < 30.0, "{:#}", compared.object);
    toy.alpha(&["commit", "-m", "better names"]).failed(4, &["SAME", "--no-claim"]);
    let landed = toy.json(&["commit", "--no-claim", "-m", "better names"]);
    assert_eq!(landed.code, Some(0), "{}", landed.stderr);
    let subject = toy.git(&["log", "-1", "--format=%s"]);
    assert!(subject.contains("better names") && !subject.contains('%'), "{subject}");
    toy.alpha(&["audit"]).failed(2, &["no commit of this branch claims a gain", "--anchor"]);
    assert!(toy.git(&["show", "HEAD:src/trainer.py"]).contains("spots"));
}

/// The gain stays below ε, so that it is not a reason by itself.
#[test]
fn fewer_kernels_in_the_same_time_land_without_a_percentage() {
    let toy = Toy::new();
    toy.edit_file("loop.toml", "epsilon_pct = 30", "epsilon_pct = 50");
    toy.edit("    \"adamw\": 10_000,\n", "    \"adamw\": 10_000,\n    \"clip\": 50_000,\n");
    toy.commit("another baseline");
    toy.alpha(&["start", "a pass too many", "--area=optimizer"]).succeeded();
    toy.change(LEANER);
    toy.edit("    \"clip\": 50_000,\n", "");
    let compared = toy.json(&["compare"]).says("LEANER", 0);
    assert!(compared.text("reason").contains("kernels"), "{:#}", compared.object);
    let landed = toy.json(&["commit", "-m", "one pass less"]);
    assert_eq!(landed.code, Some(0), "{}", landed.stderr);
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let subject = message.lines().next().unwrap();
    assert!(subject.starts_with("perf: one pass less") && !subject.contains('%'), "{subject}");
    assert!(message.contains("kernels 720 -> 660"), "{message}");
    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(0), "{:#}", verified.object);
    assert!(verified.object["claims"][0]["record"].is_string(), "{:#}", verified.object);
}

/// Alternately faster and slower, which no number of pairs turns into an effect: the counter lies outside of the trainer's folder.
#[test]
fn what_cannot_be_told_is_undecided() {
    let toy = Toy::new();
    toy.without_walls();
    let counter = toy.outside("counter");
    fs::write(&counter, "").unwrap();
    toy.begin();
    toy.edit_start(&[
        &format!("with open({counter:?}, \"r+\") as file:"),
        "    turn = len(file.read())",
        "    file.write(\"x\")",
        "for kernel in WORK:",
        "    WORK[kernel] *= 3 * (turn % 2)",
    ]);
    let compared = toy.json(&["compare", "--budget=1s"]).says("UNDECIDED", 5);
    assert!(compared.number("pairs") >= 1.0, "{:#}", compared.object);
    toy.alpha(&["commit", "-m", "faster by turns"]).failed(4, &["UNDECIDED"]);
}

#[test]
fn a_program_against_itself_is_no_claim() {
    let toy = Toy::new();
    toy.begin();
    let compared = toy.json(&["compare", "--identical"]);
    // One of twenty may be a false verdict; it must not land either.
    assert!([Some(0), Some(4), Some(5)].contains(&compared.code), "{:#}", compared.object);
    let estimate = compared.number("speedup_pct");
    assert!(estimate.abs() < 30.0, "{estimate}");
    toy.alpha(&["commit", "-m", "nothing"]).failed(4, &[]);
    toy.change(FASTER);
    toy.alpha(&["commit", "-m", "something else"]).failed(4, &["compare"]);
}

/// Another edit after the verdict makes it another tree.
#[test]
fn only_the_tree_that_was_compared_lands() {
    let toy = Toy::compared();
    let parent = toy.head();
    toy.edit("\"head\": 10_000", "\"head\": 9_999");
    toy.alpha(&["commit", "-m", "more than was measured"]).failed(4, &["compare"]);
    assert_eq!(toy.head(), parent);
    toy.edit("\"head\": 9_999", "\"head\": 10_000");
    // HEAD moves on: the gain was measured against another commit.
    toy.git(&["stash", "-q"]);
    toy.write("another.py", "# somebody else's\n");
    let moved = toy.commit("somebody else's commit");
    toy.git(&["stash", "pop", "-q"]);
    let before = toy.belongings();
    toy.alpha(&["commit", "-m", "measured against another parent"]).failed(4, &["HEAD"]);
    assert_eq!(toy.head(), moved);
    toy.assert_untouched(&before);
}

/// One after the other, with the turn protocol or without: noisier, and a large effect is still found.
#[test]
fn trainers_that_cannot_live_at_once_are_judged_too() {
    for sharing in ["sequential", "whole"] {
        let toy = Toy::untested();
        toy.edit_file("loop.toml", "steps = 60\n", &format!("steps = 60\nsharing = \"{sharing}\"\n"));
        if sharing == "whole" {
            toy.edit_file("loop.toml", "weights = \"run/checkpoint-{step}/model.safetensors\"\n", "");
        }
        toy.commit("one at a time");
        toy.begin();
        toy.edit("\"attention\": 40_000", "\"attention\": 500_000");
        let compared = toy.json(&["compare", "--budget=3m"]).says("SLOWER", 4);
        assert!(compared.number("ci_high_pct") < 0.0, "{sharing}: {:#}", compared.object);
    }
}

/// A cycle about a target of `loop.toml`: its commands know, and it can be ended when the target is gone.
#[test]
fn a_cycle_about_a_target() {
    let toy = Toy::new();
    let own = toy.read("loop.toml");
    let command = own.lines().find(|line| line.starts_with("command = ") && line.contains("{steps}")).unwrap();
    toy.write("loop.toml", &format!("{own}\n[targets.other.workload]\n{command}\nsteps = 40\ntokens_per_step = 64\n"));
    toy.commit("another target");
    assert_eq!(toy.alpha(&["start", "x", "--target=none"]).code, Some(2));
    assert_eq!(toy.json(&["start", "x", "--target=other"]).code, Some(0));
    let status = toy.json(&["status"]);
    assert_eq!(status.object["cycle"]["target"], "other", "{:#}", status.object);
    let mixed = toy.alpha(&["status", "--target=another"]);
    assert!(mixed.code == Some(2) && mixed.stderr.contains("about `other`"), "{mixed:?}");
    // The baseline's file counts, not the one on disk.
    toy.write("loop.toml", &own);
    let gone = toy.alpha(&["status"]);
    assert!(gone.code == Some(0) && gone.stderr.contains("is not the baseline's"), "{gone:?}");
    toy.commit("the target is gone");
    assert_eq!(toy.alpha(&["drop", "the target is gone"]).code, Some(0));
    assert_eq!(toy.alpha(&["status"]).code, Some(0));
}

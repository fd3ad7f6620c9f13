//! Commands that judge nothing: about the machine, the history, the next attempt, and the commit that lost speed.

use std::fs;

use crate::{changes::RENAMED, outcome::finish, toy::Toy};

#[test]
fn init_writes_a_file_that_can_be_read() {
    let toy = Toy::empty();
    toy.write("train.py", "print('trains')\n");
    toy.commit("a script");
    let made = toy.json(&["init"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(made.text("kind"), "python");
    assert!(toy.read("loop.toml").contains("train.py"));
    // The file is there now, and is not overwritten.
    let text = toy.read("loop.toml");
    toy.alpha(&["init"]).failed(2, &["loop.toml"]);
    assert_eq!(toy.read("loop.toml"), text);
    toy.alpha(&["status"]).failed(2, &["has no `loop.toml`", "git add loop.toml"]);
    toy.commit("loop.toml");
    assert_eq!(toy.alpha(&["status"]).code, Some(0));
    // In an empty repository too.
    let bare = Toy::empty();
    bare.commit("nothing");
    assert_eq!(bare.json(&["init"]).code, Some(0));
    // And in the toy's, whose own file is better.
    let toy = Toy::new();
    toy.alpha(&["init"]).failed(2, &["loop.toml"]);
}

#[test]
fn the_doctor_names_what_to_do() {
    let toy = Toy::new();
    let report = toy.json(&["doctor"]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    let findings = report.object["findings"].as_array().unwrap_or_else(|| panic!("{:#}", report.object));
    for finding in findings {
        for key in ["what", "found", "why_it_matters", "what_to_do", "severity"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {finding:#}");
        }
    }
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(!report.object.to_string().contains(&format!("\"{}\"", name.trim())));
}

#[test]
fn the_instrument_proves_itself() {
    let toy = Toy::new();
    // The known effect is found within a factor of two, and no effect where there is none. A busy machine may spoil one
    // self-test, but not three.
    let proves_itself = |_| {
        let proof = toy.json(&["selftest"]);
        assert_eq!(proof.code, Some(0), "{:#}\n{}", proof.object, proof.stderr);
        assert!(proof.object["failure"].is_null(), "{:#}", proof.object);
        let [held_up, found] = ["hold_up_pct", "found_pct"].map(|key| proof.number(key));
        (held_up > 0.0 && found > held_up / 2.0 && found < held_up * 2.0).then_some(proof)
    };
    let proof = (0..3).find_map(proves_itself).expect("three self-tests were wrong by a factor of two");
    let resolves: Vec<f64> = proof.object["resolves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resolution| resolution["effect_pct"].as_f64().unwrap())
        .collect();
    assert!(resolves.len() == 3 && resolves.is_sorted_by(|a, b| a >= b) && resolves[2] > 0.0, "{resolves:?}");
}

#[test]
fn what_to_try_next_is_where_the_time_goes() {
    let toy = Toy::new();
    for (kernel, planted) in [("head", "\"head\": 10_000"), ("adamw", "\"adamw\": 10_000")] {
        toy.restore();
        toy.edit(planted, &format!("\"{kernel}\": 200_000"));
        toy.commit("slower");
        let report = toy.json(&["next"]);
        assert_eq!(report.code, Some(0), "{:#}\n{}", report.object, report.stderr);
        let ranked = report.object["ranked"].as_array().unwrap();
        assert!(ranked[0].to_string().contains(kernel), "{:#}", ranked[0]);
        toy.edit(&format!("\"{kernel}\": 200_000"), planted);
        toy.commit("as before");
    }
    // Of a real run, made without the loop.
    finish(&mut toy.command("./build.sh")).succeeded();
    finish(toy.command("./out/trainer").args(["--steps=30", "--trace"])).succeeded();
    let report = toy.json(&["next", "--run=run"]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    assert!(report.object["ranked"].as_array().is_some_and(|ranked| !ranked.is_empty()), "{:#}", report.object);
    toy.alpha(&["next", "--run=nowhere"]).failed(1, &["nowhere", "hint: "]);
}

#[test]
fn the_commit_that_lost_speed_is_found() {
    let toy = Toy::new();
    let good = toy.head();
    let (mut culprit, mut skipped) = (String::new(), String::new());
    for number in 1..=5 {
        if number == 3 {
            toy.edit_file("build.sh", "mkdir -p out\n", "exit 3\n");
            skipped = toy.commit("cannot be built");
            toy.edit_file("build.sh", "exit 3\n", "mkdir -p out\n");
        } else if number == 4 {
            toy.edit("\"head\": 10_000", "\"head\": 150_000");
            culprit = toy.commit("looks harmless");
        } else {
            toy.edit("def main():\n", &format!("def harmless_{number}():\n    pass\n\n\ndef main():\n"));
            toy.commit(&format!("harmless {number}"));
        }
    }
    let before = toy.belongings();
    let found = toy.json(&["bisect", &good, "HEAD", "--budget=60s"]);
    assert_eq!(found.code, Some(0), "{:#}\n{}", found.object, found.stderr);
    assert_eq!(
        (found.text("culprit"), found.text("subject")),
        (culprit.as_str(), "looks harmless"),
        "{:#}",
        found.object
    );
    assert!(found.number("lost_pct") > 20.0, "{:#}", found.object);
    assert_eq!(found.object["skipped"], serde_json::json!([skipped]), "{:#}", found.object);
    toy.assert_untouched(&before);
    toy.alpha(&["bisect", "HEAD", &good]).failed(2, &["ancestor"]);
}

#[test]
fn the_history_tells_what_landed_and_what_did_not() {
    let toy = Toy::landed();
    let message = toy.git(&["log", "-1", "--format=%s"]);
    let history = toy.json(&["history"]);
    assert_eq!(history.code, Some(0), "{}", history.stderr);
    let claimed = message.split_once("(+").unwrap().1.split_once('%').unwrap().0;
    assert!(history.object.to_string().contains("no waste in attention"), "{:#}", history.object);
    let text = toy.alpha(&["history"]).succeeded().stdout;
    assert!(text.contains(claimed), "{claimed} in\n{text}");
    // A hypothesis that came to nothing is history too.
    toy.begin();
    let dropped = toy.json(&["drop", "lost interest"]);
    assert_eq!(dropped.code, Some(0), "{}", dropped.stderr);
    let record = toy.read(&format!("perf/ledger/{}.json", dropped.text("record")));
    assert!(record.contains("lost interest") && record.contains("attention wastes its time"), "{record}");
}

#[test]
fn cycles_open_and_close() {
    let toy = Toy::new();
    toy.alpha(&["drop"]).failed(2, &["no cycle"]);
    toy.alpha(&["start", " "]).failed(2, &["hypothesis"]);
    toy.alpha(&["start", "x", "--area=nowhere"]).failed(2, &["nowhere", "attention"]);
    toy.alpha(&["start", "x", "--parity=t9"]).failed(2, &["t9"]);
    toy.begin();
    toy.alpha(&["start", "another"]).failed(2, &["attention wastes its time", "alpha loop drop"]);
    let status = toy.json(&["status"]);
    assert_eq!(status.object["cycle"]["hypothesis"], "attention wastes its time");
    assert_eq!(status.object["cycle"]["area"], "attention");
    assert_eq!(status.object["cycle"]["baseline"], toy.head());
    assert!(status.object["accepted"].is_null(), "{:#}", status.object);
    for word in ["change the trainer", "alpha loop run"] {
        assert!(status.text("next").contains(word), "{:#}", status.object);
    }
}

#[test]
fn the_status_says_what_became_of_the_edit() {
    let toy = Toy::new();
    toy.begin();
    let shows = |words: &[&str]| {
        let text = toy.alpha(&["status"]).succeeded().stdout;
        for word in words {
            assert!(text.contains(word), "{word} in\n{text}");
        }
        let status = toy.json(&["status"]).object;
        (status["working_tree"].clone(), status["next"].as_str().unwrap().to_owned())
    };
    assert_eq!(shows(&["nothing that is measured"]).0["state"], "unchanged");
    toy.change(RENAMED);
    toy.write("notes.txt", "measured, although nothing reads it");
    let (tree, next) = shows(&["changed    notes.txt, src/trainer.py\n"]);
    assert_eq!((&tree["state"], &tree["failed_build"]), (&"changed".into(), &serde_json::Value::Null));
    assert!(next.starts_with("alpha loop run"), "{next}");

    let build = toy.read("build.sh");
    toy.write("build.sh", &build.replace("set -euo pipefail", "exit 3"));
    toy.alpha(&["compare", "--budget=1s"]).failed(1, &["the build failed (exit status: 3)"]);
    let (tree, next) = shows(&["failed or was stopped"]);
    assert!(toy.path(tree["failed_build"].as_str().unwrap()).exists(), "{tree:#}");
    assert!(next.starts_with("mend"), "{next}");
    toy.write("build.sh", &build);

    toy.json(&["compare"]).says("SAME", 4);
    assert!(shows(&["attempt    SAME"]).1.contains("alpha loop drop"));
    toy.write("notes.txt", "another edit");
    let (tree, next) = shows(&["(of an earlier edit)"]);
    assert_eq!((&tree["files"][0], next.starts_with("alpha loop run")), (&"notes.txt".into(), true));
    let lock = std::fs::File::open(toy.path(".git/alpha-loop/lock")).unwrap();
    lock.lock().unwrap();
    assert!(shows(&["running    another command"]).1.contains("has ended"));
    drop(lock);
    toy.write(".git/MERGE_HEAD", &toy.head());
    assert_eq!(shows(&["cannot be told: a merge is under way"]).0["state"], "unusable");
}

#[test]
fn the_smoke_test_says_what_is_wrong() {
    let toy = Toy::new();
    toy.begin();
    let cases = [
        ("    s.odds = [softmax", "    raise ValueError(\"no loss today\")\n    s.odds = [softmax", 1, "no loss today"),
        ("/ len(s.targets)\n\n\n# Backward", "/ len(s.targets) * float(\"nan\")\n\n\n# Backward", 4, "loss"),
        ("range(1, steps + 1)", "range(1, steps)", 1, "step"),
        ("\"attention_backward\": 40_000", "\"attention_backward\": 400_000", 4, "bwd"),
    ];
    for (from, to, code, word) in cases {
        toy.restore();
        toy.edit(from, to);
        let smoke = toy.json(&["smoke"]);
        assert_eq!((smoke.code, &smoke.object["passed"]), (Some(code), &false.into()), "{:#}", smoke.object);
        assert!(smoke.object["problems"].to_string().contains(word), "{word}: {:#}", smoke.object);
        // `run` gets no further.
        let run = toy.json(&["run", "-m", "broken"]);
        assert_eq!((run.code, run.object["compare"].is_null()), (Some(code), true), "{:#}", run.object);
    }
    toy.restore();
    toy.edit("\"adamw\": 10_000", "\"adamw\": 10_001");
    let smoke = toy.json(&["smoke"]);
    assert_eq!((smoke.code, &smoke.object["passed"]), (Some(0), &true.into()), "{:#}", smoke.object);
}

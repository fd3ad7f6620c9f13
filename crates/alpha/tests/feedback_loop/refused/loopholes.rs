//! Ways around the gate that do not lie in the trainer: between the verdict and the commit, and in what is committed.

use crate::{
    changes::FASTER,
    toy::{TRAINER, Toy},
};

#[test]
fn an_instrument_that_changed_after_the_verdict_does_not_land() {
    let toy = Toy::compared();
    let before = toy.head();
    let config = toy.read("loop.toml");
    // The programs are those that were compared.
    toy.edit_file("loop.toml", "margin_pct = 50", "margin_pct = 500");
    toy.alpha(&["commit", "-m", "no waste in attention"]).failed(4, &["instrument", "loop.toml"]);
    // Nor may the file hide itself, or git hide it.
    toy.write("loop.toml", &config.replacen("schema = 1", "schema = 1\nunmeasured = [\"*.toml\"]", 1));
    toy.alpha(&["commit", "-m", "no waste in attention"]).failed(4, &["instrument", "loop.toml"]);
    toy.write("loop.toml", &config);
    toy.write(".gitignore", "out/\nrun/\nloop.toml\n");
    toy.git(&["rm", "-q", "--cached", "loop.toml"]);
    toy.alpha(&["commit", "-m", "no waste in attention"]).failed(2, &["git ignores", "loop.toml"]);
    assert_eq!(toy.head(), before);
}

#[test]
fn what_lands_is_what_was_measured_and_its_record() {
    let toy = Toy::new();
    toy.write(".gitignore", "out/\nrun/\nperf/\n");
    toy.commit("records are ignored");
    toy.begin();
    toy.change(FASTER);
    toy.json(&["compare"]).says("FASTER", 0);
    toy.write("runs/1/metrics.jsonl", "{}\n");
    let landed = toy.json(&["commit", "-m", "no waste in attention"]);
    assert_eq!(landed.code, Some(0), "{:#}\n{}", landed.object, landed.stderr);
    let files = toy.git(&["show", "--name-only", "--format=", "HEAD"]);
    let record = format!("perf/ledger/{}.json", landed.text("record"));
    assert!(files.lines().any(|file| file == record), "no `{record}` in:\n{files}");
    assert!(files.lines().all(|file| file == TRAINER || file.starts_with("perf/ledger/")), "{files}");
    assert_eq!(toy.read("runs/1/metrics.jsonl"), "{}\n");
    assert_eq!(toy.json(&["verify", "HEAD"]).code, Some(0));
}

#[test]
fn a_verdict_holds_for_the_tier_that_it_was_reached_under() {
    let toy = Toy::new();
    toy.change(FASTER);
    toy.json(&["compare", "--parity=t2"]).says("FASTER", 0);
    toy.alpha(&["start", "attention wastes its time", "--area=attention", "--parity=t0"]).succeeded();
    toy.alpha(&["commit", "-m", "no waste in attention"]).failed(4, &["has not been compared"]);
}

/// A comparison without a cycle declares no area: the cycle that is opened later does.
#[test]
fn where_a_gain_may_be_is_what_the_open_cycle_says() {
    let toy = Toy::new();
    toy.change(FASTER);
    toy.json(&["compare"]).says("FASTER", 0);
    toy.alpha(&["start", "the head is slow", "--area=head"]).succeeded();
    toy.alpha(&["commit", "-m", "a faster head"]).failed(4, &["attribution"]);
    // What was refused there leaves its record.
    let attempts = toy.json(&["history"]).object["attempts"].clone();
    assert!(attempts.to_string().contains("the head is slow"), "{attempts:#}");
    toy.alpha(&["drop"]).succeeded();
    toy.begin();
    let landed = toy.json(&["commit", "-m", "no waste in attention"]);
    assert_eq!(landed.code, Some(0), "{:#}\n{}", landed.object, landed.stderr);
}

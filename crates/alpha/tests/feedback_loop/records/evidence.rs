//! A claim and its record, after the history was rewritten, damaged, or tampered with.

use std::fs;

use crate::{
    outcome::finish,
    toy::{Answer, Toy},
};

/// The record that HEAD's message names, as a path in the repository.
#[track_caller]
fn record_of(toy: &Toy, commit: &str) -> String {
    let trailers = toy.git(&["log", "-1", "--format=%(trailers:only)", commit]);
    let record = trailers.lines().find_map(|line| line.strip_prefix("Alpha-Record: "));
    format!("perf/ledger/{}.json", record.unwrap_or_else(|| panic!("no record in {trailers}")))
}

/// The answer of `verify` about the only claim.
#[track_caller]
fn verify(toy: &Toy, what: &str) -> Answer {
    toy.json(&["verify", what])
}

/// Checks that the claims of `what` do not hold, and that what is wrong is named.
#[track_caller]
fn broken(toy: &Toy, what: &str, words: &[&str]) {
    let answer = verify(toy, what);
    assert_eq!(answer.code, Some(4), "{:#}", answer.object);
    let said = answer.object.to_string();
    for word in words {
        assert!(said.contains(word), "no `{word}` in {:#}", answer.object);
    }
}

/// Checks that the only claim of `what` holds, and whether on the very tree that was measured.
#[track_caller]
fn holds(toy: &Toy, what: &str, measured_here: bool) {
    let answer = verify(toy, what);
    assert_eq!(answer.code, Some(0), "{:#}", answer.object);
    let claims = answer.object["claims"].as_array().unwrap();
    assert_eq!(claims.len(), 1, "{:#}", answer.object);
    assert_eq!(claims[0]["measured_here"], measured_here, "{:#}", answer.object);
}

/// Another user's commit on a branch that starts before the claim.
fn other_branch(toy: &Toy) {
    toy.git(&["checkout", "-q", "-b", "other", "HEAD^"]);
    toy.edit("    \"\"\"a·bᵀ.\"\"\"", "    \"\"\"The matrix a·bᵀ.\"\"\"");
    toy.commit("another thing");
}

#[test]
fn a_claim_survives_branches_merges_rebases_and_picks() {
    let toy = Toy::landed();
    let claim = toy.head();
    holds(&toy, &claim, true);
    // On a branch whose other commits change other lines, the patch is the same, the tree is not.
    other_branch(&toy);
    toy.git(&["cherry-pick", &claim]);
    holds(&toy, "HEAD", false);
    holds(&toy, "HEAD~1..HEAD", false);
    toy.git(&["checkout", "-q", "main"]);
    toy.git(&["checkout", "-q", "-b", "rebased", "main"]);
    toy.git(&["rebase", "-q", "other~1"]);
    holds(&toy, "HEAD", false);
    // A merge claims nothing itself; behind it the claim stands where it was made.
    toy.git(&["checkout", "-q", "-B", "merged", "other~1"]);
    toy.git(&["merge", "-q", "--no-edit", "main"]);
    holds(&toy, "HEAD^..HEAD", true);
    assert_eq!(verify(&toy, "HEAD^!").code, Some(0));
    // The ledgers of two branches are one after a merge.
    assert_eq!(toy.json(&["status"]).object["ledger_problems"].as_array().map(Vec::len), Some(0));
}

/// A squash makes a commit that nobody measured.
#[test]
fn a_squashed_claim_is_nobodys() {
    let toy = Toy::landed();
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let claim = toy.head();
    other_branch(&toy);
    toy.git(&["merge", "-q", "--squash", &claim]);
    toy.edit("\"head\": 10_000", "\"head\": 9_000");
    toy.git(&["add", "-A"]);
    toy.git(&["commit", "-q", "-m", &message]);
    broken(&toy, "HEAD", &["neither the tree that was measured nor its patch"]);
}

#[test]
fn a_changed_number_or_message_does_not_hold() {
    let toy = Toy::landed();
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let claimed = message.split_once("(+").unwrap().1.split_once('%').unwrap().0;
    toy.git(&["commit", "-q", "--amend", "-m", &message.replacen(claimed, "99.99", 1)]);
    broken(&toy, "HEAD", &["99.99", claimed]);
    let untraced: String =
        message.lines().filter(|line| !line.starts_with("Alpha-Record")).collect::<Vec<_>>().join("\n");
    toy.git(&["commit", "-q", "--amend", "-m", &untraced]);
    broken(&toy, "HEAD", &["record"]);
    toy.git(&["commit", "-q", "--amend", "-m", &message]);
    holds(&toy, "HEAD", true);
}

/// A damaged ledger is reported wherever it matters; nothing panics and nothing else is lost.
#[test]
fn torn_missing_and_forged_records() {
    let toy = Toy::landed();
    let record = record_of(&toy, "HEAD");
    let whole = toy.read(&record);
    let id = &record["perf/ledger/".len()..record.len() - ".json".len()];
    let damages = [
        whole[..whole.len() / 2].to_owned(),
        String::new(),
        // Numbers that were changed after they were hashed.
        whole.replacen("FASTER", "LEANER", 1),
        "{}".to_owned(),
    ];
    for damage in damages {
        assert_ne!(damage, whole);
        toy.write(&record, &damage);
        broken(&toy, "HEAD", &[&id[..12]]);
        let status = toy.json(&["status"]);
        assert!(status.object["ledger_problems"].to_string().contains(&id[..12]), "{:#}", status.object);
        assert_eq!(toy.alpha(&["history"]).code, Some(0));
    }
    fs::remove_file(toy.path(&record)).unwrap();
    broken(&toy, "HEAD", &[&id[..12]]);
    toy.write(&record, &whole);
    holds(&toy, "HEAD", true);
}

/// Measured again: the gain is there, and a claim that is twice as large is not.
#[test]
fn measuring_again_agrees_with_the_truth_alone() {
    let toy = Toy::landed();
    let again = toy.json(&["verify", "HEAD", "--rerun", "--budget=60s"]);
    assert_eq!(again.code, Some(0), "{:#}\n{}", again.object, again.stderr);
    let rerun = &again.object["claims"][0]["rerun"];
    assert_eq!(rerun["outcome"], "agrees", "{:#}", again.object);
    // The same claim on a commit that does nothing.
    let message = toy.git(&["log", "-1", "--format=%B"]);
    toy.edit("table, places = s.params[\"embedding\"]", "table, spots = s.params[\"embedding\"]");
    toy.edit("zip(table[token], places[t])] for tokens", "zip(table[token], spots[t])] for tokens");
    toy.git(&["commit", "-q", "-am", &message]);
    let again = toy.json(&["verify", "HEAD", "--rerun", "--budget=60s"]);
    assert_eq!(again.code, Some(4), "{:#}", again.object);
    assert_eq!(again.object["claims"][0]["rerun"]["outcome"], "disagrees", "{:#}", again.object);
}

#[test]
fn an_audit_measures_what_was_claimed() {
    let toy = Toy::landed();
    let audit = toy.json(&["audit", "--budget=60s"]);
    assert_eq!(audit.code, Some(0), "{:#}\n{}", audit.object, audit.stderr);
    assert_eq!(audit.number("claims"), 1.0);
    let claimed = audit.number("claims_pct");
    let measured = &audit.object["measured"];
    let [low, high] = ["ci_low_pct", "ci_high_pct"].map(|key| measured[key].as_f64().unwrap());
    assert!(0.0 < low && low < high && claimed > 30.0, "{:#}", audit.object);
    // A commit that takes the gain away again leaves the claim, but not the speed.
    toy.edit("\"attention\": 0", "\"attention\": 40_000");
    toy.edit("\"attention_backward\": 0", "\"attention_backward\": 40_000");
    toy.edit("\"head\": 10_000", "\"head\": 10_001");
    toy.commit("as slow as before");
    let audit = toy.json(&["audit", "--budget=60s"]);
    assert_eq!(audit.code, Some(4), "{:#}\n{}", audit.object, audit.stderr);
    assert_eq!(audit.object["agreement"]["outcome"], "disagrees", "{:#}", audit.object);
}

/// `git commit` with a message, in a repository whose hook is the loop's.
#[track_caller]
fn commits(toy: &Toy, message: &str, words: Option<&[&str]>) {
    let before = toy.head();
    let mut command = toy.command("git");
    // The hook finds the program by its name.
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_alpha")).parent().unwrap();
    command.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
    let done = finish(command.args(["commit", "-q", "--allow-empty", "-m", message]));
    match words {
        None => assert_eq!(done.code, Some(0), "{message}\n{}", done.stderr),
        Some(words) => {
            assert_ne!(done.code, Some(0), "{message}");
            assert_eq!(toy.head(), before);
            assert!(words.iter().all(|word| done.stderr.contains(word)), "{words:?} in {}", done.stderr);
        }
    }
}

#[test]
fn the_hook_refuses_claims_without_evidence() {
    let toy = Toy::landed();
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let hook = toy.path(".git/hooks/commit-msg");
    // The user's own hook keeps its job.
    fs::write(&hook, "#!/bin/sh\ngrep -q forbidden \"$1\" && { echo 'a forbidden word' >&2; exit 1; }\nexit 0\n")
        .unwrap();
    finish(toy.command("chmod").args(["+x", ".git/hooks/commit-msg"])).succeeded();
    let own = fs::read(&hook).unwrap();
    for _ in 0..2 {
        assert_eq!(toy.json(&["hook", "install"]).code, Some(0));
    }
    commits(&toy, "whatever it is", None);
    commits(&toy, "perf: no number", None);
    commits(&toy, "perf: faster by magic (+12.34% tok/s)", Some(&["record"]));
    commits(&toy, "perf: faster by magic (+12.34% tok/s)\n\nAlpha-Record: 0123456789abcdef", Some(&["record"]));
    commits(&toy, "a forbidden word", Some(&["forbidden"]));
    // The record of a claim belongs to its number.
    toy.git(&["reset", "-q", "--soft", "HEAD~3"]);
    let claimed = message.split_once("(+").unwrap().1.split_once('%').unwrap().0;
    commits(&toy, &message.replacen(claimed, "99.99", 1), Some(&["99.99"]));
    commits(&toy, &message, None);
    // A clone of the repository knows nothing of the hook; taking it out leaves the user's own.
    assert_eq!(toy.json(&["hook", "uninstall"]).code, Some(0));
    assert_eq!(fs::read(&hook).unwrap(), own);
    commits(&toy, "perf: faster by magic (+12.34% tok/s)", None);
}

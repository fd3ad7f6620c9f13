//! Claims follow from measurements: cases of edited files, a weaker instrument, slowdowns taken back, and trainers that
//! report about themselves.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    changes::{FASTER, LEANER},
    toy::Toy,
};

/// A gain that needs far more memory than the guard lets through.
fn greedy(toy: &Toy) {
    toy.change(FASTER);
    toy.edit_start(&["hog = b\"x\" * (30 << 20)"]);
}

/// Edits the only open attempt's file.
#[track_caller]
fn edit_attempt(toy: &Toy, edit: impl FnOnce(&mut Value)) {
    let folder = toy.path(".git/alpha-loop/attempts");
    let is_attempt = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "json");
    let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<_> = names.filter(|path| is_attempt(&path.to_string_lossy())).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    let mut attempt: Value = serde_json::from_slice(&fs::read(&paths[0]).unwrap()).unwrap();
    edit(&mut attempt);
    fs::write(&paths[0], attempt.to_string()).unwrap();
}

#[test]
fn a_forged_attempt_does_not_land() {
    let toy = Toy::new();
    toy.begin();
    greedy(&toy);
    toy.json(&["compare"]).is_refused_for(&["memory"]);
    let before = toy.head();
    edit_attempt(&toy, |attempt| {
        attempt["verdict"] = "FASTER".into();
        attempt["guards"] = Value::Array(vec![]);
    });
    toy.alpha(&["commit", "-m", "no waste"]).failed(4, &["the ledger's record of it says REFUSED"]);
    // Without the record, which git does not track yet, the guard is missed all the same: before anything is recorded.
    fs::remove_dir_all(toy.path("perf")).unwrap();
    toy.alpha(&["commit", "-m", "no waste", "--widen=anything"]).failed(4, &["guard memory", "was not measured"]);
    assert!(!toy.path("perf/ledger").exists(), "what was forged has no record");
    edit_attempt(&toy, |attempt| {
        attempt["guards"] = serde_json::json!([
            {"name": "memory", "margin_pct": 50.0, "worse_pct": 0.0, "p": 0.0039, "pairs": 8, "holds": true}
        ]);
    });
    toy.alpha(&["commit", "--widen=anything", "-m", "no waste"])
        .failed(4, &["guard memory does not hold in its pairs"]);
    assert_eq!(toy.head(), before);
}

#[test]
fn evidence_that_was_edited_is_found() {
    let toy = Toy::compared();
    let folder = toy.path(".git/alpha-loop/attempts");
    let kept = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.into_iter().find(|path| path.to_string_lossy().ends_with(".parity.jsonl")).unwrap();
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, text.split_inclusive('\n').skip(1).collect::<String>()).unwrap();
    toy.alpha(&["commit", "--widen=a busy machine", "-m", "no waste"])
        .failed(4, &["not what the pairs of this attempt showed"]);
    fs::write(&kept, text).unwrap();
    toy.alpha(&["commit", "--widen=a busy machine", "-m", "no waste"]).succeeded();
}

#[test]
fn a_weaker_instrument_needs_a_reason_and_shows() {
    const LINE: &str = "guard `memory` is gone: memory is plenty";
    let toy = Toy::new();
    let strict = toy.read("loop.toml");
    let without = strict.replace("[guards.memory]\nkind = \"peak_memory\"\nmargin_pct = 50\n", "");
    assert_ne!(without, strict);
    toy.write("loop.toml", &without);
    let before = toy.head();
    toy.alpha(&["commit", "--instrument", "-m", "fewer guards"]).failed(4, &["guard `memory` is gone", "--weakens"]);
    toy.alpha(&["commit", "--instrument", "--weakens= ", "-m", "fewer guards"]).failed(2, &["is empty"]);
    assert_eq!(toy.head(), before);
    toy.alpha(&["commit", "--instrument", "--weakens=memory is plenty", "-m", "fewer guards"]).succeeded();
    let message = || toy.git(&["log", "-1", "--format=%B"]);
    assert!(message().contains(&format!("Alpha-Weakens: {LINE}")), "{}", message());
    // Every claim that follows says so.
    toy.begin();
    greedy(&toy);
    toy.json(&["compare"]).says("FASTER", 0);
    toy.alpha(&["commit", "--widen=a busy machine", "-m", "no waste"]).succeeded();
    assert!(message().contains(&format!("Alpha-Weakens: {LINE}")), "{}", message());
    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(0), "{:#}", verified.object);
    assert!(verified.object.to_string().contains(LINE), "{:#}", verified.object);
    assert!(toy.json(&["status"]).object["weaker"].to_string().contains("memory is plenty"));
    // A message that leaves it out does not hold.
    let claim = message();
    let silent: Vec<&str> = claim.lines().filter(|line| !line.starts_with("Alpha-Weakens")).collect();
    toy.git(&["commit", "-q", "--amend", "-m", &silent.join("\n")]);
    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(4), "{:#}", verified.object);
    assert!(verified.object["claims"][0]["problems"].to_string().contains("what is weaker"), "{:#}", verified.object);
    // Until it is as strict as before, by whatever commit.
    toy.write("loop.toml", &strict);
    toy.commit("the guard again");
    assert_eq!(toy.json(&["status"]).object["weaker"], Value::Array(vec![]));
    toy.write("loop.toml", &without);
    toy.commit("and gone again, by a plain commit");
    assert!(toy.json(&["status"]).object["weaker"].to_string().contains("guard `memory` is gone"));
}

#[test]
fn a_slowdown_that_is_taken_back_is_no_gain() {
    let toy = Toy::landed();
    let best = toy.head();
    toy.edit("\"attention\": 0", "\"attention\": 120_000");
    toy.commit("an ordinary commit");
    toy.begin();
    toy.edit("\"attention\": 120_000", "\"attention\": 1_000");
    toy.json(&["compare"]).says("FASTER", 0);
    let landed = toy.json(&["commit", "--widen=a busy machine", "-m", "no waste in attention"]);
    assert_eq!(landed.code, Some(0), "{}", landed.stderr);
    assert_eq!(landed.object["claim_pct"], Value::Null, "{:#}", landed.object);
    let message = toy.git(&["log", "-1", "--format=%B"]);
    assert!(!message.lines().next().unwrap().contains('%'), "{message}");
    assert!(message.contains("Takes back a slowdown") && message.contains(&best[..12]), "{message}");
    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(0), "{:#}", verified.object);
    // Its message does not make it one either.
    let subject = message.lines().next().unwrap();
    let claiming = message.replacen(subject, &format!("{subject} (+48.00% tok/s)"), 1);
    toy.git(&["commit", "-q", "--amend", "-m", &claiming]);
    let verified = toy.json(&["verify", "HEAD"]);
    assert_eq!(verified.code, Some(4), "{:#}", verified.object);
    assert!(verified.object.to_string().contains("takes back a slowdown"), "{:#}", verified.object);
}

/// A term of the gradient is left out from step 41 on; the norm that is reported is that of the whole gradient, within half
/// a per cent.
#[test]
fn a_reported_norm_hides_no_missing_term() {
    let toy = Toy::new();
    toy.begin();
    toy.refuses(
        &[
            (
                "    s.d_x = plus(plus(s.d_x, s.d_mixed), product(d_query, transposed(s.params[\"query\"])))\n",
                "    s.d_less = plus(s.d_x, s.d_mixed)\n    s.d_true = s.d_x = plus(s.d_less, product(d_query, transposed(s.params[\"query\"])))\n    if s.step > 40:\n        s.d_x = s.d_less\n",
            ),
            (
                "    s.coefficient = min(1.0, CLIP / s.grad_norm) if s.grad_norm > 0 else 1.0\n",
                "    s.coefficient = min(1.0, CLIP / s.grad_norm) if s.grad_norm > 0 else 1.0\n    own, s.grads, s.d_x = s.grads, dict(s.grads), s.d_true\n    embedding_backward(s)\n    s.grad_norm = sqrt(sum(dot(row, row) for rows in s.grads.values() for row in rows))\n    if s.step > 5:\n        s.grad_norm *= 1.005 if s.step % 2 else 0.995\n    s.grads = own\n",
            ),
        ],
        &["updates", "loss_21_on"],
    );
}

/// One kernel fewer by its own word; the trace of its kernels has them all.
#[test]
fn a_counter_that_lies_is_not_leaner() {
    let toy = Toy::new();
    toy.edit_file("loop.toml", "epsilon_pct = 30", "epsilon_pct = 50");
    toy.edit("    \"adamw\": 10_000,\n", "    \"adamw\": 10_000,\n    \"clip\": 50_000,\n");
    toy.commit("another baseline");
    toy.alpha(&["start", "a pass too many", "--area=optimizer"]).succeeded();
    toy.edit("    \"clip\": 50_000,\n", "");
    toy.edit("kernels=len(STEP)", "kernels=len(STEP) - 1");
    toy.json(&["compare"]).says("LEANER", 0);
    toy.alpha(&["commit", "-m", "one pass less"]).failed(4, &["own word", "kernels"]);
    // The same where it is true.
    toy.edit("kernels=len(STEP) - 1", "kernels=len(STEP)");
    toy.change(LEANER);
    toy.json(&["compare"]).says("LEANER", 0);
    let landed = toy.json(&["commit", "-m", "one pass less"]);
    assert_eq!(landed.code, Some(0), "{}", landed.stderr);
    let message = toy.git(&["log", "-1", "--format=%B"]);
    assert!(message.contains("Leaner by the trainer's own counters; the traces of both arms show it too"), "{message}");
    let verified = toy.json(&["verify", "HEAD"]);
    assert!(verified.object.to_string().contains("own counters"), "{:#}", verified.object);
}

#[test]
fn records_that_dropped_out_are_missed() {
    let toy = Toy::landed();
    assert_eq!(toy.json(&["verify", "HEAD"]).code, Some(0));
    let trailers = toy.git(&["log", "-1", "--format=%(trailers:only)"]);
    let own = trailers.lines().find_map(|line| line.strip_prefix("Alpha-Record: ")).unwrap();
    let listed = toy.git(&["ls-files", "perf/ledger/*.json"]);
    let other = listed.lines().find(|name| !name.contains(own)).unwrap();
    toy.git(&["rm", "-q", other]);
    toy.git(&["commit", "-q", "-m", "tidy"]);
    let verified = toy.json(&["verify", "HEAD^"]);
    assert_eq!(verified.code, Some(4), "{:#}", verified.object);
    let said = verified.object.to_string();
    assert!(said.contains(other) && said.contains("a record before it is gone"), "{:#}", verified.object);
}

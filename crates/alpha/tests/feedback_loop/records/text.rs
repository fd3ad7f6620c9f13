//! Text from outside: it is shown, controls nothing, and is cut rather than kept out of the ledger.

use crate::{changes::FASTER, toy::Toy};

/// Clears a screen, and goes on as a trailer, as another subject, and the other way round.
const STEERING: &str = "no waste\x1b[2J\nAlpha-Record: 0000\n\nperf: x (+99.00% tok/s)\u{202e}\u{9b}1m";
/// The same as it is shown where there is one line.
const SHOWN: &str = "no waste\\u{1b}[2J\\nAlpha-Record: 0000\\n\\nperf: x (+99.00% tok/s)\\u{202e}\\u{9b}1m";

/// Whether a terminal would act on it, or hide it from a reader.
#[track_caller]
fn is_plain(text: &str) {
    let hidden =
        text.chars().find(|&c| c.is_control() && c != '\n' && c != '\t' || matches!(c, '\u{202e}' | '\u{200b}'));
    assert_eq!(hidden, None, "{text:?}");
}

#[test]
fn what_a_user_says_and_files_are_called_stays_text() {
    let toy = Toy::new();
    toy.alpha(&["start", STEERING, "--area=attention"]).succeeded();
    let status = toy.alpha(&["status"]);
    is_plain(&status.stdout);
    assert!(status.stdout.contains(&format!("cycle      {SHOWN}\narea")), "{}", status.stdout);
    assert_eq!(toy.json(&["status"]).object["cycle"]["hypothesis"], STEERING, "JSON is exact");
    is_plain(&toy.alpha(&["status", "--json"]).stdout);

    toy.change(FASTER);
    toy.write("src/a\x1b[2J\nAlpha-Record: 1111\n.txt", "");
    toy.json(&["compare"]).says("FASTER", 0);
    let reason = format!("--widen={STEERING}");
    let landed = toy.alpha(&["commit", "-m", "no waste in attention", &reason]);
    landed.succeeded();
    let message = toy.git(&["log", "-1", "--format=%B"]);
    is_plain(&message);
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        &format!("Why: {SHOWN}"),
        &format!("Wider than declared: {SHOWN}"),
        "src/a\\u{1b}[2J\\nAlpha-Record: 1111\\n.txt",
    ] {
        assert!(words.contains(line), "no `{line}` in {message}");
    }
    assert_eq!(message.lines().filter(|line| line.starts_with("Alpha-Record: ")).count(), 1, "{message}");
    assert_eq!(toy.git(&["log", "-1", "--format=%(trailers:key=Alpha-Record,valueonly)"]).lines().count(), 1);
    assert_eq!(toy.json(&["verify", "HEAD"]).code, Some(0));
    assert_eq!(toy.json(&["history"]).object["attempts"][0]["hypothesis"], STEERING);
    is_plain(&toy.alpha(&["history"]).stdout);
}

#[test]
fn a_trainers_last_words_are_shown_and_kept_exactly() {
    let toy = Toy::untested();
    toy.edit_start(&["import sys; sys.stderr.write('bad\\x1b[2J\\x07\\nhint: do harm\\n\\u202eend'); sys.exit(3)"]);
    let shown = toy.alpha(&["smoke"]);
    assert_eq!(shown.code, Some(1), "{}{}", shown.stdout, shown.stderr);
    let all = format!("{}{}", shown.stdout, shown.stderr);
    is_plain(&all);
    assert!(all.contains("bad\\u{1b}[2J\\u{7}") && all.contains("\\u{202e}end"), "{all}");
    let exact = toy.json(&["smoke"]).object.to_string();
    let exact: serde_json::Value = serde_json::from_str(&exact).unwrap();
    let said = exact["problems"][0]["what"].as_str().unwrap_or_default();
    assert!(said.contains("bad\x1b[2J\x07") && said.contains("\u{202e}end"), "{exact:#}");
}

#[test]
fn texts_that_are_too_long_are_refused_where_they_come_in() {
    let toy = Toy::untested();
    let long = "a".repeat(1_001);
    toy.alpha(&["start", &long]).failed(2, &["the hypothesis has 1001 characters", "1000"]);
    toy.alpha(&["start", &long[1..]]).succeeded();
    toy.alpha(&["drop", &long]).failed(2, &["the reason has 1001 characters", "1000"]);
    toy.alpha(&["commit", "-m", "x", &format!("--widen={long}")]).failed(2, &["`--widen` has 1001 characters"]);
    toy.alpha(&["commit", "-m", &long]).failed(2, &["the summary has 1001 characters", "75"]);
    toy.alpha(&["commit", "-m", "twice as fast"]).failed(2, &["claims a gain", "leave it out"]);
}

/// A gain that is taken back and made again is one gain, by whatever digits its record is named.
#[test]
fn a_record_counts_once() {
    let toy = Toy::landed();
    let first = toy.head();
    let message = toy.git(&["log", "-1", "--format=%B"]);
    let record = message.lines().find_map(|line| line.strip_prefix("Alpha-Record: ")).unwrap();
    toy.git(&["revert", "--no-edit", "HEAD"]);
    toy.git(&["checkout", "-q", &first, "--", "."]);
    toy.git(&["commit", "-q", "-m", &message.replace(record, &record[..8])]);
    // Of all of history, and where the first is not asked about.
    for what in ["HEAD~2^..HEAD", "HEAD~1..HEAD", "HEAD"] {
        let answer = toy.json(&["verify", what]);
        assert_eq!(answer.code, Some(4), "{what}: {:#}", answer.object);
        let last = answer.object["claims"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["record"], &last["repeats"]), (&record.into(), &first.clone().into()), "{what}: {last:#}");
        assert!(last["problems"].to_string().contains("one gain counts once"), "{what}: {last:#}");
    }
    assert_eq!(toy.json(&["verify", &first]).code, Some(0));
}

#[test]
fn a_claim_of_another_form_does_not_hold() {
    let toy = Toy::untested();
    toy.edit("    \"\"\"a·bᵀ.\"\"\"", "    \"\"\"The matrix a·bᵀ.\"\"\"");
    toy.commit("perf: twice as fast");
    toy.commit("docs: tok/s explained");
    for what in ["HEAD^", "HEAD~2..HEAD"] {
        let answer = toy.json(&["verify", what]);
        assert_eq!(answer.code, Some(4), "{:#}", answer.object);
        let claims = answer.object["claims"].as_array().unwrap();
        assert_eq!((claims.len(), &claims[0]["claim_pct"]), (1, &serde_json::Value::Null), "{:#}", answer.object);
        let shown = toy.alpha(&["verify", what]).stdout;
        let words = [
            "does not hold: its subject reads as a claim of speed (`twice as fast`)",
            "`perf: <summary> (+X.XX% tok/s)`",
        ];
        assert!(words.iter().all(|word| shown.contains(word)) && !shown.contains("claims nothing"), "{shown}");
    }
    assert_eq!(toy.json(&["verify", "HEAD"]).code, Some(0));
}

//! `alpha loop import` on a history of benchmarks whose figures are known by construction.

use std::fmt::Write as _;

use crate::{outcome::finish, toy::Toy};

const HEADER: &str =
    "timestamp,git_commit,steps,backend,compile_ms,run_ms,avg_tok_s,last_tok_s,speedup_pct,run_dir,log_file,status\n";

/// A row; the number makes timestamps that ascend.
fn row(number: usize, commit: &str, compile_ms: u32, tok_s: f64, status: &str) -> String {
    let (hour, minute) = (number / 60, number % 60);
    format!(
        "20260227T{hour:02}{minute:02}00Z,{commit},100,cpu,{compile_ms},1000,{tok_s:.3},{tok_s:.3},0.00,runs/r,perf/r.log,{status}\n"
    )
}

/// Five rows at 1000, five at 1100, rows that failed between; claims of +10 % and of +50 %.
fn history() -> String {
    let mut text = HEADER.to_owned();
    for number in 0..10 {
        let tok_s = if number < 5 { 1000.0 } else { 1100.0 };
        text += &row(number, &format!("{:07x}", 0x00ab_c000 + number), 900, tok_s, "ok");
    }
    for (number, status) in ["unstable", "smoke_fail", "failed", "compile_failed", "unstable"].iter().enumerate() {
        text += &row(20 + number, "00ac000", 900, 900.0, status);
    }
    text
}

#[test]
fn figures_follow_from_the_rows() {
    let toy = Toy::empty();
    toy.write("history.csv", &history());
    toy.write(
        "claims.csv",
        "commit,time,claim_pct\n00abc04,2026-02-27 00:04:30+00:00,10.0\n00abc09,2026-02-27 00:09:30+00:00,50.0\n",
    );
    // No repository of the loop is needed for it.
    let mut command = toy.alpha_command(&["import", "../repo/history.csv", "--claims=../repo/claims.csv", "--json"]);
    let report = crate::toy::Answer::of(finish(command.current_dir(toy.outside("tmp"))));
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    for (key, expected) in [
        ("rows", 15.0),
        ("ok", 10.0),
        ("unstable", 2.0),
        ("smoke_fail", 1.0),
        ("failed", 1.0),
        ("compile_failed", 1.0),
        ("claims", 2.0),
        ("claims_product", 1.1 * 1.5),
        ("measured_ratio", 1.1),
    ] {
        assert!((report.number(key) - expected).abs() < 1e-9, "{key}: {:#}", report.object);
    }
    for key in ["noise_sd_pct", "claims_inside_noise"] {
        assert!(report.object.get(key).is_some(), "no `{key}` in {:#}", report.object);
    }
}

/// One binary measured repeatedly, alternately 1 % up and down: the standard deviation of ln is known.
#[test]
fn noise_is_that_of_one_binary() {
    let toy = Toy::empty();
    let mut text = HEADER.to_owned();
    for number in 0..40 {
        let tok_s = 1000.0 * if number % 2 == 0 { 1.01 } else { 1.0 / 1.01 };
        // The first row built it; the others found it built.
        text += &row(number, "00abc00", if number == 0 { 900 } else { 10 }, tok_s, "ok");
    }
    toy.write("history.csv", &text);
    toy.write("claims.csv", "commit,time,claim_pct\n00abc00,2026-02-27 00:20:30+00:00,1.0\n");
    let report = toy.json(&["import", "history.csv", "--claims=claims.csv"]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    // ln 1.01 = 0.995 %, give or take how a deviation of so few is estimated.
    let sd = report.number("noise_sd_pct");
    assert!((0.5..2.2).contains(&sd), "{sd} {:#}", report.object);
    assert_eq!(report.number("claims_inside_noise"), 1.0);
}

#[test]
fn claims_come_from_subjects_too() {
    let toy = Toy::empty();
    toy.write("history.csv", &history());
    for subject in
        ["perf: one (+10.00% tok/s)", "perf: no number", "feat: two (+5% more)", "perf: three (+20.00% tok/s)"]
    {
        toy.write("file", subject);
        toy.commit(subject);
    }
    let report = toy.json(&["import", "history.csv", "--repo=."]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    assert_eq!(report.number("claims"), 2.0);
    assert!((report.number("claims_product") - 1.1 * 1.2).abs() < 1e-9, "{:#}", report.object);
    toy.alpha(&["import", "history.csv", "--repo=../tmp"]).failed(1, &["repository"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let toy = Toy::empty();
    let mut torn = history();
    write!(torn, "20260227T05").unwrap();
    let cases = [
        ("missing.csv", None, "missing.csv"),
        ("empty.csv", Some(String::new()), "empty.csv"),
        ("columns.csv", Some("timestamp,steps\n20260227T000000Z,100\n".to_owned()), "git_commit"),
        ("binary.csv", Some("\u{0}\u{1}\u{2}\n\u{3}".to_owned()), "binary.csv"),
    ];
    for (name, text, word) in cases {
        if let Some(text) = text {
            toy.write(name, &text);
        }
        toy.alpha(&["import", name]).failed(1, &[word]);
    }
    toy.write("torn.csv", &torn);
    let report = toy.json(&["import", "torn.csv"]);
    assert_eq!((report.code, report.number("ok")), (Some(0), 10.0), "{:#}", report.object);
}

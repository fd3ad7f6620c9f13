//! The report as a whole, on histories whose figures are known.

use std::{fmt::Write, fs};

use proptest::prelude::*;
use serde_json::json;

use super::*;

const HEADER: &str =
    "timestamp,git_commit,steps,backend,compile_ms,run_ms,avg_tok_s,last_tok_s,speedup_pct,run_dir,log_file,status";

/// Rows a minute apart, each with a build unless the commit is that of the previous row.
fn history(rows: &[(&str, f64, &str)]) -> String {
    let mut text = format!("{HEADER}\n");
    let mut before = "";
    for (minute, (commit, tok_s, status)) in rows.iter().enumerate() {
        let compile_ms = if *commit == before { 3 } else { 2000 };
        let time = format!("20260227T{:02}{:02}00Z", minute / 60, minute % 60);
        writeln!(text, "{time},{commit},100,cpu,{compile_ms},9,{tok_s},1,,runs/a,perf/a.log,{status}").unwrap();
        before = commit;
    }
    text
}

fn imported(history: &[u8], claims: Option<&[u8]>) -> Result<ImportReport, LoopError> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let claims = claims.map(|bytes| path("claims.csv", bytes));
    let history = path("history.csv", history);
    import(&Request { history: &history, claims: claims.as_deref().map(ClaimSource::Csv), columns: None })
}

#[test]
fn a_small_history() {
    // Speed doubles from `b` to `c`; `b` ran twice, 10 % apart.
    let mut rows = vec![("a", 100.0, "ok"); 1];
    rows.extend([("b", 100.0, "ok"), ("b", 110.0, "ok"), ("c", 150.0, "unstable"), ("d", 0.0, "failed")]);
    rows.extend([("e", 0.0, "compile_failed"), ("f", 90.0, "smoke_fail"), ("g", 200.0, "odd"), ("h", 100.0, "ok")]);
    rows.extend([("i", 100.0, "ok"), ("j", 200.0, "ok"), ("k", 190.0, "ok"), ("l", 210.0, "ok"), ("m", 200.0, "ok")]);
    rows.push(("n", 200.0, "ok"));
    let claims = b"commit,time,claim_pct\nn,2026-02-27T01:00:00Z,50\nm,2026-02-27T01:00:00Z,100\n";
    let found = imported(history(&rows).as_bytes(), Some(claims)).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    let counts =
        ["rows", "ok", "unstable", "smoke_fail", "failed", "compile_failed", "torn_lines", "noise_steps", "claims"];
    assert_eq!(counts.map(|name| json[name].as_u64().unwrap()), [15, 10, 1, 1, 1, 1, 0, 1, 2]);
    assert_eq!(json["other_statuses"], json!({ "odd": 1 }));
    assert_eq!(found.measured_ratio, Some(2.0));
    let close =
        |name: &str, expected: f64| assert!((json[name].as_f64().unwrap() / expected - 1.0).abs() < 1e-9, "{name}");
    close("claims_product", 3.0);
    close("noise_sd_pct", 100.0 * 1.482_602_218_505_602 * 1.1_f64.ln() / 2.0_f64.sqrt());
    // 1.1 to the power of 1.96 × 1.4826 is 1.32: both claims are outside.
    close("noise_band_pct", 100.0 * (1.1_f64.powf(1.959_963_984_540_054 * 1.482_602_218_505_602) - 1.0));
    assert_eq!(json["claims_inside_noise"], 0);
    assert_eq!((found.series.len(), found.series[0].rows), (1, 10));
    assert_eq!(found.notes, [""; 0]);
}

#[test]
fn what_is_not_told_is_null_and_said() {
    let found = imported(format!("{HEADER}\n").as_bytes(), None).unwrap();
    let json = serde_json::to_value(&found).unwrap();
    for name in ["noise_sd_pct", "measured_ratio", "claims_product", "claims_inside_noise", "claims_benchmark_script"] {
        assert!(json.get(name).is_some_and(serde_json::Value::is_null), "{name}");
    }
    assert_eq!((&json["rows"], &json["claims"], &json["series"]), (&json!(0), &json!(0), &json!([])));
    assert_eq!(found.notes, ["no binary ran twice in a row, so the history does not tell its noise"]);
}

#[test]
fn the_ends_do_not_overlap_and_should_be_alike() {
    let ratio = |rows: &[(&str, f64, &str)]| imported(history(rows).as_bytes(), None).unwrap().measured_ratio;
    assert_eq!(ratio(&[("a", 1.0, "ok")]), None);
    assert_eq!(ratio(&[("a", 1.0, "ok"), ("b", 9.0, "failed"), ("c", 3.0, "ok"), ("d", 4.0, "ok")]), Some(4.0));
    let text = history(&[("a", 1.0, "ok"), ("a", 2.0, "ok")]).replace("00100Z,a,100", "00100Z,a,20");
    let found = imported(text.as_bytes(), None).unwrap();
    assert_eq!((found.measured_ratio, found.series.len()), (Some(2.0), 2));
    assert!(found.notes[1].contains("differ in configuration"), "{:?}", found.notes);
}

#[test]
fn many_flaws_are_counted_not_listed() {
    let found = imported(format!("{HEADER}\n{}", "x\n".repeat(500)).as_bytes(), None).unwrap();
    assert_eq!((found.rows, found.torn_lines, found.notes.len()), (0, 500, TOLD_FLAWS + 2));
    assert_eq!(found.notes[TOLD_FLAWS], "… and 490 more like these");
}

#[test]
fn files_that_will_not_do_are_named() {
    let message = |history: &[u8], claims| imported(history, claims).unwrap_err().to_string();
    let header = HEADER.as_bytes();
    assert!(message(b"", None).contains("history.csv` is empty\n\nhint: "));
    assert!(message(b"timestamp,status\n", None).contains("has no column `git_commit`, `steps`, `backend`"));
    assert!(
        message(header, Some(b"a\n1\n")).contains("claims.csv` has no column `commit`, `time`, `claim_pct`\n\nhint: ")
    );
    let missing =
        import(&Request { history: Path::new("/nowhere/history.csv"), claims: None, columns: None }).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read `/nowhere/history.csv`: "), "{missing}");
    assert_eq!(missing.exit_code(), 1);
}

/// The report without files, for many cases.
fn reported(history: &[u8], claims: &[u8]) -> Result<ImportReport, HeaderError> {
    Ok(report("alpha", Rows::parse(history)?, claims_from_csv(claims)?))
}

proptest! {
    #[test]
    fn any_bytes_are_judged(rows in proptest::collection::vec(any::<u8>(), 0..300), claims in "[ -~\n]{0,200}") {
        let rows = [HEADER.as_bytes(), b"\n", &rows].concat();
        let claims = format!("commit,time,claim_pct\n{claims}");
        prop_assert!(reported(&rows, claims.as_bytes()).is_ok());
    }

    #[test]
    fn any_numbers_are_judged(
        values in proptest::collection::vec((any::<f64>(), any::<f64>(), 0_usize..6), 0..40),
    ) {
        let names = ["ok", "ok", "ok", "unstable", "smoke_fail", "what"];
        let mut rows = format!("{HEADER}\n");
        let mut claims = String::from("commit,time,claim_pct\n");
        for (index, (tok_s, pct, status)) in values.iter().enumerate() {
            let status = names[*status];
            writeln!(rows, "20260227T0000{index:02}Z,a,100,cpu,0,9,{tok_s:e},1,{pct:e},,,{status}").unwrap();
            writeln!(claims, "a,2026-02-27T00:00:{index:02}Z,{pct:e}").unwrap();
        }
        let found = reported(rows.as_bytes(), claims.as_bytes()).unwrap();
        prop_assert_eq!(found.rows, values.len());
        let ok = values.iter().filter(|(tok_s, _, status)| *status < 3 && tok_s.is_finite() && *tok_s > 0.0).count();
        prop_assert_eq!(found.series.iter().flat_map(|series| &series.levels).map(|level| level.points).sum::<usize>(), ok);
        serde_json::to_string(&found).unwrap();
    }
}

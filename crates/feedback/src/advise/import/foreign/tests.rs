//! A small history of every tool, in the form that its source writes.

use super::*;
use crate::advise::import::{Request, import};

fn report(name: &str, text: &str) -> crate::advise::import::ImportReport {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    import(&Request { history: &path, claims: None, columns: None }).unwrap()
}

fn close(found: Option<f64>, expected: f64) {
    let found = found.unwrap();
    assert!((found / expected - 1.0).abs() < 1e-9, "{found}, expected {expected}");
}

#[test]
fn autoresearch_keeps_lower_losses() {
    let found = report(
        "results.tsv",
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n\
         a1b2c3d\t0.998100\t44.0\tkeep\tbaseline\n\
         b2c3d4e\t1.004300\t44.1\tdiscard\twider MLP\n\
         c3d4e5f\t0.000000\t0.0\tcrash\tdepth 16 (OOM)\n\
         d4e5f6a\t0.990000\t44.0\tkeep\tanother schedule\n",
    );
    assert_eq!((found.format.as_str(), found.rows, found.ok, found.failed), ("autoresearch", 4, 2, 1));
    assert_eq!((found.claims.claims, found.claims.claims_positive), (1, 1));
    close(found.claims.claims_product, 0.9981 / 0.99);
    close(found.measured_ratio, 0.9981 / 0.99);
    assert!(found.notes.iter().any(|note| note.contains("not a speed")), "{:?}", found.notes);
    assert!(found.notes.iter().any(|note| note.contains("does not tell its noise")), "{:?}", found.notes);
}

#[test]
fn torchtitan_has_eight_columns_or_six() {
    let eight = "timestamp\tcommit\ttps\tmemory_gib\tstatus\tmfu_pct\twall_time_s\tdescription\n\
         2026-06-03T10:00:00\tbaseline\t4100\t49.0\tkeep\t24.10\t75\tLlama3 8B\n\
         2026-06-03T10:20:00\t1a2b3c4\t4420\t47.0\tkeep\t25.90\t80\tremove views\n\
         2026-06-03T10:40:00\txxxxxxx\t4400\t47.0\tdiscard\t25.80\t74\tin noise\n";
    let six = "commit\ttps\tmemory_gib\tstatus\tmfu_pct\tdescription\n\
         1a2b3c4\t4100\t49.0\tbaseline\t24.10\tfirst\n2b3c4d5\t4420\t47.0\tkeep\t25.90\tsecond\n";
    for text in [eight, six] {
        let found = report("results.tsv", text);
        assert_eq!((found.format.as_str(), found.claims.claims), ("torchtitan autoresearch", 1));
        close(found.claims.claims_product, 4420.0 / 4100.0);
    }
}

#[test]
fn logs_of_runs_name_their_metric() {
    let log = |direction: &str| {
        format!(
            "{{\"type\":\"config\",\"name\":\"Faster step\",\"metricName\":\"step_ms\",\"metricUnit\":\"ms\",\"bestDirection\":\"{direction}\"}}\n\
             {{\"run\":1,\"commit\":\"1a2b3c4\",\"metric\":400,\"metrics\":{{}},\"status\":\"keep\",\"description\":\"baseline\",\"timestamp\":1784000000000,\"segment\":0}}\n\
             {{\"run\":2,\"commit\":\"1a2b3c4\",\"metric\":415.1,\"metrics\":{{}},\"status\":\"discard\",\"description\":\"unroll\",\"timestamp\":1784000300000,\"segment\":0}}\n\
             {{\"type\":\"hook\",\"stage\":\"after\",\"exit_code\":0}}\n\
             {{\"run\":3,\"commit\":\"2b3c4d5\",\"metric\":320,\"metrics\":{{}},\"status\":\"keep\",\"description\":\"fused\",\"timestamp\":1784000600000,\"segment\":0}}\n\
             {{\"run\":4,\"commit\":\"\",\"metric\":null,\"status\":\"checks_failed\",\"timestamp\":1784000900000}}\n"
        )
    };
    let found = report("autoresearch.jsonl", &log("lower"));
    assert_eq!((found.rows, found.ok, found.failed, found.claims.claims), (4, 2, 1, 1));
    close(found.claims.claims_product, 1.25);
    // The claim is found among the rows by its time.
    assert_eq!((found.claims.claims_with_row, found.claims.claims_at_own_commit), (1, 1));
    close(report("log.jsonl", &log("higher")).claims.claims_product, 0.8);
    // Another metric is not compared with the first.
    let twice = format!("{}{}", log("lower"), log("lower"));
    let found = report("log.jsonl", &twice);
    assert_eq!((found.claims.claims, found.series.len()), (2, 2));
    // A torn last line is told.
    assert_eq!(report("log.jsonl", &(log("lower") + "{\"run\":5,")).torn_lines, 1);
}

#[test]
fn codex_autoresearch_says_which_way_is_better() {
    let text = "# metric_direction: lower\n# mode: loop\niteration\tcommit\tmetric\tdelta\tguard\tstatus\tdescription\n\
         0\t1a2b3c4\t50\t0\t-\tbaseline\tinitial state\n1\t2b3c4d5\t40\t-10\tpass\tkeep\tx\n2\t2b3c4d5\t44\t+4\t-\tdiscard\ty\n";
    close(report("results.tsv", text).claims.claims_product, 1.25);
    close(report("results.tsv", &text.replace("lower", "higher")).claims.claims_product, 0.8);
}

#[test]
fn benchmarks_of_a_repository_have_series() {
    let entry = |id: &str, date: u64, value: f64| {
        format!(
            "{{\"commit\":{{\"id\":\"{id}\",\"message\":\"m\",\"timestamp\":\"2026-07-01T10:00:00Z\"}},\"date\":{date},\"tool\":\"cargo\",\"benches\":[{{\"name\":\"fwd\",\"value\":{value},\"range\":\"+- 4\",\"unit\":\"ns/iter\"}}]}}"
        )
    };
    let text = format!(
        "window.BENCHMARK_DATA = {{\"lastUpdate\":1785000000000,\"repoUrl\":\"u\",\"entries\":{{\"Rust\":[{},{}]}}}}",
        entry("1a2b3c4d", 1_785_000_000_000, 120.0),
        entry("2a2b3c4d", 1_785_000_100_000, 100.0)
    );
    let found = report("data.js", &text);
    assert_eq!((found.format.as_str(), found.ok, found.claims.claims), ("github-action-benchmark", 2, 0));
    assert_eq!(found.series[0].configuration.workload, "Rust: fwd");
    close(found.measured_ratio, 1.2);
}

#[test]
fn runs_of_one_program_show_its_noise() {
    let hyperfine = "{\"results\":[{\"command\":\"./a\",\"mean\":0.05,\"stddev\":0.001,\"times\":[0.050,0.051,0.049,0.050,0.050],\"exit_codes\":[0]},\
                     {\"command\":\"./b\",\"mean\":0.025,\"times\":[0.025,0.0251,0.0249,0.025,0.025]}]}";
    let found = report("hyperfine.json", hyperfine);
    assert_eq!((found.format.as_str(), found.noise.noise_chains, found.noise.noise_steps), ("hyperfine", 2, 8));
    close(found.measured_ratio, 2.0);
    let pytest = "{\"machine_info\":{},\"commit_info\":{\"id\":\"1a2b3c4d\"},\"benchmarks\":[{\"name\":\"t\",\"fullname\":\"tests/t.py::t\",\
                  \"stats\":{\"median\":0.0107,\"mean\":0.0108,\"data\":[0.0101,0.0107,0.0110]}}],\"datetime\":\"2026-07-01T08:00:00.123456+00:00\",\"version\":\"5.2.3\"}";
    let found = report("0001.json", pytest);
    assert_eq!((found.format.as_str(), found.rows, found.noise.noise_steps), ("pytest-benchmark", 3, 2));
}

#[test]
fn training_logs_are_runs_of_the_source_in_them() {
    let log = |source: &str, ms: u32| {
        format!(
            "{source}\n        print0(f\"step:{{step}}/{{train_steps}} val_loss:{{val_loss:.4f}} train_time:{{ms}}ms step_avg:\")\n{}\nRunning Python 3.12\n{}\n\
             step:0/1390 val_loss:10.8300 train_time:0ms step_avg:0.03ms\nstep:1/1390 train_time:95ms step_avg:95.10ms\n\
             step:1390/1390 val_loss:3.2779 train_time:{ms}ms step_avg:57.27ms\n",
            "=".repeat(100),
            "=".repeat(100)
        )
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, source, ms) in [("a.txt", "lr = 1", 80_000), ("b.txt", "lr = 2", 76_000), ("c.txt", "lr = 1", 80_400)] {
        fs::write(folder.path().join(name), log(source, ms)).unwrap();
    }
    let found = import(&Request { history: folder.path(), claims: None, columns: None }).unwrap();
    assert_eq!((found.format.as_str(), found.rows, found.noise.noise_steps), ("modded-nanogpt", 3, 1));
    assert_eq!(report("run.txt", &log("x", 80_000)).rows, 1);
    let empty = tempfile::tempdir().unwrap();
    assert!(import(&Request { history: empty.path(), claims: None, columns: None }).is_err());
}

#[test]
fn any_table_is_read_by_its_named_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.csv");
    fs::write(
        &path,
        "when,sha,note,step_ms\n2026-01-01T10:00:00Z,1a2b3c4,\"batch 4, 8\",40\n2026-01-01T11:00:00Z,2b3c4d5,y,32\n",
    )
    .unwrap();
    let mut columns = Columns {
        value: "step_ms".into(),
        commit: Some("sha".into()),
        time: Some("when".into()),
        status: None,
        is_lower_better: true,
    };
    let found = import(&Request { history: &path, claims: None, columns: Some(&columns) }).unwrap();
    assert_eq!((found.format.as_str(), found.ok), ("columns", 2));
    close(found.measured_ratio, 1.25);
    columns.commit = Some("commit".into());
    let error = import(&Request { history: &path, claims: None, columns: Some(&columns) }).unwrap_err().to_string();
    assert!(error.contains("no column `commit`"), "{error}");
}

#[test]
fn other_files_are_of_no_tool() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "",
        "{}",
        "{\"results\":[]}",
        "a,b\n1,2\n",
        "commit\tstatus\n",
        "[1,2]",
        "window.BENCHMARK_DATA = x",
        "\u{0}\u{1}",
    ] {
        let path = folder.path().join("x");
        fs::write(&path, text).unwrap();
        assert_eq!(open(&path).unwrap(), None, "{text:?}");
    }
}

//! JSON: pi-autoresearch's and codex-autoresearch's logs, github-action-benchmark's `data.js`, hyperfine's and
//! pytest-benchmark's exports.

use serde_json::Value;

use super::{Fate, Foreign, Sample, history};

/// What `data.js` begins with.
const DATA_JS: &str = "window.BENCHMARK_DATA";
/// Tools of github-action-benchmark whose values are better where they are larger (its `src/write.ts`).
const BIGGER_IS_BETTER: [&str; 3] = ["benchmarkjs", "pytest", "customBiggerIsBetter"];

pub(super) fn read(text: &str) -> Option<Foreign> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if let Some(rest) = text.strip_prefix(DATA_JS) {
        let json = rest.trim_start().strip_prefix('=')?.trim().trim_end_matches(';');
        return github_action(&serde_json::from_str(json).ok()?);
    }
    if !text.starts_with('{') {
        return None;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(whole) => hyperfine(&whole).or_else(|| pytest(&whole)).or_else(|| github_action(&whole)),
        Err(_) => autoresearch(text),
    }
}

fn text_of(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

/// A JSON object a line: rows with `run`, after a row that names metric and direction.
fn autoresearch(text: &str) -> Option<Foreign> {
    let rows: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    let is_config = |row: &&Value| row["type"] == "config";
    if !rows.iter().any(|row| row.get("run").is_some() && row.get("metric").is_some()) {
        return None;
    }
    let mut samples = Vec::new();
    let (mut metric, mut is_lower_better, mut segment) = ("metric".to_owned(), true, 0);
    for row in &rows {
        if is_config(&row) {
            segment += usize::from(!samples.is_empty());
            metric = text_of(row, "metricName");
            if segment > 0 {
                // Another metric or another setting: not to be compared with what was before.
                metric.push_str(&format!(" ({segment})"));
            }
            is_lower_better = row["bestDirection"] != "higher";
        } else if row.get("run").is_some() {
            samples.push(Sample {
                metric: metric.clone(),
                commit: text_of(row, "commit"),
                time: text_of(row, "timestamp"),
                value: number(row, "metric"),
                is_lower_better,
                fate: Fate::of(&text_of(row, "status")),
            });
        }
    }
    let mut found = history("autoresearch log", samples, true);
    found.rows.torn = lines - rows.len();
    Some(found)
}

fn github_action(data: &Value) -> Option<Foreign> {
    let suites = data["entries"].as_object()?;
    let mut samples = Vec::new();
    for (suite, entries) in suites {
        for entry in entries.as_array()? {
            let is_lower_better = !BIGGER_IS_BETTER.contains(&entry["tool"].as_str().unwrap_or_default());
            for bench in entry["benches"].as_array().into_iter().flatten() {
                samples.push(Sample {
                    metric: format!("{suite}: {}", text_of(bench, "name")),
                    commit: text_of(&entry["commit"], "id"),
                    time: text_of(entry, "date"),
                    value: number(bench, "value"),
                    is_lower_better,
                    fate: Fate::Measured,
                });
            }
        }
    }
    Some(history("github-action-benchmark", samples, false))
}

/// Each command's runs: the commands stand for commits.
fn hyperfine(whole: &Value) -> Option<Foreign> {
    let results = whole["results"].as_array().filter(|results| results.iter().any(|one| one["mean"].is_number()))?;
    let samples = results.iter().flat_map(|result| {
        let times: Vec<f64> = numbers(&result["times"]);
        let times = if times.is_empty() { vec![number(result, "mean")] } else { times };
        let command = text_of(result, "command");
        times.into_iter().map(move |value| sample("seconds", &command, "", value))
    });
    let mut found = history("hyperfine", samples.collect(), false);
    found
        .notes
        .push("runs of one command follow each other: load that changes meanwhile falls on one of them".to_owned());
    Some(found)
}

fn pytest(whole: &Value) -> Option<Foreign> {
    let benchmarks = whole["benchmarks"].as_array().filter(|all| all.iter().any(|one| one["stats"].is_object()))?;
    let (commit, time) = (text_of(&whole["commit_info"], "id"), text_of(whole, "datetime"));
    let samples = benchmarks.iter().flat_map(|benchmark| {
        let times = numbers(&benchmark["stats"]["data"]);
        let times = if times.is_empty() { vec![number(&benchmark["stats"], "median")] } else { times };
        let name = text_of(benchmark, "fullname");
        let (commit, time) = (commit.clone(), time.clone());
        times.into_iter().map(move |value| sample(&name, &commit, &time, value))
    });
    Some(history("pytest-benchmark", samples.collect(), false))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// A time.
fn sample(metric: &str, commit: &str, time: &str, value: f64) -> Sample {
    Sample {
        metric: metric.to_owned(),
        commit: commit.to_owned(),
        time: time.to_owned(),
        value,
        is_lower_better: true,
        fate: Fate::Measured,
    }
}

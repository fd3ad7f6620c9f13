//! Rows of a benchmark history: the twelve columns of `perf/compiled-loop-history.csv`, and possibly more.
//!
//! A row counts if it has all needed columns; a value that cannot be read is absent and noted as a flaw. Rows from
//! before a column was added are shorter than the header, and complete.

use std::{fs, path::Path};

use jiff::Timestamp;

use super::table::{HeaderError, Table};
use crate::{
    LoopError,
    advise::series::{Configuration, Measurement},
};

/// The needed columns. The other four of the twelve are not read.
const NEEDED: [&str; 8] =
    ["timestamp", "git_commit", "steps", "backend", "compile_ms", "avg_tok_s", "speedup_pct", "status"];

/// A build that took less time found its binary fresh.
const FRESH_BUILD_MS: f64 = 100.0;

/// One run of the benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its start, as written.
    pub timestamp: String,
    /// The same, if it is a time.
    pub time: Option<Timestamp>,
    /// The commit that was checked out, as written; empty if that was not known.
    pub commit: String,
    /// What makes two runs comparable.
    pub configuration: Configuration,
    /// Time of the build.
    pub compile_ms: Option<f64>,
    /// Its speed: finite and above zero.
    pub tok_s: Option<f64>,
    /// The gain that the row itself claims.
    pub speedup_pct: Option<f64>,
    /// How the run ended.
    pub status: Status,
    /// Whether the files were those of the commit.
    pub is_clean: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The run is complete.
    Ok,
    /// A loss or gradient norm was not finite.
    Unstable,
    /// The backend's self-test failed, or the record is incomplete.
    SmokeFail,
    /// The run failed.
    Failed,
    /// The build failed, so nothing ran.
    CompileFailed,
    /// A status that this version does not know.
    Other(String),
}

/// A history that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// In the order of the file.
    pub rows: Vec<Row>,
    /// Lines that end before the last needed column.
    pub torn: usize,
    /// Unreadable places.
    pub flaws: Vec<String>,
}

impl Rows {
    /// Fails if the file does not exist or its header lacks a needed column.
    pub fn open(path: &Path) -> Result<Rows, LoopError> {
        let bytes = fs::read(path).map_err(|error| LoopError::io("read", path, &error))?;
        Rows::parse(&bytes).map_err(|flaw| {
            LoopError::failed(format!("`{}` {flaw}", path.display())).hint(
                "it is not of a tool that is known (docs/guide/import.md has the list); `--value=COLUMN` names the column of any other table",
            )
        })
    }

    /// Fails if the header lacks a needed column.
    pub fn parse(bytes: &[u8]) -> Result<Rows, HeaderError> {
        let table = Table::read(bytes, &NEEDED)?;
        let mut flaws: Vec<_> =
            table.torn.iter().map(|line| format!("line {line} of the history is cut short")).collect();
        let mut rows = Vec::with_capacity(table.records.len());
        for record in &table.records {
            let text = |column| table.get(record, column).to_owned();
            let mut number = |column| {
                let field = table.get(record, column);
                let value = finite(field);
                if value.is_none() && !field.is_empty() {
                    flaws.push(format!(
                        "line {} of the history: `{column}` is `{}`, not a number",
                        record.line,
                        shown(field)
                    ));
                }
                value
            };
            let compile_ms = number("compile_ms");
            let tok_s = number("avg_tok_s").filter(|&tok_s| tok_s > 0.0);
            let speedup_pct = number("speedup_pct");
            let row = Row {
                timestamp: text("timestamp"),
                time: text("timestamp").parse().ok(),
                commit: text("git_commit"),
                configuration: Configuration {
                    machine: text("machine"),
                    workload: text("workload"),
                    backend: text("backend"),
                    device: text("device"),
                    steps: text("steps"),
                },
                compile_ms,
                tok_s,
                speedup_pct,
                status: Status::from(table.get(record, "status")),
                is_clean: table.get(record, "tree_state") == "clean",
            };
            if row.time.is_none() {
                flaws.push(format!(
                    "line {} of the history: `timestamp` is `{}`, not a time",
                    record.line,
                    shown(&row.timestamp)
                ));
            }
            if row.status == Status::Ok && row.tok_s.is_none() {
                flaws.push(format!("line {} of the history is `ok` without a speed", record.line));
            }
            rows.push(row);
        }
        Ok(Rows { rows, torn: table.torn.len(), flaws })
    }
}

impl Row {
    /// Whether this run had the same binary as the previous row: the build found it fresh, or both times the files were
    /// those of the same commit.
    pub fn has_binary_of(&self, before: &Row) -> bool {
        let is_fresh = self.compile_ms.is_some_and(|ms| ms < FRESH_BUILD_MS);
        let built = ![&self.status, &before.status].contains(&&Status::CompileFailed);
        built
            && !self.commit.is_empty()
            && self.commit == before.commit
            && (is_fresh || self.is_clean && before.is_clean)
    }

    /// The row as a point of a series, if it is `ok`.
    pub fn measurement(&self) -> Option<Measurement> {
        let tok_s = self.tok_s.filter(|_| self.status == Status::Ok)?;
        Some(Measurement {
            configuration: self.configuration.clone(),
            time: self.timestamp.clone(),
            commit: self.commit.clone(),
            tok_s,
            anchor_tok_s: None,
        })
    }
}

impl From<&str> for Status {
    fn from(name: &str) -> Status {
        match name {
            "ok" => Status::Ok,
            "unstable" => Status::Unstable,
            "smoke_fail" => Status::SmokeFail,
            "failed" => Status::Failed,
            "compile_failed" => Status::CompileFailed,
            other => Status::Other(shown(other)),
        }
    }
}

/// A number that can be computed with.
pub(super) fn finite(field: &str) -> Option<f64> {
    field.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A field for a message: short, and without control characters.
pub(super) fn shown(field: &str) -> String {
    field.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: &str =
        "timestamp,git_commit,steps,backend,compile_ms,run_ms,avg_tok_s,last_tok_s,speedup_pct,run_dir,log_file,status";

    fn parse(lines: &str) -> Rows {
        Rows::parse(format!("{HEADER}{lines}").as_bytes()).unwrap()
    }

    #[test]
    fn a_row_of_the_twelve_columns() {
        let found =
            parse("\n20260227T091858Z,8688de6,100,cpu,1365,6443,3583.38,2844,6.79,runs/a,perf/a.log,unstable\n");
        let expected = Row {
            timestamp: "20260227T091858Z".into(),
            time: Some("2026-02-27T09:18:58Z".parse().unwrap()),
            commit: "8688de6".into(),
            configuration: Configuration { backend: "cpu".into(), steps: "100".into(), ..Configuration::default() },
            compile_ms: Some(1365.0),
            tok_s: Some(3583.38),
            speedup_pct: Some(6.79),
            status: Status::Unstable,
            is_clean: false,
        };
        assert_eq!(found, Rows { rows: vec![expected], ..Rows::default() });
    }

    #[test]
    fn columns_of_ours_are_read_where_a_row_has_them() {
        let text = format!(
            "{HEADER},device,workload,machine,tree_state,val_loss\n\
             20260227T091858Z,8688de6,100,cpu,9,9,1,1,,,,ok,d,w,m,clean,7.0\n\
             20260227T091859Z,8688de6,100,cpu,9,9,1,1,,,,ok\n"
        );
        let found = Rows::parse(text.as_bytes()).unwrap();
        assert!(found.flaws.is_empty() && found.torn == 0, "{found:?}");
        let part = |row: &Row| {
            let c = &row.configuration;
            (c.device.clone(), c.workload.clone(), c.machine.clone(), row.is_clean)
        };
        let empty = String::new;
        assert_eq!(part(&found.rows[0]), ("d".into(), "w".into(), "m".into(), true));
        assert_eq!(part(&found.rows[1]), (empty(), empty(), empty(), false));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let found = parse(
            "\n20260227T091858Z,a,100,cpu,x,9,nan,1,inf,,,odd\u{7}\n\
             yesterday,a,100,cpu,9,9,-3,1,,,,ok\n\
             20260227T0918",
        );
        assert_eq!((found.rows.len(), found.torn), (2, 1));
        assert_eq!(found.rows[0].status, Status::Other("odd\\u{7}".into()));
        assert!(found.rows.iter().all(|row| row.tok_s.is_none()));
        assert_eq!(
            found.flaws,
            [
                "line 4 of the history is cut short",
                "line 2 of the history: `compile_ms` is `x`, not a number",
                "line 2 of the history: `avg_tok_s` is `nan`, not a number",
                "line 2 of the history: `speedup_pct` is `inf`, not a number",
                "line 3 of the history: `timestamp` is `yesterday`, not a time",
                "line 3 of the history is `ok` without a speed",
            ]
        );
    }

    #[test]
    fn missing_columns_are_named() {
        let error = Rows::parse(b"timestamp,git_commit,steps,backend,run_ms,avg_tok_s,speedup_pct").unwrap_err();
        assert_eq!(error.to_string(), "has no column `compile_ms`, `status`");
    }

    #[test]
    fn the_same_binary_is_a_fresh_build_or_a_clean_tree() {
        let row = |commit: &str, compile_ms, status, is_clean| {
            let mut row = parse("\n20260227T091858Z,,100,cpu,9,9,1,1,,,,").rows.remove(0);
            row.commit = commit.into();
            Row { compile_ms: Some(compile_ms), status, is_clean, ..row }
        };
        let before = row("a", 2000.0, Status::Ok, true);
        assert!(row("a", 99.0, Status::Unstable, false).has_binary_of(&before));
        assert!(row("a", 2000.0, Status::Ok, true).has_binary_of(&before));
        for other in [
            row("b", 99.0, Status::Ok, true),
            row("a", 100.0, Status::Ok, false),
            row("a", 99.0, Status::CompileFailed, true),
        ] {
            assert!(!other.has_binary_of(&before), "{other:?}");
            assert!(!before.has_binary_of(&other), "{other:?}");
        }
        let unknown = row("", 9.0, Status::Ok, true);
        assert!(!unknown.has_binary_of(&unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(lines in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Rows::parse(&lines);
            let bytes = [HEADER.as_bytes(), b"\n", &lines].concat();
            let found = Rows::parse(&bytes).unwrap();
            let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
            prop_assert_eq!(found.rows.len() + found.torn, lines);
        }

        #[test]
        fn any_row_survives_its_neighbours(
            noise in "([a-z0-9,\"\\.\r-]{0,40}\n){0,3}",
            cut in 0_usize..80,
        ) {
            let row = "20260227T091858Z,a,100,cpu,9,9,123.5,1,1.5,,,ok";
            let found = parse(&format!("\n{noise}{row}\n{}", &row[..cut.min(row.len())]));
            prop_assert!(found.rows.iter().any(|row| row.tok_s == Some(123.5) && row.status == Status::Ok));
        }
    }
}

//! Tables with a header: autoresearch's five columns, torchtitan's eight, codex-autoresearch's seven, and any other whose
//! columns the user names.

use super::{
    super::{
        rows,
        table::{HeaderError, Record, Table},
    },
    Columns, Fate, Foreign, Sample, history,
};

/// A known table.
struct Known {
    format: &'static str,
    /// Columns that it has.
    columns: &'static [&'static str],
    value: &'static str,
    /// None: a comment of the file says it.
    is_lower_better: Option<bool>,
    /// A note about the value.
    note: Option<&'static str>,
}

const BITS: &str = "val_bpb is a loss and not a speed: ratios are of the loss, lower is better";

/// The more columns, the earlier.
const KNOWN: [Known; 4] = [
    Known {
        format: "codex-autoresearch",
        columns: &["iteration", "commit", "metric", "guard", "status"],
        value: "metric",
        is_lower_better: None,
        note: None,
    },
    Known {
        format: "torchtitan autoresearch",
        columns: &["commit", "tps", "status", "description"],
        value: "tps",
        is_lower_better: Some(false),
        note: None,
    },
    Known {
        format: "torchtitan autoresearch",
        columns: &["commit", "tokens_per_sec", "status"],
        value: "tokens_per_sec",
        is_lower_better: Some(false),
        note: None,
    },
    Known {
        format: "autoresearch",
        columns: &["commit", "val_bpb", "status", "description"],
        value: "val_bpb",
        is_lower_better: Some(true),
        note: Some(BITS),
    },
];

pub(super) fn read(text: &str) -> Option<Foreign> {
    let rows = without_comments(text);
    let (known, table) =
        KNOWN.iter().find_map(|known| Some((known, Table::read(rows.as_bytes(), known.columns).ok()?)))?;
    let is_lower_better = known.is_lower_better.unwrap_or_else(|| {
        let mut comments = text.lines().filter(|line| line.starts_with('#'));
        comments.any(|line| line.contains("metric_direction") && line.contains("lower"))
    });
    let sample = |row: &Record| {
        let commit = table.get(row, "commit");
        let is_id = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        Sample {
            metric: known.value.to_owned(),
            commit: if is_id { commit.to_owned() } else { String::new() },
            time: table.get(row, "timestamp").to_owned(),
            value: finite(table.get(row, known.value)),
            is_lower_better,
            fate: Fate::of(table.get(row, "status")),
        }
    };
    let mut found = history(known.format, table.records.iter().map(sample).collect(), true);
    found.rows.torn = table.torn.len();
    found.notes.extend(known.note.map(str::to_owned));
    Some(found)
}

/// Fails if a named column is not there.
pub(super) fn of_columns(text: &str, columns: &Columns) -> Result<Foreign, HeaderError> {
    let named = [Some(&columns.value), columns.commit.as_ref(), columns.time.as_ref(), columns.status.as_ref()];
    let named: Vec<&str> = named.into_iter().flatten().map(String::as_str).collect();
    let table = Table::read(without_comments(text).as_bytes(), &named)?;
    let cell = |row: &Record, column: &Option<String>| {
        column.as_deref().map_or_else(String::new, |column| table.get(row, column).to_owned())
    };
    let sample = |row: &Record| Sample {
        metric: columns.value.clone(),
        commit: cell(row, &columns.commit),
        time: cell(row, &columns.time),
        value: finite(table.get(row, &columns.value)),
        is_lower_better: columns.is_lower_better,
        fate: if columns.status.is_some() { Fate::of(&cell(row, &columns.status)) } else { Fate::Measured },
    };
    let mut found = history("columns", table.records.iter().map(sample).collect(), columns.status.is_some());
    found.rows.torn = table.torn.len();
    Ok(found)
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// The number, or NaN where the text is not one.
fn finite(text: &str) -> f64 {
    rows::finite(text).unwrap_or(f64::NAN)
}

//! Tables with a header: autoresearch's five columns, torchtitan's eight, codex-autoresearch's seven, and any other whose
//! columns the user names.

use super::{Columns, Fate, Foreign, Sample, history};

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

/// Lines of a table, without comments.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    comments: Vec<String>,
}

impl Table {
    fn of(text: &str, separator: u8) -> Option<Table> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let comments = text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .comment(Some(b'#'))
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut lines = reader.records().filter_map(Result::ok).map(|line| line.iter().map(str::to_owned).collect());
        Some(Table { header: lines.next()?, rows: lines.collect(), comments })
    }

    fn has(&self, columns: &[&str]) -> bool {
        columns.iter().all(|column| self.header.iter().any(|name| name == column))
    }

    fn cell<'a>(&self, row: &'a [String], column: &str) -> &'a str {
        let index = self.header.iter().position(|name| name == column);
        index.and_then(|index| row.get(index)).map_or("", String::as_str)
    }
}

pub(super) fn read(text: &str) -> Option<Foreign> {
    let table = Table::of(text, b'\t')?;
    let known = KNOWN.iter().find(|known| table.has(known.columns))?;
    let is_lower_better = known.is_lower_better.unwrap_or_else(|| {
        table.comments.iter().any(|line| line.contains("metric_direction") && line.contains("lower"))
    });
    let sample = |row: &Vec<String>| {
        let commit = table.cell(row, "commit");
        let is_id = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        Sample {
            metric: known.value.to_owned(),
            commit: if is_id { commit.to_owned() } else { String::new() },
            time: table.cell(row, "timestamp").to_owned(),
            value: table.cell(row, known.value).parse().unwrap_or(f64::NAN),
            is_lower_better,
            fate: Fate::of(table.cell(row, "status")),
        }
    };
    let mut found = history(known.format, table.rows.iter().map(sample).collect(), true);
    found.notes.extend(known.note.map(str::to_owned));
    Some(found)
}

/// Returns the name of a column that is not there.
pub(super) fn of_columns(text: &str, columns: &Columns) -> Result<Foreign, String> {
    let header = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let separator = if header.contains('\t') { b'\t' } else { b',' };
    let Some(table) = Table::of(text, separator) else { return Err(columns.value.clone()) };
    let named = [Some(&columns.value), columns.commit.as_ref(), columns.time.as_ref(), columns.status.as_ref()];
    if let Some(missing) = named.into_iter().flatten().find(|name| !table.has(&[name.as_str()])) {
        return Err(missing.clone());
    }
    let cell = |row: &[String], column: &Option<String>| {
        column.as_deref().map_or_else(String::new, |column| table.cell(row, column).to_owned())
    };
    let sample = |row: &Vec<String>| Sample {
        metric: columns.value.clone(),
        commit: cell(row, &columns.commit),
        time: cell(row, &columns.time),
        value: table.cell(row, &columns.value).parse().unwrap_or(f64::NAN),
        is_lower_better: columns.is_lower_better,
        fate: if columns.status.is_some() { Fate::of(&cell(row, &columns.status)) } else { Fate::Measured },
    };
    Ok(history("columns", table.rows.iter().map(sample).collect(), columns.status.is_some()))
}

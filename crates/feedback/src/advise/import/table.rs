//! A table with named columns, separated by commas or tabs, whatever its bytes.
//!
//! It is read line by line: no field spans two lines, so a quote that is never closed spoils only its own line. Bytes
//! that are not UTF-8 become U+FFFD. Only commas can be
//! quoted.

use std::{collections::HashMap, fmt};

use csv::{ByteRecord, ReaderBuilder, Terminator};

/// The content of a file below its header.
pub(super) struct Table {
    columns: HashMap<String, usize>,
    /// Lines that have all needed columns.
    pub(super) records: Vec<Record>,
    /// Numbers of the lines that lack some.
    pub(super) torn: Vec<usize>,
}

/// A line.
pub(super) struct Record {
    /// Counted from 1; the header is a line too.
    pub(super) line: usize,
    fields: Vec<String>,
}

/// The fault of a header, as the rest of a sentence about the file. Below the header, any bytes are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The file has no line.
    Empty,
    /// Columns that are needed and not there.
    Missing(Vec<String>),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            HeaderError::Empty => f.write_str("is empty"),
            HeaderError::Missing(columns) => write!(f, "has no column `{}`", columns.join("`, `")),
        }
    }
}

impl Table {
    pub(super) fn read(bytes: &[u8], needed: &[&str]) -> Result<Table, HeaderError> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut lines = (1..).zip(bytes.split(|&byte| byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
        let Some((_, header)) = lines.next() else {
            return Err(HeaderError::Empty);
        };
        let separator = if header.contains(&b'\t') { b'\t' } else { b',' };
        let mut columns = HashMap::new();
        for (index, name) in fields(header, separator).into_iter().enumerate() {
            columns.entry(name).or_insert(index);
        }
        let missing: Vec<_> =
            needed.iter().filter(|&&name| !columns.contains_key(name)).map(|&name| name.to_owned()).collect();
        if !missing.is_empty() {
            return Err(HeaderError::Missing(missing));
        }
        let width = needed.iter().map(|&name| columns[name] + 1).max().unwrap_or(0);
        let mut table = Table { columns, records: Vec::new(), torn: Vec::new() };
        for (line, text) in lines {
            let fields = fields(text, separator);
            if fields.len() < width {
                table.torn.push(line);
            } else {
                table.records.push(Record { line, fields });
            }
        }
        Ok(table)
    }

    /// A field without spaces around it; also empty if the file has no such column or the line ends before it.
    pub(super) fn get<'a>(&self, record: &'a Record, column: &str) -> &'a str {
        self.columns.get(column).and_then(|&index| record.fields.get(index)).map_or("", String::as_str)
    }
}

fn fields(line: &[u8], separator: u8) -> Vec<String> {
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .quoting(separator == b',')
        .has_headers(false)
        .flexible(true)
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(line.len() + 1)
        .from_reader(line);
    let mut record = ByteRecord::new();
    // Reading from memory into a record of any width cannot fail; a failure would make the line count as torn.
    match reader.read_byte_record(&mut record) {
        Ok(true) => record.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &[u8]) -> Vec<(usize, String)> {
        let table = Table::read(text, &["a", "b"]).unwrap();
        let cell = |record| format!("{}|{}|{}", table.get(record, "a"), table.get(record, "b"), table.get(record, "c"));
        table.records.iter().map(|record| (record.line, cell(record))).collect()
    }

    #[test]
    fn columns_go_by_name_whatever_surrounds_them() {
        let expected = vec![(2, "1|2|".to_owned()), (4, "3|4|".to_owned())];
        for text in [
            "a,b\n1,2\n\n3,4\n",
            "\u{feff}a,b\r\n1,2\r\n\r\n3,4\r\n",
            "\"a\", b ,x\n1,\"2\",9\n\n3, 4",
            "b,a\n2,1\n\n4,3",
            "a\tb\n1\t2\n\n3\t4\n",
        ] {
            assert_eq!(cells(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(cells(b"a,b,c,a\n1,2,3,4"), [(2, "1|2|3".into())]);
        assert_eq!(cells(b"a,b\n\xff,2"), [(2, "\u{fffd}|2|".into())]);
    }

    #[test]
    fn quotes_are_letters_between_tabs() {
        assert_eq!(cells(b"a\tb\n\"1\t2, 3\"\n"), [(2, "\"1|2, 3\"|".into())]);
        assert_eq!(cells(b"a,b\n1,\"2, 3\"\n"), [(2, "1|2, 3|".into())]);
    }

    #[test]
    fn damage_stays_on_its_line() {
        let table = Table::read(b"a,b\n1,\"2\n3,4\n5\n", &["a", "b"]).unwrap();
        assert_eq!(table.records.iter().map(|record| table.get(record, "b")).collect::<Vec<_>>(), ["2", "4"]);
        assert_eq!(table.torn, [4]);
    }

    #[test]
    fn a_header_that_does_not_do_is_told() {
        let error = |text: &str| Table::read(text.as_bytes(), &["a", "b"]).err().map(|error| error.to_string());
        assert_eq!(error("").as_deref(), Some("is empty"));
        assert_eq!(error("\u{feff}\r\n \n").as_deref(), Some("is empty"));
        assert_eq!(error("a\n1\n").as_deref(), Some("has no column `b`"));
        assert_eq!(error("x,y\n").as_deref(), Some("has no column `a`, `b`"));
        assert_eq!(error("a,b"), None);
    }
}

//! The ledger: one record for each measurement, as a file `<id>.json` in a folder that git tracks.
//!
//! The id is the BLAKE3 hash of the file's bytes: `b3sum <id>.json` prints the file's own name. A record names its
//! parents: the earlier records that no other record names yet. So the files are a graph, two branches merge by having
//! the files of both, and a measurement cannot be changed or dropped without a trace. Records are only ever added. Data
//! too large for a record is beside it as `<id>.bulk.json.gz`, which git ignores; its hash is in the record.
//!
//! A damaged file is not a reason to stop: it is named in [`Ledger::problems`], and the others are used.

mod finite;
mod graph;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::Timestamp;
use serde::Serialize;

pub use self::record::{Bulk, Fault, MAX_RECORD_BYTES, Record, RecordId, SCHEMA};
use pairbench::files;

use crate::LoopError;

/// Fewest digits that can abbreviate an id.
const MIN_PREFIX: usize = 4;

/// The records of a folder, as they were when it was opened, and those added since.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    /// Parents first.
    records: Vec<Record>,
    problems: Vec<Problem>,
}

/// A file that cannot be used, or whose parent is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name within the folder.
    pub file: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` {}", self.file, self.fault)
    }
}

impl Ledger {
    /// Reads all records of a folder. A folder that does not exist yet has none.
    pub fn open(folder: &Path) -> Result<Ledger, LoopError> {
        let unreadable = |error| LoopError::io("read", folder, &error);
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(unreadable)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unreadable(error)),
        };
        let mut problems = Vec::new();
        let mut records = BTreeMap::new();
        let mut present = BTreeSet::new();
        for entry in entries {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(stem) = file.strip_suffix(".json").filter(|stem| !stem.starts_with('.')) else { continue };
            let read = stem.parse().map_err(|_| Fault::Name).and_then(|id| {
                present.insert(id);
                read_record(&entry.path(), id)
            });
            match read {
                Ok(record) => drop(records.insert(record.id, record)),
                Err(fault) => problems.push(Problem { file, fault }),
            }
        }
        for record in records.values() {
            let missing = record.parents.iter().filter(|parent| !present.contains(parent));
            problems.extend(
                missing.map(|&parent| Problem { file: file_name(record.id), fault: Fault::MissingParent(parent) }),
            );
        }
        problems.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Ledger { folder: folder.to_owned(), records: graph::parents_first(records), problems })
    }

    /// Adds a record whose parents are the present [`heads`](Ledger::heads), and its bulk data.
    ///
    /// `bulk` is JSON, here uncompressed. The record is the last that is written: after a crash the ledger has it or
    /// does not. Numbers that are not finite and records above [`MAX_RECORD_BYTES`] are errors.
    pub fn append<T: Serialize>(&mut self, kind: &str, body: &T, bulk: Option<&[u8]>) -> Result<RecordId, LoopError> {
        self.append_at(Timestamp::now(), kind, body, bulk)
    }

    fn append_at<T: Serialize>(
        &mut self,
        time: Timestamp,
        kind: &str,
        body: &T,
        bulk: Option<&[u8]>,
    ) -> Result<RecordId, LoopError> {
        let described = bulk.map(Bulk::of);
        let (record, bytes) = Record::encode(time, kind, &self.heads(), described, body)?;
        let path = |name: &str| self.folder.join(name);
        // Line ends that git changes would change hashes.
        for (name, text) in [(".gitattributes", "*.json -text\n"), (".gitignore", "*.bulk.json.gz\n*.tmp\n")] {
            if !path(name).exists() {
                files::write(&path(name), text.as_bytes())?;
            }
        }
        if let Some(bulk) = bulk {
            files::write(&path(&bulk_name(record.id)), &compress(bulk))?;
        }
        files::write(&path(&file_name(record.id)), &bytes)?;
        let id = record.id;
        // All other records are its ancestors: it comes last in any order with parents first.
        self.records.push(record);
        Ok(id)
    }

    /// The record whose id begins with `prefix`, of at least four digits.
    pub fn get(&self, prefix: &str) -> Result<&Record, LoopError> {
        let digits = prefix.len() >= MIN_PREFIX && prefix.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return Err(LoopError::usage(format!("`{prefix}` is not a record: expected {MIN_PREFIX} to 64 of 0-9a-f"))
                .hint("a record's id is the name of its file, and is in the message of its commit"));
        }
        let mut matching = self.records.iter().filter(|record| record.id.to_string().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(record), None) => Ok(record),
            (Some(one), Some(other)) => {
                let message = format!("`{prefix}` begins more than one record: `{}`, `{}`", one.id, other.id);
                Err(LoopError::usage(message).hint("give more digits"))
            }
            (None, _) => Err(match self.problems.iter().find(|problem| problem.file.starts_with(prefix)) {
                Some(problem) => LoopError::failed(format!("{problem} (in `{}`)", self.folder.display()))
                    .hint("git may have it as it was: `git log --all -- <file>`, `git checkout <commit> -- <file>`"),
                None => LoopError::usage(format!("no record in `{}` begins with `{prefix}`", self.folder.display()))
                    .hint("it may be on another branch: records come with the branch that they were committed on"),
            }),
        }
    }

    /// All usable records, parents before children, else the older first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Names of the folder's files that belong in commits: records, and the files that tell git how to treat them.
    pub fn files(&self) -> impl Iterator<Item = String> {
        let records = self.records.iter().map(|record| file_name(record.id));
        let names = records.chain([".gitattributes", ".gitignore"].map(str::to_owned));
        names.filter(|name| self.folder.join(name).exists())
    }

    /// The records that no other names as its parent, in ascending order.
    pub fn heads(&self) -> Vec<RecordId> {
        graph::heads(&self.records)
    }

    /// The records before one that are present, and those that are named as parents but missing.
    pub fn before(&self, id: RecordId) -> (BTreeSet<RecordId>, BTreeSet<RecordId>) {
        let by_id: BTreeMap<RecordId, &Record> = self.records.iter().map(|record| (record.id, record)).collect();
        let (mut there, mut missing) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<RecordId> = by_id.get(&id).map_or_else(Vec::new, |record| record.parents.clone());
        while let Some(id) = open.pop() {
            match by_id.get(&id) {
                Some(record) if there.insert(id) => open.extend(&record.parents),
                Some(_) => {}
                None => drop(missing.insert(id)),
            }
        }
        (there, missing)
    }

    /// The folder's problems, by name of file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The bulk data of a record: `None` if it has none, or if it is not on this machine.
    pub fn bulk(&self, record: &Record) -> Result<Option<Vec<u8>>, LoopError> {
        let Some(described) = &record.bulk else { return Ok(None) };
        let path = self.folder.join(bulk_name(record.id));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoopError::io("open", &path, &error)),
        };
        let mut bulk = Vec::new();
        // Reads one byte more than expected, to notice a longer file.
        let read = GzDecoder::new(file).take(described.bytes.saturating_add(1)).read_to_end(&mut bulk);
        if let Err(error) = read {
            return Err(LoopError::io("unpack", &path, &error).hint("delete it: the record holds without it"));
        }
        if Bulk::of(&bulk) != *described {
            return Err(LoopError::failed(format!("`{}` is not the data that its record names", path.display()))
                .hint("delete it: the record holds without it"));
        }
        Ok(Some(bulk))
    }
}

fn file_name(id: RecordId) -> String {
    format!("{id}.json")
}

fn bulk_name(id: RecordId) -> String {
    format!("{id}.bulk.json.gz")
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

fn read_record(path: &Path, id: RecordId) -> Result<Record, Fault> {
    let unreadable = |error: io::Error| Fault::Unreadable(error.to_string());
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_RECORD_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Record::decode(id, &bytes)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Body {
        speedup_pct: f64,
        pairs: u32,
        machine: Option<String>,
    }

    fn body(pairs: u32) -> Body {
        Body { speedup_pct: 0.1 + 0.2, pairs, machine: None }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn opened() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join("perf/ledger")).unwrap();
        (dir, ledger)
    }

    fn faults(ledger: &Ledger) -> Vec<(&str, &Fault)> {
        ledger.problems().iter().map(|problem| (problem.file.as_str(), &problem.fault)).collect()
    }

    #[test]
    fn a_file_is_its_documented_text_and_its_name_the_hash() {
        let (_dir, mut ledger) = opened();
        let first = ledger.append_at(at("2026-03-01T00:00:00.1239Z"), "attempt", &body(14), None).unwrap();
        let second = ledger.append_at(at("2026-03-01T00:00:01Z"), "smoke", &"ok", Some(b"[1,2]")).unwrap();
        let texts = [
            concat!(
                r#"{"body":{"machine":null,"pairs":14,"speedup_pct":0.30000000000000004},"kind":"attempt","#,
                r#""parents":[],"schema":"alpha.ledger/1","time":"2026-03-01T00:00:00.123Z"}"#,
                "\n"
            )
            .to_owned(),
            format!(
                concat!(
                    r#"{{"body":"ok","bulk":{{"bytes":5,"hash":"{}"}},"kind":"smoke","#,
                    r#""parents":["{}"],"schema":"alpha.ledger/1","time":"2026-03-01T00:00:01.000Z"}}"#,
                    "\n"
                ),
                blake3::hash(b"[1,2]"),
                first
            ),
        ];
        for (id, text) in [first, second].into_iter().zip(texts) {
            let written = fs::read_to_string(ledger.folder.join(format!("{id}.json"))).unwrap();
            assert_eq!(written, text);
            assert_eq!(id.to_string(), blake3::hash(text.as_bytes()).to_string());
        }
        let mut packed = Vec::new();
        let file = File::open(ledger.folder.join(format!("{second}.bulk.json.gz"))).unwrap();
        GzDecoder::new(file).read_to_end(&mut packed).unwrap();
        assert_eq!(packed, b"[1,2]");
        // From the authors' test vectors.
        let of_nothing = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(blake3::hash(b"").to_string(), of_nothing);
    }

    #[test]
    fn what_was_added_is_there_at_once_and_after_opening_again() {
        let (_dir, mut ledger) = opened();
        assert_eq!((ledger.records().len(), ledger.heads(), ledger.problems()), (0, vec![], &[][..]));
        let first = ledger.append("attempt", &body(1), None).unwrap();
        let second = ledger.append("attempt", &body(2), Some(b"{}")).unwrap();
        let again = Ledger::open(&ledger.folder).unwrap();
        assert_eq!(again.records(), ledger.records());
        assert_eq!(again.problems(), []);
        assert_eq!(again.heads(), [second]);
        let record = again.get(&second.to_string()).unwrap();
        assert_eq!((record.kind.as_str(), &record.parents), ("attempt", &vec![first]));
        assert_eq!(record.body::<Body>().unwrap(), body(2));
        assert_eq!(again.bulk(record).unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(again.bulk(again.get(&first.short()).unwrap()).unwrap(), None);
        let error = record.body::<u32>().unwrap_err().to_string();
        assert!(error.contains(&second.to_string()) && error.contains("`attempt`"), "{error}");
    }

    #[test]
    fn what_json_cannot_hold_and_what_is_too_long_stays_out() {
        let (_dir, mut ledger) = opened();
        let error = ledger.append("attempt", &Body { speedup_pct: f64::NAN, ..body(1) }, None).unwrap_err();
        assert!(error.to_string().contains("`speedup_pct` is NaN"), "{error}");
        let size = |ledger: &Ledger, id| fs::metadata(ledger.folder.join(file_name(id))).unwrap().len() as usize;
        let empty = ledger.append("note", &"", None).unwrap();
        let fits = "a".repeat(MAX_RECORD_BYTES - size(&ledger, empty));
        ledger.records.clear(); // a parent would take room
        let full = ledger.append("note", &fits, None).unwrap();
        assert_eq!(size(&ledger, full), MAX_RECORD_BYTES);
        ledger.records.clear();
        let error = ledger.append("note", &(fits + "a"), None).unwrap_err();
        assert!(error.to_string().contains("it has 50001 bytes; at most 50000 fit"), "{error}");
        assert_eq!(Ledger::open(&ledger.folder).unwrap().records().len(), 2);
    }

    #[test]
    fn damage_is_named_and_the_rest_is_used() {
        let (_dir, mut ledger) = opened();
        let ids: Vec<_> = (0..5).map(|pairs| ledger.append("attempt", &body(pairs), None).unwrap()).collect();
        let path = |id: RecordId| ledger.folder.join(file_name(id));
        let text = fs::read_to_string(path(ids[1])).unwrap();
        fs::write(path(ids[1]), &text[..text.len() / 2]).unwrap();
        let changed = fs::read_to_string(path(ids[2])).unwrap().replace("\"pairs\":2", "\"pairs\":9");
        fs::write(path(ids[2]), &changed).unwrap();
        fs::remove_file(path(ids[3])).unwrap();
        fs::write(ledger.folder.join("notes.json"), "{}").unwrap();
        let of = |text: &str| RecordId::of(text.as_bytes());
        let newer = r#"{"schema":"alpha.ledger/2"}"#;
        fs::write(path(of(newer)), newer).unwrap();
        let formless = r#"{"schema":"alpha.ledger/1","kind":"x","time":"noon","parents":[],"body":0}"#;
        fs::write(path(of(formless)), formless).unwrap();
        // None of ours, and none that claims to be.
        for name in ["README.md", "x.json.1.tmp", "x.bulk.json.gz"] {
            fs::write(ledger.folder.join(name), "?").unwrap();
        }

        let ledger = Ledger::open(&ledger.folder).unwrap();
        assert_eq!(ledger.records().iter().map(|record| record.id).collect::<Vec<_>>(), [ids[0], ids[4]]);
        assert_eq!(ledger.heads().len(), 2);
        let found = faults(&ledger);
        assert_eq!(found.len(), 6, "{found:?}");
        let fault = |name: String| found.iter().find(|(file, _)| *file == name).unwrap().1;
        assert_eq!(fault(file_name(ids[1])), &Fault::Torn);
        assert_eq!(fault(file_name(ids[2])), &Fault::Changed(of(&changed)));
        assert_eq!(fault(file_name(ids[4])), &Fault::MissingParent(ids[3]));
        assert_eq!(fault("notes.json".into()), &Fault::Name);
        assert_eq!(fault(file_name(of(newer))), &Fault::UnknownSchema("\"alpha.ledger/2\"".into()));
        assert!(matches!(fault(file_name(of(formless))), Fault::Form(what) if what.contains("noon")));
        let error = ledger.get(&ids[1].short()).unwrap_err().to_string();
        assert!(error.contains("is torn") && error.contains("hint: "), "{error}");
        assert!(ledger.get(&ids[4].to_string()).is_ok());
    }

    #[test]
    fn a_prefix_must_be_unique() {
        let (_dir, mut ledger) = opened();
        let mut by_prefix = BTreeMap::new();
        let (one, prefix) = (0..)
            .find_map(|body| {
                let (record, _) = Record::encode(Timestamp::now(), "note", &[], None, &body).unwrap();
                ledger.records.push(record.clone());
                let prefix = record.id.to_string()[..MIN_PREFIX].to_owned();
                by_prefix.insert(prefix.clone(), record.id).map(|same| (same, prefix))
            })
            .unwrap();
        assert!(ledger.get(&prefix).unwrap_err().to_string().contains("more than one"));
        assert_eq!(ledger.get(&one.to_string()[..60]).unwrap().id, one);
        for wrong in ["", "abc", "ABCDEF", "../..", "é€éé", &format!("{one}0")] {
            assert_eq!(ledger.get(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn bulk_data_that_is_not_what_was_recorded_is_refused() {
        let (_dir, mut ledger) = opened();
        let id = ledger.append("compare", &0, Some(b"[1,2,3]")).unwrap();
        let path = ledger.folder.join(bulk_name(id));
        let record = ledger.get(&id.to_string()).unwrap();
        for other in [compress(b"[1,2,4]"), compress(b"[1,2,3] "), compress(b""), b"no gzip".to_vec(), vec![]] {
            fs::write(&path, other).unwrap();
            assert_eq!(ledger.bulk(record).unwrap_err().exit_code(), 1);
        }
        // Little on disk, much in memory: no more is unpacked than the record names.
        fs::write(&path, compress(&vec![0; 1 << 26])).unwrap();
        assert!(ledger.bulk(record).is_err());
        fs::remove_file(&path).unwrap();
        assert_eq!(ledger.bulk(record).unwrap(), None);
    }

    #[test]
    fn a_folder_that_is_a_file_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Ledger::open(file.path()).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let mut ledger = Ledger { folder: file.path().join("x"), records: vec![], problems: vec![] };
        assert!(ledger.append("note", &0, None).unwrap_err().to_string().contains(file.path().to_str().unwrap()));
    }
}

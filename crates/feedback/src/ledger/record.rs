//! A record as bytes: one line of JSON with sorted keys, and a line end.
//!
//! ```text
//! {"body":{…},"bulk":{"bytes":…,"hash":"…"},"kind":"…","parents":["…"],"schema":"alpha.ledger/1","time":"…Z"}
//! ```
//! Numbers are the shortest that read back as the same f64. Checking a record needs none of this: its id is the hash of
//! its bytes.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

use super::finite;
use crate::LoopError;

/// The form of records that this program writes and reads.
pub const SCHEMA: &str = "alpha.ledger/1";

/// A record's file has at most so many bytes.
pub const MAX_RECORD_BYTES: usize = 50_000;

/// The id of a record: the BLAKE3 hash of its file, 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 32]);

/// A measurement that was recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub id: RecordId,
    /// The kind of measurement, which decides the form of its body.
    pub kind: String,
    /// When it was written, by this machine's clock; the order of records follows from the parents.
    pub time: Timestamp,
    /// The earlier records that no other had named, in ascending order.
    pub parents: Vec<RecordId>,
    /// The data beside it.
    pub bulk: Option<Bulk>,
    body: Value,
}

/// Data beside a record, uncompressed: `zcat <id>.bulk.json.gz | b3sum` prints its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// BLAKE3, as hex digits.
    pub hash: String,
    /// Size.
    pub bytes: u64,
}

/// What is wrong with a file of the ledger. Its text completes a sentence that begins with the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file's name is not that of a record.
    #[error("is not the name of a record: expected 64 of 0-9a-f and `.json`")]
    Name,
    /// The system did not give its content.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Above [`MAX_RECORD_BYTES`].
    #[error("is longer than a record can be ({MAX_RECORD_BYTES} bytes)")]
    TooLong,
    /// Only a part of it is there.
    #[error("is torn: its content ends early")]
    Torn,
    /// The content is not what was recorded.
    #[error("was changed: the hash of its content is `{0}`")]
    Changed(RecordId),
    /// Written by another version of the program.
    #[error("has the schema {0}; this program reads `{SCHEMA}`")]
    UnknownSchema(String),
    /// The content is unchanged, but not in this program's form.
    #[error("is not a record: {0}")]
    Form(String),
    /// A parent is missing; the record itself can be used.
    #[error("names a record before it that is missing: `{0}`")]
    MissingParent(RecordId),
}

#[derive(Deserialize)]
struct Envelope {
    kind: String,
    time: String,
    parents: Vec<RecordId>,
    bulk: Option<Bulk>,
    body: Value,
}

impl Record {
    /// The body, as the type of its kind.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, LoopError> {
        T::deserialize(&self.body)
            .map_err(|error| LoopError::failed(format!("record `{}` of kind `{}`: {error}", self.id, self.kind)))
    }

    /// A new record and the bytes of its file.
    pub(super) fn encode<T: Serialize>(
        time: Timestamp,
        kind: &str,
        parents: &[RecordId],
        bulk: Option<Bulk>,
        body: &T,
    ) -> Result<(Record, Vec<u8>), LoopError> {
        let failed = |what: String| LoopError::failed(format!("cannot record `{kind}`: {what}"));
        finite::check(body).map_err(|unwritable| {
            failed(unwritable.to_string())
                .hint("JSON has no such numbers: leave the field out, or say in words what was found")
        })?;
        let body = serde_json::to_value(body).map_err(|error| failed(error.to_string()))?;
        let mut whole = serde_json::json!({
            "schema": SCHEMA, "kind": kind, "time": format!("{time:.3}"), "parents": parents, "body": body,
        });
        if let Some(bulk) = bulk {
            whole["bulk"] = serde_json::json!(bulk);
        }
        whole.sort_all_objects();
        let bytes = format!("{whole}\n").into_bytes();
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(failed(format!("it has {} bytes; at most {MAX_RECORD_BYTES} fit", bytes.len()))
                .hint("what is bulky belongs in the data beside the record"));
        }
        // The written record must read back as it is.
        let record = Record::decode(RecordId::of(&bytes), &bytes).map_err(|fault| failed(format!("it {fault}")))?;
        Ok((record, bytes))
    }

    /// Reads the bytes of the file that is named after `id`.
    pub(crate) fn decode(id: RecordId, bytes: &[u8]) -> Result<Record, Fault> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(Fault::TooLong);
        }
        let form = |error: serde_json::Error| Fault::Form(error.to_string());
        let parsed: Result<Value, _> = serde_json::from_slice(bytes);
        let hash = RecordId::of(bytes);
        if hash != id {
            let is_whole = parsed.is_ok() && bytes.ends_with(b"\n");
            return Err(if is_whole { Fault::Changed(hash) } else { Fault::Torn });
        }
        let whole = parsed.map_err(form)?;
        if whole["schema"] != SCHEMA {
            return Err(Fault::UnknownSchema(whole["schema"].to_string()));
        }
        let Envelope { kind, time, parents, bulk, body } = serde_json::from_value(whole).map_err(form)?;
        let time =
            time.parse().map_err(|error: jiff::Error| Fault::Form(format!("`{time}` is not a time: {error}")))?;
        Ok(Record { id, kind, time, parents, bulk, body })
    }
}

impl Bulk {
    /// The description of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Bulk {
        Bulk { hash: blake3::hash(bytes).to_string(), bytes: bytes.len() as u64 }
    }
}

impl RecordId {
    /// The name of a file with these bytes.
    pub(super) fn of(bytes: &[u8]) -> RecordId {
        RecordId(blake3::hash(bytes).into())
    }

    /// The first twelve digits, for tables and messages.
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(12);
        digits
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the id of a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id of a record: 64 of 0-9a-f")]
pub struct NotAnId(String);

impl FromStr for RecordId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<RecordId, NotAnId> {
        let id = blake3::Hash::from_hex(text).ok().map(|hash| RecordId(hash.into()));
        // Upper-case digits would make two names of one record.
        id.filter(|id| id.to_string() == text).ok_or_else(|| NotAnId(text.to_owned()))
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RecordId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(body: &Value) -> (Record, Vec<u8>) {
        let time = "2026-01-01T00:00:00Z".parse().unwrap();
        Record::encode(time, "note", &[], None, body).unwrap()
    }

    fn json() -> impl Strategy<Value = Value> {
        let number = any::<f64>().prop_filter_map("finite", |number| number.is_finite().then(|| Value::from(number)));
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            number,
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            let map = prop::collection::btree_map(any::<String>(), inner.clone(), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                map.prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Shapes near to a record's: a field may be of another type, or missing.
    fn almost_a_record() -> impl Strategy<Value = Value> {
        fn mostly(value: Value) -> impl Strategy<Value = Value> {
            prop_oneof![4 => Just(value), 1 => json()]
        }
        let absent = "0".repeat(64);
        let fields = (
            mostly("alpha.ledger/1".into()),
            mostly("2026-01-01T00:00:00Z".into()),
            prop_oneof![mostly(Value::Array(vec![])), mostly(serde_json::json!([absent, absent]))],
            mostly("note".into()),
            mostly(Value::Null),
            json(),
        );
        (fields, 0..12usize).prop_map(|((schema, time, parents, kind, bulk, body), missing)| {
            let fields = [
                ("schema", schema),
                ("time", time),
                ("parents", parents),
                ("kind", kind),
                ("bulk", bulk),
                ("body", body),
            ];
            let kept = fields.into_iter().enumerate().filter(|(index, _)| *index != missing);
            Value::Object(kept.map(|(_, (name, value))| (name.to_owned(), value)).collect())
        })
    }

    proptest! {
        #[test]
        fn any_json_under_its_name_is_a_record_or_named(value in almost_a_record()) {
            let bytes = value.to_string().into_bytes();
            match Record::decode(RecordId::of(&bytes), &bytes) {
                Ok(record) => {
                    prop_assert_eq!(&value["schema"], SCHEMA);
                    prop_assert_eq!(&value["kind"], &Value::from(record.kind.as_str()));
                    prop_assert_eq!(&value["body"], &record.body);
                    prop_assert_eq!(&value["parents"], &serde_json::json!(record.parents));
                }
                Err(fault) => prop_assert!(matches!(fault, Fault::Form(_) | Fault::UnknownSchema(_))),
            }
        }

        #[test]
        fn what_goes_in_comes_out(body in json()) {
            let (record, bytes) = record(&body);
            let read: Value = Record::decode(record.id, &bytes).unwrap().body().unwrap();
            // `==` alone would let -0.0 be 0.0.
            prop_assert_eq!((&read, read.to_string()), (&body, body.to_string()));
            prop_assert_eq!(bytes.iter().position(|&byte| byte == b'\n'), Some(bytes.len() - 1));
        }

        #[test]
        fn no_change_goes_unnoticed(body in json(), place in any::<prop::sample::Index>(), change in 1..=255u8, way in 0..3) {
            let (record, mut bytes) = record(&body);
            let place = place.index(bytes.len());
            match way {
                0 => bytes[place] ^= change,
                1 => bytes.truncate(place),
                _ => bytes.insert(place, change),
            }
            let fault = Record::decode(record.id, &bytes).unwrap_err();
            prop_assert!(matches!(fault, Fault::Torn | Fault::Changed(_)));
            prop_assert!(way != 1 || fault == Fault::Torn);
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let (record, _) = record(&Value::Null);
        let text = record.id.to_string();
        assert_eq!(text.parse(), Ok(record.id));
        for wrong in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), text.replace(&text[..1], "g")] {
            assert!(wrong.parse::<RecordId>().is_err(), "{wrong}");
        }
        assert!(text.starts_with(&record.id.short()));
    }
}

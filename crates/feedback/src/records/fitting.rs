//! Fits an attempt into a record: texts that are too long are cut, and show it.
//!
//! An attempt that cannot be recorded would not be counted, so no text may keep it out of the ledger. Texts and names
//! of kernels come from trainers, builds and configurations and can have any length; pairs, hashes and numbers are
//! evidence and stay. An attempt that fits is recorded unchanged.

use serde_json::Value;

use crate::{attempt::Attempt, ledger::MAX_RECORD_BYTES, records::evidence::AttemptRecord, visible};

/// Bytes of a record besides its body: its kind, its time, and the records before it.
const ENVELOPE_BYTES: usize = 2_000;

/// Limits for texts (in bytes of JSON, where a control character takes six) and for lists of kernels, from generous to
/// what always fits.
const LIMITS: &[(usize, usize)] = &[(4_000, 200), (1_000, 60), (300, 20), (100, 8), (40, 0)];

/// Lists with an entry for each kernel or phase that a trainer names, the largest first.
const LISTS: &[&str] = &["kernels", "phases"];

/// The record of an attempt, with texts no longer than a record has room for.
pub(crate) fn fitted(attempt: &Attempt) -> AttemptRecord {
    let whole = AttemptRecord::whole(attempt);
    let fits = |record: &AttemptRecord| {
        serde_json::to_vec(record).is_ok_and(|json| json.len() <= MAX_RECORD_BYTES - ENVELOPE_BYTES)
    };
    if fits(&whole) {
        return whole;
    }
    // The ledger reports numbers that JSON cannot hold.
    let Ok(json) = serde_json::to_value(attempt) else { return whole };
    let cut = |&(text_bytes, entries): &(usize, usize)| {
        let mut json = json.clone();
        shorten(&mut json, text_bytes, entries);
        serde_json::from_value(json).ok().map(|attempt| AttemptRecord::whole(&attempt))
    };
    let mut cut = LIMITS.iter().filter_map(cut).peekable();
    while let Some(record) = cut.next() {
        if fits(&record) || cut.peek().is_none() {
            return record;
        }
    }
    whole
}

fn shorten(json: &mut Value, text_bytes: usize, entries: usize) {
    match json {
        Value::String(text) => *text = shortened(text, text_bytes),
        Value::Array(values) => values.iter_mut().for_each(|value| shorten(value, text_bytes, entries)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Value::Array(values) = value
                    && LISTS.contains(&name.as_str())
                {
                    values.truncate(entries);
                }
                shorten(value, text_bytes, entries);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hashes and ids stay whole.
fn shortened(text: &str, bytes: usize) -> String {
    let is_id = text.len() <= 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
    let mut left = bytes;
    let room = text.chars().take_while(|c| {
        let size = if c.is_control() { 6 } else { c.len_utf8() + usize::from(matches!(c, '"' | '\\')) };
        let has_room = size <= left;
        left = left.saturating_sub(size);
        has_room
    });
    let room = room.count();
    if is_id { text.to_owned() } else { visible::cut(text, room) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use pairbench::Arm;

    use super::*;
    use crate::{
        attempt::{Confirmation, CounterRow, PairRow, VoidPair, guard::GuardResult, tests::row},
        ledger::Ledger,
        trace::attribution::{Attribution, KernelChange},
    };

    /// A record of this repository's ledger: a claim with pairs, guards and an attribution.
    const REAL: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../perf/ledger/08cc704056acd7ae744a08666eae8bbd11778b28c1b7a16e8243a23f6d25ef9b.json"
    ));

    fn real() -> Attempt {
        let record: Value = serde_json::from_str(REAL).unwrap();
        serde_json::from_value(record["body"]["attempt"].clone()).unwrap()
    }

    /// An attempt with as many pairs, guards and void pairs as it can have, each as long as it can be.
    fn fullest(text: &str) -> Attempt {
        let mut attempt = real();
        let pair = PairRow { run_log_ratio: -0.012_345, ..row() };
        let voids = |count| vec![VoidPair { number: 99, arm: Arm::Candidate, why: text.to_owned() }; count];
        let confirmation: Confirmation = attempt.confirmation.take().unwrap();
        attempt.pairs = vec![pair.clone(); 160];
        attempt.voids = voids(4);
        attempt.confirmation = Some(Confirmation {
            pairs: vec![pair; 160],
            voids: voids(4),
            refusal: Some(text.to_owned()),
            ..confirmation
        });
        attempt.hypothesis = Some(text.to_owned());
        attempt.area = Some(text.to_owned());
        attempt.reason = text.to_owned();
        attempt.manifest.command = text.to_owned();
        attempt.manifest.toolchain = text.to_owned();
        attempt.machine.cpu_model = Some(text.to_owned());
        attempt.counters = vec![CounterRow { name: text.to_owned(), baseline: u64::MAX, candidate: 1 }; 6];
        for check in &mut attempt.parity.as_mut().unwrap().checks {
            check.detail = text.to_owned();
        }
        let guard = GuardResult { name: text.to_owned(), ..attempt.guards[0].clone() };
        attempt.guards = vec![guard; 6];
        attempt.guard_d = (0..6).map(|guard| (format!("guard {guard}"), vec![-0.012_345; 60])).collect();
        let attribution: &mut Attribution = attempt.attribution.as_mut().unwrap();
        attribution.explanation = text.to_owned();
        let mut kernel: KernelChange = attribution.kernels[0].clone();
        kernel.change.name = text.to_owned();
        attribution.kernels = vec![kernel; 300];
        attempt
    }

    fn recorded(attempt: &Attempt) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        for branch in 0..3 {
            ledger.append("note", &branch, None).unwrap();
        }
        let id = ledger.append(crate::records::evidence::KIND, &AttemptRecord::of(attempt), Some(b"{}")).unwrap();
        Ledger::open(dir.path()).unwrap().get(&id.to_string()).unwrap().body().unwrap()
    }

    #[test]
    fn what_fits_is_recorded_as_it_is() {
        let attempt = real();
        let body: Value = serde_json::from_str::<Value>(REAL).unwrap()["body"].clone();
        // The new record also has fields that were added later.
        assert_holds(&serde_json::to_value(AttemptRecord::of(&attempt)).unwrap(), &body);
    }

    /// Everything of `body` is in `found` as it is.
    #[track_caller]
    fn assert_holds(found: &Value, body: &Value) {
        match body {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| assert_holds(&found[name], value)),
            Value::Array(values) if values.iter().all(Value::is_object) => {
                assert_eq!(found.as_array().map(Vec::len), Some(values.len()));
                values.iter().enumerate().for_each(|(index, value)| assert_holds(&found[index], value));
            }
            _ => assert_eq!(found, body),
        }
    }

    #[test]
    fn what_is_cut_says_how_much_and_evidence_stays() {
        let mut attempt = real();
        attempt.hypothesis = Some("h".repeat(49_900));
        attempt.manifest.config = "ab".repeat(32);
        let body = recorded(&attempt);
        let hypothesis = body["attempt"]["hypothesis"].as_str().unwrap();
        assert!(hypothesis.starts_with("hhh") && hypothesis.ends_with(" more characters)"), "{hypothesis}");
        assert_eq!(body["attempt"]["manifest"]["config"], "ab".repeat(32));
        for field in ["pairs", "confirmation", "guards", "guard_d", "coins", "plan", "baseline", "attribution"] {
            assert_eq!(body["attempt"][field], serde_json::to_value(&attempt).unwrap()[field], "{field}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_attempt_has_a_record(text in "(\\PC|\x1b|\n|\"|\\\\){1,8}", times in 1..20_000usize) {
            let attempt = fullest(&text.repeat(times));
            let body = recorded(&attempt);
            prop_assert_eq!(body["attempt"]["pairs"].as_array().unwrap().len(), 160);
            prop_assert_eq!(&body["attempt"]["guard_d"], &serde_json::to_value(&attempt.guard_d).unwrap());
            prop_assert_eq!(body["attempt"]["voids"].as_array().unwrap().len(), 4);
        }
    }
}

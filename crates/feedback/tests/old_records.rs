//! The claims of this repository's history are judged as they were when they were made.

use std::{fs, path::Path};

use feedback::{evidence::AttemptRecord, stats::sequential::Continuation, verify::recompute};
use serde_json::Value;

#[test]
fn confirmed_records_follow_from_their_pairs() {
    let ledger = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../perf/ledger");
    let mut confirmed = 0;
    for entry in fs::read_dir(ledger).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let body = &record["body"];
        if body["confirmation"]["accepted"] != true || !body["attempt"]["plan"]["continuation"].is_null() {
            continue;
        }
        let claim_pct = body["confirmation"]["estimate"]["speedup_pct"].as_f64().unwrap();
        let attempt: AttemptRecord = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(attempt.attempt.plan.unwrap().continuation, Continuation::Bets);
        assert_eq!(recompute(&attempt, claim_pct), Vec::<String>::new(), "{}", path.display());
        confirmed += 1;
    }
    assert_eq!(confirmed, 3);
}

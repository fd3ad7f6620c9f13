//! Ledgers that were truncated, changed, copied and merged.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use feedback::ledger::{Ledger, RecordId};
use proptest::prelude::*;
use serde_json::Value;

fn append(folder: &Path, body: &Value) -> RecordId {
    Ledger::open(folder).unwrap().append("note", body, None).unwrap()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"])
        .args(["-c", "core.autocrlf=true", "-c", "core.safecrlf=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn branches_merge_and_the_next_record_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let folder = root.join("perf/ledger");
    git(root, &["init", "--quiet", "--initial-branch=main"]);
    let commit = |subject: &str| {
        git(root, &["add", "--all"]);
        git(root, &["commit", "--quiet", "--message", subject]);
    };
    let first = append(&folder, &Value::from(0));
    commit("first");
    git(root, &["checkout", "--quiet", "-b", "other"]);
    let other = append(&folder, &Value::from(1));
    commit("other");
    git(root, &["checkout", "--quiet", "main"]);
    let main = Ledger::open(&folder).unwrap().append("note", &2, Some(b"[]")).unwrap();
    commit("main");
    assert!(!git(root, &["ls-files"]).contains("bulk"), "bulk data is not tracked");
    git(root, &["merge", "--quiet", "--no-edit", "other"]);

    let mut ledger = Ledger::open(&folder).unwrap();
    let both = BTreeSet::from([other, main]).into_iter().collect::<Vec<_>>();
    assert_eq!(ledger.heads(), both);
    let next = ledger.append("note", &3, None).unwrap();
    assert_eq!(ledger.get(&next.to_string()).unwrap().parents, both);
    commit("next");

    // A checkout on another machine has the same bytes, though git changes line ends there.
    git(root, &["clone", "--quiet", "--config", "core.autocrlf=true", ".", "clone"]);
    let ledger = Ledger::open(&root.join("clone/perf/ledger")).unwrap();
    assert_eq!(ledger.problems(), []);
    assert_eq!(ledger.heads(), [next]);
    assert_eq!((ledger.records().len(), ledger.records()[0].id), (4, first));
    let record = ledger.get(&main.to_string()).unwrap();
    assert!(record.bulk.is_some());
    assert_eq!(ledger.bulk(record).unwrap(), None, "bulk data stays on its machine");
}

fn file_content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (1..60_000usize).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

proptest! {
    // Few cases: each waits for a disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_in_any_file_are_survived_and_named(
        contents in prop::collection::vec((file_content(), any::<bool>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let good = append(dir.path(), &Value::from("good"));
        let mut names = BTreeSet::new();
        for (index, (content, is_rightly_named)) in contents.into_iter().enumerate() {
            let hash = if is_rightly_named { blake3::hash(&content) } else { blake3::hash(&[index as u8]) };
            let name = format!("{hash}.json");
            fs::write(dir.path().join(&name), &content).unwrap();
            names.insert(name);
        }
        let mut ledger = Ledger::open(dir.path()).unwrap();
        prop_assert_eq!(ledger.heads(), vec![good]);
        prop_assert_eq!(ledger.problems().iter().map(|problem| problem.file.clone()).collect::<BTreeSet<_>>(), names);
        let next = ledger.append("note", &0, None).unwrap();
        prop_assert_eq!(Ledger::open(dir.path()).unwrap().heads(), vec![next]);
    }
}

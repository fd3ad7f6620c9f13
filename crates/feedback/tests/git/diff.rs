//! Differences between trees.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use feedback::git::DiffStat;

use crate::sandbox::{Sandbox, globs, lines, make_executable};

#[test]
fn changed_files_and_their_size() {
    let sandbox = Sandbox::new();
    sandbox.write("binary", b"\0\x01\x02");
    sandbox.commit_all("second");
    sandbox.git(["mv", "src/kernel.txt", "src/renamed \n twice.txt"]);
    sandbox.write("a.txt", "one\ntwo\nthree\n");
    sandbox.write("binary", b"\0\x01\x03");
    make_executable(&sandbox.path("perf/log.csv"));
    sandbox.commit_all("third");
    let repository = sandbox.repository();
    let changed = repository.changed_files("HEAD~1", "HEAD").unwrap();
    let expected = ["a.txt", "binary", "perf/log.csv", "src/kernel.txt", "src/renamed \n twice.txt"];
    assert_eq!(changed, expected.map(PathBuf::from));
    let stat = repository.diff_stat("HEAD~1", "HEAD").unwrap();
    assert_eq!(stat, DiffStat { files: 5, insertions: 2 + 12, deletions: 12 });
    assert_eq!(repository.changed_files("HEAD", "HEAD").unwrap(), Vec::<PathBuf>::new());
    assert_eq!(repository.diff_stat("HEAD", "HEAD").unwrap(), DiffStat::default());
    assert!(repository.changed_files("nothing", "HEAD").is_err());
}

fn patch_id(sandbox: &Sandbox, commit: &str) -> String {
    let parent = format!("{commit}~1");
    let unmeasured = globs(["perf/**"]);
    sandbox.repository().patch_id(&sandbox.tree(&parent), &sandbox.tree(commit), &unmeasured).unwrap().unwrap()
}

/// A commit on `side` that changes the kernel's line 10, adds a binary file and makes `a.txt` executable.
fn with_change() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(["checkout", "--quiet", "-b", "side"]);
    sandbox.write("src/kernel.txt", lines((1..=9).chain([100, 11, 12])));
    sandbox.write("table.bin", b"\0one");
    make_executable(&sandbox.path("a.txt"));
    sandbox.write("perf/ledger/1.json", "{}");
    sandbox.commit_all("change");
    sandbox
}

#[test]
fn a_patch_id_survives_rebase_and_cherry_pick() {
    let sandbox = with_change();
    let expected = patch_id(&sandbox, "side");
    sandbox.git(["checkout", "--quiet", "main"]);
    sandbox.write("src/kernel.txt", lines([90, 91, 92].into_iter().chain(1..=12)));
    sandbox.write("perf/log.csv", "row 1\nrow 2\n");
    sandbox.commit_all("main goes on");
    sandbox.git(["cherry-pick", "side"]);
    assert_ne!(sandbox.tree("main"), sandbox.tree("side"));
    assert_eq!(patch_id(&sandbox, "main"), expected);
    sandbox.git(["checkout", "--quiet", "side"]);
    sandbox.git(["rebase", "--quiet", "main~1"]);
    assert_eq!(patch_id(&sandbox, "side"), expected);
}

#[test]
fn a_patch_id_tells_changes_apart() {
    let sandbox = with_change();
    let original = patch_id(&sandbox, "side");
    let with = |change: &dyn Fn()| {
        sandbox.git(["checkout", "--quiet", "--detach", "side"]);
        change();
        sandbox.git(["add", "--all"]);
        sandbox.git(["commit", "--quiet", "--amend", "-m", "another message"]);
        patch_id(&sandbox, "HEAD")
    };
    let kernel = fs::read_to_string(sandbox.path("src/kernel.txt")).unwrap();
    assert_eq!(with(&|| sandbox.write("perf/ledger/2.json", "{}")), original);
    assert_ne!(with(&|| sandbox.write("table.bin", b"\0two")), original);
    assert_ne!(with(&|| fs::remove_file(sandbox.path("table.bin")).unwrap()), original);
    assert_ne!(with(&|| fs::set_permissions(sandbox.path("a.txt"), Permissions::from_mode(0o644)).unwrap()), original);
    assert_ne!(with(&|| sandbox.write("src/kernel.txt", kernel.replace("line 100", "  line 100"))), original);
    assert_ne!(with(&|| sandbox.write("src/kernel.txt", kernel.replace("line 100", "line 101"))), original);
}

#[test]
fn equal_trees_have_no_patch_id() {
    let sandbox = with_change();
    let repository = sandbox.repository();
    assert_eq!(repository.patch_id("side", "side", &globs([])).unwrap(), None);
    assert_eq!(repository.patch_id("main", "side", &globs(["**"])).unwrap(), None);
}

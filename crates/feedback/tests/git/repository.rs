//! Opening a repository, its HEAD and its history.

use std::{collections::BTreeMap, fs};

use feedback::git::Repository;

use crate::sandbox::{Sandbox, git};

#[track_caller]
fn check_refused(path: &std::path::Path, named: &str) {
    let error = Repository::open(path).unwrap_err();
    assert!(error.to_string().contains(named), "{error}");
    assert!(error.to_string().contains("\n\nhint: "), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn what_is_no_repository_to_work_in_is_named() {
    let sandbox = Sandbox::without_commit();
    check_refused(&sandbox.root(), "has no commit yet");
    check_refused(&sandbox.path(".git"), "without a working tree");
    let bare = sandbox.beside("bare.git");
    git(&sandbox.root(), ["init", "--quiet", "--bare", bare.to_str().unwrap()]);
    check_refused(&bare, "without a working tree");
    fs::create_dir(sandbox.beside("plain")).unwrap();
    check_refused(&sandbox.beside("plain"), "is in no git repository");
    check_refused(&sandbox.beside("missing"), "is not a folder");
}

#[test]
fn a_repository_is_found_from_a_folder_inside() {
    let sandbox = Sandbox::new();
    let root = fs::canonicalize(sandbox.root()).unwrap();
    let repository = Repository::open(&sandbox.path("src")).unwrap();
    assert_eq!(repository.root(), root);
    assert_eq!(repository.git_dir(), root.join(".git"));
    assert_eq!(repository.common_dir(), root.join(".git"));
}

#[test]
fn a_linked_worktree_has_its_own_head_and_shares_the_rest() {
    let sandbox = Sandbox::new();
    let linked = sandbox.beside("linked tree\nof two lines");
    sandbox.git(["worktree", "add", "--quiet", "-b", "side", linked.to_str().unwrap()]);
    fs::write(linked.join("a.txt"), "two\n").unwrap();
    git(&linked, ["commit", "--quiet", "-a", "-m", "on the side"]);
    let repository = Repository::open(&linked).unwrap();
    assert_eq!(repository.root(), fs::canonicalize(&linked).unwrap());
    assert_eq!(repository.common_dir(), sandbox.repository().common_dir());
    assert_ne!(repository.git_dir(), repository.common_dir());
    assert_eq!(repository.head().unwrap().branch.as_deref(), Some("refs/heads/side"));
    assert_eq!(sandbox.repository().head().unwrap().commit, sandbox.git(["rev-parse", "main"]));
}

#[test]
fn head_is_a_branch_or_detached() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    assert_eq!(head.commit, sandbox.git(["rev-parse", "HEAD"]));
    assert_eq!(head.tree, sandbox.tree("HEAD"));
    assert_eq!(head.branch.as_deref(), Some("refs/heads/main"));
    sandbox.git(["checkout", "--quiet", "--detach"]);
    assert_eq!(repository.head().unwrap().branch, None);
}

#[test]
fn revisions_are_resolved_or_named() {
    let sandbox = Sandbox::new();
    let first = sandbox.git(["rev-parse", "HEAD"]);
    let second = sandbox.commit_all("second");
    sandbox.git(["tag", "-a", "v1", "-m", "v1", "HEAD~1"]);
    let repository = sandbox.repository();
    for (revision, expected) in [("v1", &first), ("main", &second), ("HEAD~1", &first), (&second[..10], &second)] {
        assert_eq!(repository.resolve(revision).unwrap(), *expected);
    }
    assert_eq!(repository.tree_of("v1").unwrap(), sandbox.tree("v1"));
    assert_eq!(repository.tree_of(&sandbox.tree("v1")).unwrap(), sandbox.tree("v1"));
    for revision in ["nothing", "-h", "--all", "", "a b", "main:a.txt", "main\0"] {
        let error = repository.resolve(revision).unwrap_err();
        assert!(error.to_string().contains("names no commit"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert!(repository.is_ancestor(&first, &second).unwrap());
    assert!(repository.is_ancestor(&second, &second).unwrap());
    assert!(!repository.is_ancestor(&second, &first).unwrap());
    assert!(repository.is_ancestor("nothing", &second).is_err());
}

#[test]
fn the_history_is_read_in_full() {
    let sandbox = Sandbox::new();
    let first = sandbox.git(["rev-parse", "HEAD"]);
    sandbox.git(["checkout", "--quiet", "-b", "side"]);
    let side = sandbox.commit_all("perf: größer, schneller (+1.50% tok/s)\n\nWhy: a body\nof two lines.\n\nAlpha-Record: abc\nAlpha-Interval: +1.1% ..\n +1.9%\n");
    sandbox.git(["checkout", "--quiet", "main"]);
    let main = sandbox.commit_all("main goes on\n\nNo trailer: this is\n\njust text");
    sandbox.git(["merge", "--quiet", "--no-ff", "-m", "join", "side"]);
    let join = sandbox.git(["rev-parse", "HEAD"]);

    let repository = sandbox.repository();
    let log = repository.log("main").unwrap();
    let by_id: BTreeMap<&str, _> = log.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    assert_eq!((log.len(), &log[0].id, &log[3].id), (4, &join, &first));
    assert_eq!(by_id[join.as_str()].parents, [main.clone(), side.clone()]);
    assert!(by_id[first.as_str()].parents.is_empty());
    let claim = by_id[side.as_str()];
    assert_eq!(claim.subject, "perf: größer, schneller (+1.50% tok/s)");
    assert!(claim.body.starts_with("Why: a body\nof two lines.\n\nAlpha-Record: abc\n"), "{}", claim.body);
    let trailer = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(claim.trailers, [trailer("Alpha-Record", "abc"), trailer("Alpha-Interval", "+1.1% .. +1.9%")]);
    assert!(by_id[main.as_str()].trailers.is_empty());
    assert_eq!(claim.time.as_second().to_string(), sandbox.git(["log", "-1", "--format=%ct", "side"]));

    let ids = |range: &str| repository.log(range).unwrap().into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids("main~1..side"), [side]);
    assert!(ids("main..main").is_empty());
    for range in ["nothing..main", "--all", "a.txt"] {
        let error = repository.log(range).unwrap_err();
        assert!(error.to_string().contains("is not a range"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}

type Begin = fn(&Sandbox);

/// A repository whose branches `main` and `side` both change `a.txt`, on `main`.
fn torn() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.git(["checkout", "--quiet", "-b", "side"]);
    sandbox.write("a.txt", "side\n");
    sandbox.commit_all("side");
    sandbox.git(["checkout", "--quiet", "main"]);
    sandbox.write("a.txt", "main\n");
    sandbox.commit_all("main");
    sandbox
}

#[test]
fn what_is_under_way_is_named_and_stops_a_snapshot() {
    let nothing = crate::sandbox::globs([]);
    let cases: [(&str, Begin); 6] = [
        ("a merge", |it| drop(it.try_git(["merge", "side"]))),
        ("a rebase", |it| drop(it.try_git(["rebase", "side"]))),
        ("a cherry-pick", |it| drop(it.try_git(["cherry-pick", "side"]))),
        ("a revert", |it| {
            it.write("a.txt", "later\n");
            it.commit_all("later");
            it.try_git(["revert", "--no-edit", "HEAD~1"]);
        }),
        ("a bisection", |it| drop(it.git(["bisect", "start", "HEAD", "HEAD~1"]))),
        ("a conflict", |it| drop(it.try_git(["merge", "--squash", "side"]))),
    ];
    for (named, begin) in cases {
        let sandbox = torn();
        let repository = sandbox.repository();
        assert_eq!(repository.merge_in_progress().unwrap(), None);
        begin(&sandbox);
        let found = repository.merge_in_progress().unwrap();
        assert!(found.is_some_and(|what| what.starts_with(named)), "{found:?} for {named}");
        let before = sandbox.state();
        let error = repository.snapshot(&nothing).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert_eq!(sandbox.state(), before);
    }
}

//! Files that clones share without a branch: worktrees, push, fetch, two histories, two writers at once.

use std::thread;

use feedback::git::{Repository, SharedFiles};

use crate::sandbox::{Sandbox, git};

/// Adds a file to the known ones.
fn add(repository: &Repository, name: &str) {
    repository
        .share_files("attempts", &|known| {
            let mut all: SharedFiles = known.into_iter().flatten().collect();
            all.insert(name.to_owned(), format!("{{\"of\":\"{name}\"}}\n").into_bytes());
            Ok(all)
        })
        .unwrap();
}

fn names(repository: &Repository) -> Vec<String> {
    let mut names: Vec<String> =
        repository.shared_files("attempts").unwrap().into_iter().flat_map(SharedFiles::into_keys).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn files_are_what_was_written_and_touch_nothing_else() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    assert_eq!(names(&repository), Vec::<String>::new());
    let head = sandbox.git(["rev-parse", "HEAD"]);
    add(&repository, "one.json");
    add(&repository, "two.json");
    assert_eq!(sandbox.git(["show", "refs/alpha-loop/attempts:one.json"]), "{\"of\":\"one.json\"}");
    assert_eq!(names(&repository), ["one.json", "two.json"]);
    assert_eq!((sandbox.git(["status", "--porcelain"]), sandbox.git(["rev-parse", "HEAD"])), (String::new(), head));
    // Known files make no commit.
    let before = sandbox.git(["rev-parse", "refs/alpha-loop/attempts"]);
    add(&repository, "two.json");
    assert_eq!(sandbox.git(["rev-parse", "refs/alpha-loop/attempts"]), before);
    assert_eq!(sandbox.git(["rev-list", "--count", "refs/alpha-loop/attempts"]), "2");
    // A linked worktree has the same.
    sandbox.git(["worktree", "add", "--quiet", "--detach", "../linked"]);
    assert_eq!(names(&Repository::open(&sandbox.beside("linked")).unwrap()), ["one.json", "two.json"]);
}

#[test]
fn two_histories_have_a_union_that_can_be_pushed() {
    let sandbox = Sandbox::new();
    git(&sandbox.beside("."), ["clone", "--quiet", "--bare", "repository", "hub"]);
    git(&sandbox.beside("."), ["clone", "--quiet", "hub", "other"]);
    sandbox.git(["remote", "add", "origin", "../hub"]);
    let (one, other) = (sandbox.repository(), Repository::open(&sandbox.beside("other")).unwrap());
    for (repository, name) in [(&one, "one.json"), (&other, "other.json")] {
        let missing = repository.remotes_without_shared("attempts").unwrap();
        let [(remote, refspec)] = missing.as_slice() else { panic!("{missing:?}") };
        git(repository.root(), ["config", "--add", &format!("remote.{remote}.fetch"), refspec]);
        assert_eq!(repository.remotes_without_shared("attempts").unwrap(), []);
        add(repository, name);
    }
    sandbox.git(["push", "--quiet", "origin", "refs/alpha-loop/attempts"]);
    git(other.root(), ["fetch", "--quiet"]);
    // Known as soon as it is fetched, and part of what is written next.
    assert_eq!(names(&other), ["one.json", "other.json"]);
    add(&other, "third.json");
    git(other.root(), ["push", "--quiet", "origin", "refs/alpha-loop/attempts"]);
    sandbox.git(["fetch", "--quiet"]);
    assert_eq!(names(&one), ["one.json", "other.json", "third.json"]);
    add(&one, "one.json");
    let listed = sandbox.git(["ls-tree", "--name-only", "refs/alpha-loop/attempts"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["one.json", "other.json", "third.json"]);
}

#[test]
fn two_writers_at_once_lose_nothing() {
    let sandbox = Sandbox::new();
    let wanted: Vec<String> = (0..8).map(|number| format!("{number}.json")).collect();
    thread::scope(|scope| {
        for half in wanted.chunks(4) {
            scope.spawn(|| half.iter().for_each(|name| add(&sandbox.repository(), name)));
        }
    });
    assert_eq!(names(&sandbox.repository()), wanted);
}

/// The number of measured trees is limited; shared files do not count as one.
#[test]
fn many_measured_trees_do_not_push_it_out() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    add(&repository, "one.json");
    let (tree, head) = (sandbox.tree("HEAD"), sandbox.git(["rev-parse", "HEAD"]));
    for number in 0..52 {
        repository.keep(&tree, &head, &format!("candidate/{number}")).unwrap();
    }
    assert_eq!(names(&repository), ["one.json"]);
    assert_eq!(sandbox.git(["for-each-ref", "--format=x", "refs/alpha-loop/candidate"]).lines().count(), 50);
}

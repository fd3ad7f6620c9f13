//! The working tree as a tree: the same as `git add --all` in a copy would make, with nothing touched.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use feedback::git::{Repository, Snapshot};

use crate::sandbox::{Sandbox, git, git_command, globs, make_executable};

/// Takes a snapshot, checks that it left no trace, and compares it with `git add --all` in a copy of the repository.
#[track_caller]
fn check(sandbox: &Sandbox) -> Snapshot {
    let before = sandbox.state();
    let snapshot = sandbox.repository().snapshot(&globs([])).unwrap();
    assert_eq!(sandbox.state(), before);
    let copy = sandbox.beside("copy");
    let copied = Command::new("cp").arg("-R").args([&sandbox.root(), &copy]).status().unwrap();
    assert!(copied.success());
    git(&copy, ["add", "--all"]);
    assert_eq!(snapshot.tree, git(&copy, ["write-tree"]));
    fs::remove_dir_all(&copy).unwrap();
    snapshot
}

fn paths<const N: usize>(names: [&str; N]) -> Vec<PathBuf> {
    names.map(PathBuf::from).to_vec()
}

#[test]
fn a_clean_working_tree_is_heads_tree() {
    let sandbox = Sandbox::new();
    let snapshot = check(&sandbox);
    assert_eq!(snapshot, Snapshot { tree: sandbox.tree("HEAD"), untracked: vec![], changed: vec![] });
}

#[test]
fn what_is_staged_changed_new_deleted_and_ignored() {
    let sandbox = Sandbox::new();
    for name in ["deleted", "unstaged", "both", "moved", "no longer tracked", "mode"] {
        sandbox.write(name, name);
    }
    sandbox.commit_all("second");
    sandbox.write("stashed", "1");
    sandbox.git(["stash", "push", "--quiet", "--include-untracked"]);

    fs::remove_file(sandbox.path("deleted")).unwrap();
    sandbox.git(["rm", "--quiet", "--cached", "no longer tracked"]);
    sandbox.git(["mv", "moved", "moved there"]);
    sandbox.write("both", "staged");
    sandbox.git(["add", "both"]);
    sandbox.write("both", "and changed again");
    sandbox.write("unstaged", "changed");
    sandbox.write("staged, then gone", "1");
    sandbox.git(["add", "staged, then gone"]);
    fs::remove_file(sandbox.path("staged, then gone")).unwrap();
    sandbox.write("intended", "1");
    sandbox.git(["add", "--intent-to-add", "intended"]);
    make_executable(&sandbox.path("mode"));
    sandbox.write("new", "1");
    sandbox.write("target/ignored", "1");
    sandbox.write("forced.o", "1");
    sandbox.git(["add", "--force", "forced.o"]);

    let snapshot = check(&sandbox);
    assert_eq!(snapshot.untracked, paths(["new", "no longer tracked"]));
    let changed = ["both", "deleted", "forced.o", "intended", "mode", "moved", "moved there", "new", "unstaged"];
    assert_eq!(snapshot.changed, paths(changed));
    let content = sandbox.content(&snapshot.tree);
    assert_eq!(content[Path::new("both")].1, b"and changed again");
    assert_eq!(content[Path::new("mode")].0, "100755");
}

#[test]
fn files_links_and_folders_take_each_others_place() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "1");
    sandbox.write("folder/inside", "1");
    sandbox.write("linked/inside", "1");
    symlink("a.txt", sandbox.path("link")).unwrap();
    sandbox.commit_all("second");
    fs::remove_file(sandbox.path("file")).unwrap();
    sandbox.write("file/now a folder", "1");
    fs::remove_dir_all(sandbox.path("folder")).unwrap();
    sandbox.write("folder", "now a file");
    // Its files can still be reached, by way of the link.
    fs::rename(sandbox.path("linked"), sandbox.path("target")).unwrap();
    symlink("target", sandbox.path("linked")).unwrap();
    fs::remove_file(sandbox.path("link")).unwrap();
    symlink("nowhere", sandbox.path("link")).unwrap();
    symlink("src", sandbox.path("link to a folder")).unwrap();
    let snapshot = check(&sandbox);
    let content = sandbox.content(&snapshot.tree);
    assert_eq!(content[Path::new("link")], ("120000".into(), b"nowhere".to_vec()));
    assert_eq!(content[Path::new("linked")], ("120000".into(), b"target".to_vec()));
}

#[test]
fn names_may_hold_anything() {
    let sandbox = Sandbox::new();
    let names: [&[u8]; 8] = [
        b"a space",
        b"two\nlines",
        "größer 漢字".as_bytes(),
        b"\xff\xfe",
        b"-dash",
        b"*",
        b"tab\tquote\"\\",
        b":(top)x",
    ];
    for name in names {
        sandbox.write(OsStr::from_bytes(name), name);
    }
    let snapshot = check(&sandbox);
    assert_eq!(snapshot.untracked.len(), names.len());
    let content = sandbox.content(&snapshot.tree);
    for name in names {
        assert_eq!(content[Path::new(OsStr::from_bytes(name))].1, name);
    }
    sandbox.commit_all("names");
    for name in names {
        fs::remove_file(sandbox.path(OsStr::from_bytes(name))).unwrap();
    }
    assert_eq!(check(&sandbox).changed.len(), names.len());
}

#[test]
fn a_worktree_and_a_detached_head_are_the_same_to_it() {
    let sandbox = Sandbox::new();
    let linked = sandbox.beside("linked");
    sandbox.git(["worktree", "add", "--quiet", "--detach", linked.to_str().unwrap()]);
    fs::write(linked.join("a.txt"), "linked\n").unwrap();
    sandbox.write("a.txt", "main\n");
    let snapshot = Repository::open(&linked).unwrap().snapshot(&globs([])).unwrap();
    assert_eq!(sandbox.content(&snapshot.tree)[Path::new("a.txt")].1, b"linked\n");
    assert_eq!(sandbox.content(&check(&sandbox).tree)[Path::new("a.txt")].1, b"main\n");
    assert_eq!(
        fs::read_dir(sandbox.path(".git"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("alpha"))
            .count(),
        0
    );
}

#[test]
fn unmeasured_files_are_those_of_head() {
    let sandbox = Sandbox::new();
    sandbox.write("perf/old.csv", "1");
    sandbox.commit_all("second");
    let repository = sandbox.repository();
    let unmeasured = globs(["perf/**"]);
    let head = repository.head().unwrap().tree;

    sandbox.write("perf/log.csv", "staged");
    sandbox.git(["add", "perf"]);
    sandbox.write("perf/log.csv", "on disk");
    sandbox.write("perf/ledger/new.json", "{}");
    fs::remove_file(sandbox.path("perf/old.csv")).unwrap();
    let before = sandbox.state();
    let snapshot = repository.snapshot(&unmeasured).unwrap();
    assert_eq!(sandbox.state(), before);
    assert_eq!(snapshot, Snapshot { tree: head.clone(), untracked: vec![], changed: vec![] });

    sandbox.write("a.txt", "changed\n");
    let changed = repository.snapshot(&unmeasured).unwrap();
    assert_eq!(changed.changed, paths(["a.txt"]));
    let measured = |tree: &str| repository.measured_tree(tree, &unmeasured).unwrap();
    assert_ne!(measured(&changed.tree), measured(&head));
    assert_eq!(sandbox.names(&measured(&head)), [".gitignore", "a.txt", "src/kernel.txt"]);
    sandbox.git(["checkout", "--quiet", "HEAD", "a.txt"]);
    sandbox.commit_all("perf alone");
    assert_ne!(sandbox.tree("HEAD"), head);
    assert_eq!(measured("HEAD"), measured(&head));
    assert_eq!(repository.measured_tree("HEAD", &globs(["none"])).unwrap(), sandbox.tree("HEAD"));
    let empty = repository.measured_tree("HEAD", &globs(["**"])).unwrap();
    assert_eq!(sandbox.names(&empty), [""; 0]);
}

/// Files that git was told not to check are checked; files that a sparse checkout leaves out do not count as deleted.
#[test]
fn nothing_hides_from_a_snapshot() {
    let sandbox = Sandbox::new();
    for name in ["skipped", "assumed", "both", "gone", "sparse/file"] {
        sandbox.write(name, "1");
    }
    sandbox.commit_all("second");
    sandbox.git(["update-index", "--skip-worktree", "skipped", "both", "sparse/file"]);
    sandbox.git(["update-index", "--assume-unchanged", "assumed", "both", "gone"]);
    for name in ["skipped", "assumed", "both"] {
        sandbox.write(name, "2");
    }
    fs::remove_file(sandbox.path("gone")).unwrap();
    fs::remove_dir_all(sandbox.path("sparse")).unwrap();
    let before = sandbox.state();
    let snapshot = sandbox.repository().snapshot(&globs([])).unwrap();
    assert_eq!(sandbox.state(), before);
    assert_eq!(snapshot.changed, paths(["assumed", "both", "gone", "skipped"]));
    let content = sandbox.content(&snapshot.tree);
    assert!(content.contains_key(Path::new("sparse/file")) && content[Path::new("skipped")].1 == b"2");
}

#[test]
fn files_with_names_of_secrets_are_refused_unless_they_are_added() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    for name in [".env", "deploy/.env.production", "server.PEM", "id_rsa", "tls.key", "credentials.json", ".netrc"] {
        sandbox.write(name, "pass word");
        let error = repository.snapshot(&globs([])).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")) && error.exit_code() == 2, "{error}");
        let id = sandbox.git(["hash-object", name]);
        assert!(!sandbox.try_git(["cat-file", "-e", &id]).status.success(), "git does not have it");
        sandbox.git(["add", "--intent-to-add", name]);
        repository.snapshot(&globs([])).unwrap();
        sandbox.git(["rm", "--quiet", "--cached", name]);
        fs::remove_file(sandbox.path(name)).unwrap();
        sandbox.git(["prune", "--expire=now"]);
    }
    for name in [".env.example", "id_rsa.pub", "keyboard.rs", "environment"] {
        sandbox.write(name, "1");
    }
    assert_eq!(repository.snapshot(&globs([])).unwrap().untracked.len(), 4);
}

/// Git compares whole seconds: the change is invisible but for the time of the index itself.
#[test]
fn a_change_within_the_second_of_the_index_is_seen() {
    let sandbox = Sandbox::new();
    let past = SystemTime::now() - Duration::from_secs(100);
    let at = |path: &Path| File::open(path).unwrap().set_modified(past).unwrap();
    let path = sandbox.path("a.txt");
    loop {
        sandbox.write("a.txt", "aaaa");
        at(&path);
        sandbox.git(["add", "a.txt"]);
        at(&sandbox.path(".git/index"));
        let changed_s = fs::metadata(&path).unwrap().ctime();
        let mut file = File::options().write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"bbbb").unwrap();
        at(&path);
        if fs::metadata(&path).unwrap().ctime() == changed_s {
            break; // else git would see it by the other time
        }
    }
    let snapshot = sandbox.repository().snapshot(&globs([])).unwrap();
    assert_eq!(sandbox.content(&snapshot.tree)[Path::new("a.txt")].1, b"bbbb");
}

#[test]
fn submodules_are_what_the_index_says_and_other_repositories_are_not_ours() {
    let sandbox = Sandbox::new();
    let inner = Sandbox::new();
    let url = inner.root();
    sandbox.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url.to_str().unwrap(), "inner"]);
    sandbox.commit_all("with a submodule");
    let inside = sandbox.path("inner");
    for (name, value) in [("user.name", "Ada"), ("user.email", "ada@example.org")] {
        git(&inside, ["config", name, value]);
    }
    git(&inside, ["commit", "--quiet", "--allow-empty", "-m", "moves on"]);
    fs::write(inside.join("untracked"), "1").unwrap();
    fs::create_dir(sandbox.path("nested")).unwrap();
    git(&sandbox.path("nested"), ["init", "--quiet"]);
    sandbox.write("nested/file", "1");
    let before = sandbox.state();
    let snapshot = sandbox.repository().snapshot(&globs([])).unwrap();
    assert_eq!(sandbox.state(), before);
    assert_eq!(snapshot.tree, sandbox.tree("HEAD"));
}

#[test]
fn huge_untracked_files_are_refused_by_name() {
    let sandbox = Sandbox::new();
    sandbox.write("data.bin", "");
    File::options().write(true).open(sandbox.path("data.bin")).unwrap().set_len(257 << 20).unwrap();
    let error = sandbox.repository().snapshot(&globs([])).unwrap_err();
    assert!(error.to_string().contains("257 MiB") && error.to_string().contains("`data.bin`"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert!(sandbox.repository().snapshot(&globs(["*.bin"])).is_ok());
}

#[test]
fn a_missing_or_split_index_is_no_obstacle() {
    let sandbox = Sandbox::new();
    sandbox.git(["update-index", "--split-index"]);
    sandbox.write("a.txt", "changed\n");
    sandbox.git(["add", "a.txt"]);
    let snapshot = check(&sandbox);
    fs::remove_file(sandbox.path(".git/index")).unwrap();
    assert_eq!(sandbox.repository().snapshot(&globs([])).unwrap().tree, snapshot.tree);
    assert!(!sandbox.path(".git/index").exists());
}

#[test]
fn kept_trees_survive_pruning_until_fifty_newer_ones_came() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    sandbox.write("a.txt", "candidate\n");
    let tree = repository.snapshot(&globs([])).unwrap().tree;
    let commit = repository.keep(&tree, &head.commit, "cycle-1/candidate").unwrap();
    sandbox.git(["prune", "--expire=now"]);
    assert_eq!(sandbox.git(["rev-parse", "refs/alpha-loop/cycle-1/candidate"]), commit);
    assert_eq!(sandbox.git(["log", "-1", "--format=%P %T %an", &commit]), format!("{} {tree} Ada", head.commit));
    assert_eq!(repository.head().unwrap(), head);
    let mut commit_of_2001 = git_command(&sandbox.root());
    commit_of_2001.args(["commit-tree", "-m", "old", &tree]).env("GIT_COMMITTER_DATE", "@978307200 +0000");
    let old = String::from_utf8(commit_of_2001.output().unwrap().stdout).unwrap();
    sandbox.git(["update-ref", "refs/alpha-loop/a", old.trim()]);
    for number in 0..48 {
        sandbox.git(["update-ref", &format!("refs/alpha-loop/b/{number}"), &commit]);
    }
    repository.keep(&tree, &head.commit, "cycle-2/candidate").unwrap();
    let kept = sandbox.git(["for-each-ref", "--format=%(refname)", "refs/alpha-loop"]);
    assert_eq!(kept.lines().count(), 50);
    assert!(!kept.contains("refs/alpha-loop/a\n"), "{kept}");
    for label in ["", "a..b", "../heads/main", "a b"] {
        assert!(repository.keep(&head.tree, &head.commit, label).is_err(), "{label}");
    }
}

#[test]
fn a_tree_is_kept_for_a_user_without_a_name() {
    let sandbox = Sandbox::new();
    for (name, value) in [("user.useConfigOnly", "true"), ("user.name", ""), ("user.email", "")] {
        sandbox.git(["config", name, value]);
    }
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    let commit = repository.keep(&head.tree, &head.commit, "c").unwrap();
    assert_eq!(
        sandbox.git(["log", "-1", "--format=%an <%ae> %cn", &commit]),
        "alpha loop <alpha-loop@localhost> alpha loop"
    );
}

//! Landing a tree on the user's branch.

use std::{fs, path::Path};

use feedback::ErrorKind;

use crate::sandbox::{Sandbox, folder_content, globs, make_executable};

/// A dirty working tree; and its snapshot without `perf`.
fn dirty() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.write("perf/log.csv", "staged row\n");
    sandbox.git(["add", "perf"]);
    sandbox.write("a.txt", "candidate\n");
    sandbox.write("new", "1");
    fs::remove_file(sandbox.path("src/kernel.txt")).unwrap();
    let tree = sandbox.repository().snapshot(&globs(["perf/**"])).unwrap().tree;
    (sandbox, tree)
}

const MESSAGE: &str = "perf: größer (+1.00% tok/s)\n\nBecause.\n\nAlpha-Record: abc";

#[test]
fn the_tree_lands_on_the_branch_and_the_rest_stays_as_it_was() {
    let (sandbox, tree) = dirty();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    let files = folder_content(&sandbox.root());
    let commit = repository.commit(&tree, MESSAGE, &head).unwrap();
    assert_eq!(sandbox.git(["rev-parse", "main"]), commit);
    assert_eq!(sandbox.git(["symbolic-ref", "HEAD"]), "refs/heads/main");
    let raw = sandbox.git(["cat-file", "commit", "HEAD"]);
    assert!(raw.starts_with(&format!("tree {tree}\nparent {}\nauthor Ada <ada@example.org> ", head.commit)), "{raw}");
    assert!(raw.ends_with(&format!("\n\n{MESSAGE}")) && !raw.contains("encoding"), "{raw}");
    assert_eq!(folder_content(&sandbox.root()), files);
    // What was staged beside the change is still staged, and nothing else is.
    assert_eq!(sandbox.git(["status", "--porcelain"]), "M  perf/log.csv");
    assert_eq!(sandbox.git(["diff-files", "--name-only"]), "");
    for reference in ["HEAD", "main"] {
        let log = sandbox.git(["log", "-g", "-1", "--format=%H %gs", reference]);
        assert_eq!(log, format!("{commit} commit: perf: größer (+1.00% tok/s)"));
    }
    sandbox.git(["fsck", "--strict"]);
}

#[test]
fn later_changes_stay_in_the_working_tree() {
    let (sandbox, tree) = dirty();
    sandbox.write("a.txt", "edited after the measurement\n");
    sandbox.write("later", "1");
    let repository = sandbox.repository();
    repository.commit(&tree, MESSAGE, &repository.head().unwrap()).unwrap();
    assert_eq!(sandbox.content("HEAD")[Path::new("a.txt")].1, b"candidate\n");
    assert_eq!(sandbox.git(["status", "--porcelain"]), " M a.txt\nM  perf/log.csv\n?? later");
}

#[test]
fn a_detached_head_moves_alone() {
    let (sandbox, tree) = dirty();
    sandbox.git(["checkout", "--quiet", "--detach"]);
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    let commit = repository.commit(&tree, MESSAGE, &head).unwrap();
    assert_eq!(sandbox.git(["rev-parse", "HEAD"]), commit);
    assert_eq!(sandbox.git(["rev-parse", "main"]), head.commit);
    assert!(!sandbox.try_git(["symbolic-ref", "--quiet", "HEAD"]).status.success());
}

#[test]
fn a_head_that_moved_is_refused_and_nothing_changes() {
    let moves: [fn(&Sandbox); 4] = [
        |it| drop(it.git(["commit", "--quiet", "--allow-empty", "-m", "another"])),
        |it| drop(it.git(["checkout", "--quiet", "-b", "other"])),
        |it| drop(it.git(["checkout", "--quiet", "--detach"])),
        |it| drop(it.git(["reset", "--quiet", "--soft", "HEAD~1"])),
    ];
    for go in moves {
        let (sandbox, tree) = dirty();
        sandbox.git(["commit", "--quiet", "--allow-empty", "-m", "second"]);
        let repository = sandbox.repository();
        let head = repository.head().unwrap();
        go(&sandbox);
        let before = sandbox.state();
        let error = repository.commit(&tree, MESSAGE, &head).unwrap_err();
        assert!(error.kind == ErrorKind::Refused, "{error}");
        assert!(error.to_string().starts_with("HEAD moved meanwhile: it was `main` at `"), "{error}");
        assert_eq!(sandbox.state(), before);
    }
}

#[test]
fn a_branch_that_cannot_be_moved_leaves_the_index_as_it_was() {
    let (sandbox, tree) = dirty();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    // As while another git is moving it.
    sandbox.write(".git/refs/heads/main.lock", "");
    let before = sandbox.state();
    let error = repository.commit(&tree, MESSAGE, &head).unwrap_err();
    assert!(error.to_string().contains("main.lock"), "{error}");
    assert_eq!(sandbox.state(), before);
    fs::remove_file(sandbox.path(".git/refs/heads/main.lock")).unwrap();
    repository.commit(&tree, MESSAGE, &head).unwrap();
}

#[test]
fn a_locked_index_leaves_the_branch_as_it_was() {
    let (sandbox, tree) = dirty();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    sandbox.write(".git/index.lock", "");
    let before = sandbox.state();
    let error = repository.commit(&tree, MESSAGE, &head).unwrap_err();
    assert!(error.to_string().contains("index.lock"), "{error}");
    assert_eq!(sandbox.state(), before);
}

/// The state after a crash between the two: the change is staged, HEAD is as before.
#[test]
fn a_commit_that_was_cut_off_is_made_by_calling_again() {
    let (sandbox, tree) = dirty();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    sandbox.git(["add", "a.txt", "new", "src"]);
    let commit = repository.commit(&tree, MESSAGE, &head).unwrap();
    assert_eq!(sandbox.git(["rev-parse", "main"]), commit);
    assert_eq!(sandbox.git(["status", "--porcelain"]), "M  perf/log.csv");
}

#[test]
fn a_merge_under_way_is_refused() {
    let (sandbox, tree) = dirty();
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    sandbox.write(".git/MERGE_HEAD", &head.commit);
    let error = repository.commit(&tree, MESSAGE, &head).unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.to_string().contains("a merge"), "{error}");
    assert_eq!(repository.head().unwrap(), head);
}

#[test]
fn a_user_without_a_name_is_asked_for_it() {
    let (sandbox, tree) = dirty();
    for (name, value) in [("user.useConfigOnly", "true"), ("user.name", ""), ("user.email", "")] {
        sandbox.git(["config", name, value]);
    }
    let repository = sandbox.repository();
    let before = sandbox.state();
    let error = repository.commit(&tree, MESSAGE, &repository.head().unwrap()).unwrap_err();
    assert!(error.to_string().contains("git config user.name"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert_eq!(sandbox.state(), before);
}

#[test]
fn commits_are_signed_where_the_user_signs() {
    let (sandbox, tree) = dirty();
    let program = sandbox.beside("gpg.sh");
    let script = "cat >/dev/null\nprintf '\\n[GNUPG:] SIG_CREATED \\n' >&2\nprintf -- '-----BEGIN PGP SIGNATURE-----\\nsigned by the test\\n'\n";
    fs::write(&program, format!("#!/bin/sh\n{script}")).unwrap();
    make_executable(&program);
    sandbox.git(["config", "commit.gpgsign", "true"]);
    sandbox.git(["config", "gpg.program", program.to_str().unwrap()]);
    let repository = sandbox.repository();
    let head = repository.head().unwrap();
    repository.keep(&tree, &head.commit, "unsigned").unwrap();
    assert!(!sandbox.git(["cat-file", "commit", "refs/alpha-loop/unsigned"]).contains("gpgsig"));
    repository.commit(&tree, MESSAGE, &head).unwrap();
    assert!(
        sandbox
            .git(["cat-file", "commit", "HEAD"])
            .contains("gpgsig -----BEGIN PGP SIGNATURE-----\n signed by the test")
    );

    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    let before = sandbox.state();
    let error = repository.commit(&head.tree, MESSAGE, &repository.head().unwrap()).unwrap_err();
    assert!(error.to_string().contains("commit-tree"), "{error}");
    assert_eq!(sandbox.state(), before);
}

//! A folder that holds one tree after the other.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use feedback::git::Repository;

use crate::sandbox::{Sandbox, folder_content, lines, make_executable, times};

/// A repository with two commits that differ in every way a file can, and a folder for them.
fn two_trees() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    sandbox.write("same.txt", "same");
    sandbox.write("only old", "1");
    sandbox.write("mode.sh", "1");
    sandbox.write("file or folder", "1");
    sandbox.write("folder or file/inside", "1");
    sandbox.write("größer\n漢字", "old");
    symlink("a.txt", sandbox.path("link")).unwrap();
    sandbox.commit_all("old");
    fs::remove_file(sandbox.path("only old")).unwrap();
    make_executable(&sandbox.path("mode.sh"));
    fs::remove_file(sandbox.path("file or folder")).unwrap();
    sandbox.write("file or folder/inside", "1");
    fs::remove_dir_all(sandbox.path("folder or file")).unwrap();
    sandbox.write("folder or file", "1");
    sandbox.write("größer\n漢字", "new");
    sandbox.write("only new", "1");
    sandbox.write("src/kernel.txt", lines(1..=13));
    fs::remove_file(sandbox.path("link")).unwrap();
    symlink("same.txt", sandbox.path("link")).unwrap();
    sandbox.commit_all("new");
    let stage = sandbox.beside("stage");
    (sandbox, stage)
}

/// Checks a revision out and compares the folder with what git says of the tree.
#[track_caller]
fn check(sandbox: &Sandbox, revision: &str, stage: &Path) {
    let before = sandbox.state();
    sandbox.repository().checkout(&sandbox.tree(revision), stage).unwrap();
    assert_eq!(sandbox.state(), before);
    assert_eq!(folder_content(stage), sandbox.content(revision));
}

#[test]
fn it_holds_exactly_the_tree() {
    let (sandbox, stage) = two_trees();
    for revision in ["HEAD", "HEAD~1", "HEAD", "HEAD", "HEAD~2"] {
        check(&sandbox, revision, &stage);
    }
    assert_eq!(sandbox.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
}

#[test]
fn only_what_differs_is_written() {
    let (sandbox, stage) = two_trees();
    check(&sandbox, "HEAD~1", &stage);
    // As after a build by a tool that only touches a file.
    let earlier = SystemTime::now() - Duration::from_secs(1000);
    for path in times(&stage).keys().filter(|path| !stage.join(path).is_symlink()) {
        File::open(stage.join(path)).unwrap().set_modified(earlier).unwrap();
    }
    let before = times(&stage);
    check(&sandbox, "HEAD~1", &stage);
    assert_eq!(times(&stage), before);
    let kernel = Path::new("src/kernel.txt");
    sandbox.git(["checkout", "--quiet", "--detach", "HEAD~1"]);
    sandbox.write(kernel, lines(1..=11));
    let changed = sandbox.commit_all("kernel");
    check(&sandbox, &changed, &stage);
    let is_new = |(path, time): &(PathBuf, SystemTime)| before.get(path) != Some(time);
    let written: Vec<PathBuf> = times(&stage).into_iter().filter(is_new).map(|(path, _)| path).collect();
    assert_eq!(written, [kernel]);
}

#[test]
fn what_a_build_did_is_undone_and_what_git_ignores_stays() {
    let (sandbox, stage) = two_trees();
    check(&sandbox, "HEAD", &stage);
    fs::write(stage.join("a.txt"), "changed").unwrap();
    fs::remove_file(stage.join("same.txt")).unwrap();
    make_executable(&stage.join(".gitignore"));
    fs::remove_dir_all(stage.join("src")).unwrap();
    fs::write(stage.join("src"), "a file").unwrap();
    fs::create_dir_all(stage.join("stray/deep/.git")).unwrap();
    fs::write(stage.join("stray/deep/file"), "1").unwrap();
    fs::create_dir_all(stage.join(".git/hooks")).unwrap();
    fs::write(stage.join("link.o"), "1").unwrap();
    fs::create_dir_all(stage.join("target/debug")).unwrap();
    fs::write(stage.join("target/debug/out"), "1").unwrap();
    for revision in ["HEAD", "HEAD~1"] {
        sandbox.repository().checkout(revision, &stage).unwrap();
        let mut content = folder_content(&stage);
        assert!(content.remove(Path::new("target/debug/out")).is_some());
        assert!(content.remove(Path::new("link.o")).is_some());
        assert_eq!(content, sandbox.content(revision));
        assert!(!stage.join("stray").exists() && !stage.join(".git").exists());
    }
}

#[test]
fn a_tracked_file_beats_an_ignored_one() {
    let sandbox = Sandbox::new();
    sandbox.write("gen.o", "tracked");
    sandbox.git(["add", "--force", "gen.o"]);
    sandbox.commit_all("tracked though ignored");
    let stage = sandbox.beside("stage");
    check(&sandbox, "HEAD~1", &stage);
    fs::write(stage.join("gen.o"), "built").unwrap();
    check(&sandbox, "HEAD", &stage);
    check(&sandbox, "HEAD~1", &stage);
}

/// Whether written files are younger than all that were there before, as build tools need.
#[test]
fn a_written_file_is_younger_than_an_earlier_builds_output() {
    let (sandbox, stage) = two_trees();
    let repository = sandbox.repository();
    let output = stage.join("target/out");
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    check(&sandbox, "HEAD~1", &stage);
    fs::create_dir(stage.join("target")).unwrap();
    // At once, and by a clock that is set back later.
    for ahead in [Duration::ZERO, Duration::from_secs(3600)] {
        for revision in ["HEAD", "HEAD~1"] {
            fs::write(&output, "built").unwrap();
            let built_at = SystemTime::now() + ahead;
            File::open(&output).unwrap().set_modified(built_at).unwrap();
            repository.checkout(revision, &stage).unwrap();
            for path in ["src/kernel.txt", "mode.sh", "größer\n漢字"] {
                assert!(modified(&stage.join(path)) > built_at, "{path} at {revision}");
            }
            // Both commits have the file that the link points to; a build sees that file's time.
            assert!(modified(&stage.join("link")) > built_at, "the file behind a changed link");
            let again = times(&stage);
            repository.checkout(revision, &stage).unwrap();
            assert_eq!(times(&stage), again);
        }
    }
}

#[test]
fn a_checkout_that_was_cut_off_is_begun_anew() {
    let (sandbox, stage) = two_trees();
    let lock = sandbox.beside("stage.git/index.lock");
    let index = sandbox.beside("stage.git/index");
    check(&sandbox, "HEAD", &stage);
    fs::write(&lock, "").unwrap();
    fs::create_dir(stage.join("target")).unwrap();
    fs::write(stage.join("target/half"), "1").unwrap();
    check(&sandbox, "HEAD~1", &stage);
    assert!(!lock.exists());
    for damage in [&b""[..], b"DIRC", b"\0\0\0\0 no index at all, but long enough to be taken for one"] {
        fs::write(&index, damage).unwrap();
        check(&sandbox, "HEAD", &stage);
    }
    fs::remove_file(&index).unwrap();
    check(&sandbox, "HEAD~1", &stage);
    fs::remove_dir_all(&stage).unwrap();
    check(&sandbox, "HEAD~1", &stage);
    fs::remove_dir_all(&stage).unwrap();
    fs::write(&stage, "a file in its place").unwrap();
    check(&sandbox, "HEAD", &stage);
}

#[test]
fn a_tree_that_is_not_there_leaves_the_folder_as_it_was() {
    let (sandbox, stage) = two_trees();
    check(&sandbox, "HEAD", &stage);
    let before = times(&stage);
    let error = sandbox.repository().checkout(&"0".repeat(40), &stage).unwrap_err();
    assert!(error.to_string().contains("names no tree"), "{error}");
    assert_eq!(times(&stage), before);
}

#[test]
fn from_a_worktree_into_a_folder_inside_the_git_folder() {
    let (sandbox, _) = two_trees();
    let linked = sandbox.beside("linked");
    sandbox.git(["worktree", "add", "--quiet", "--detach", linked.to_str().unwrap()]);
    let stage = sandbox.path(".git/alpha-loop/tree");
    let repository = Repository::open(&linked).unwrap();
    for revision in ["HEAD", "HEAD~1"] {
        repository.checkout(revision, &stage).unwrap();
        assert_eq!(folder_content(&stage), sandbox.content(revision));
    }
    assert_eq!(sandbox.git(["status", "--porcelain"]), "");
}

/// Attributes and settings that make git write other bytes than it stores.
#[test]
fn no_filter_line_end_or_encoding_changes_what_is_laid_out() {
    let sandbox = Sandbox::new();
    let marks = [
        "*.filtered filter=fast",
        "*.crlf text eol=crlf",
        "*.old crlf=input",
        "*.id ident",
        "*.wide text working-tree-encoding=UTF-16",
        "*.gone export-ignore",
    ];
    sandbox.write(".gitattributes", marks.join("\n") + "\n");
    for name in ["a.filtered", "a.crlf", "a.old", "a.id", "a.wide", "a.gone"] {
        // Into git as they are: the filters are not there yet.
        sandbox.write(name, "slow $Id$\n");
        let id = sandbox.git(["hash-object", "-w", "--no-filters", name]);
        sandbox.git(["update-index", "--add", "--cacheinfo", &format!("100644,{id},{name}")]);
    }
    sandbox.git(["add", ".gitattributes"]);
    sandbox.git(["commit", "--quiet", "-m", "attributes"]);
    for (name, value) in [
        ("filter.fast.smudge", "sed s/slow/fast/"),
        ("filter.fast.clean", "sed s/fast/slow/"),
        ("filter.fast.required", "true"),
        ("core.autocrlf", "true"),
        ("core.eol", "crlf"),
        ("core.symlinks", "false"),
        ("core.fileMode", "false"),
    ] {
        sandbox.git(["config", name, value]);
    }
    fs::create_dir_all(sandbox.path(".git/info")).unwrap();
    fs::write(sandbox.path(".git/info/attributes"), "*.txt filter=fast\n").unwrap();
    symlink("a.txt", sandbox.path("link")).unwrap();
    sandbox.git(["-c", "core.symlinks=true", "add", "link"]);
    sandbox.git(["commit", "--quiet", "-m", "a link"]);
    let stage = sandbox.beside("stage");
    for revision in ["HEAD", "HEAD~1", "HEAD~2", "HEAD"] {
        check(&sandbox, revision, &stage);
    }
    assert_eq!(fs::read_to_string(stage.join("a.filtered")).unwrap(), "slow $Id$\n");
    // A filter would treat the smudged file as the blob; here it is a difference.
    fs::write(stage.join("a.filtered"), "fast $Id$\n").unwrap();
    check(&sandbox, "HEAD", &stage);
}

#[test]
fn links_to_outside_and_pointers_of_lfs_are_refused_by_name() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    for (target, is_refused) in [("/etc", true), ("../../x", true), ("a/../../../x", true), ("../a.txt", false)] {
        let sandbox = Sandbox::new();
        symlink(target, sandbox.path("src/link")).unwrap();
        sandbox.commit_all("a link");
        let done = sandbox.repository().checkout("HEAD", &sandbox.beside("stage"));
        assert_eq!(done.is_err(), is_refused, "{target}");
        if let Err(error) = done {
            assert!(error.to_string().contains("`src/link` leads to `") && error.exit_code() == 4, "{error}");
            assert!(!sandbox.beside("stage").exists(), "nothing is laid out");
        }
    }
    let sandbox = Sandbox::new();
    sandbox.write("data/text.bin", pointer);
    sandbox.commit_all("a pointer");
    let repository = sandbox.repository();
    let (stage, inputs) = (sandbox.beside("stage"), sandbox.beside("inputs"));
    let named = [PathBuf::from("data")];
    for done in [repository.checkout("HEAD", &stage), repository.extract("HEAD", &named, &inputs)] {
        let error = done.unwrap_err().to_string();
        assert!(error.contains("`data/text.bin` is a pointer of git-lfs"), "{error}");
    }
    repository.extract("HEAD", &[PathBuf::from("a.txt")], &inputs).unwrap();
}

#[test]
fn what_differs_from_an_extracted_part_is_named() {
    let (sandbox, _) = two_trees();
    let (repository, inputs) = (sandbox.repository(), sandbox.beside("inputs"));
    let named = ["src", "mode.sh", "link", "folder or file"].map(PathBuf::from);
    let differences = || repository.differences("HEAD", &named, &inputs).unwrap();
    repository.extract("HEAD", &named, &inputs).unwrap();
    let whole = folder_content(&inputs);
    assert_eq!(whole.len(), 4);
    assert!(whole.iter().all(|(path, content)| sandbox.content("HEAD")[path] == *content));
    assert!(differences().is_empty());
    // A change of the same size, with the times put back.
    let kernel = inputs.join("src/kernel.txt");
    let time = fs::metadata(&kernel).unwrap().modified().unwrap();
    let text = fs::read_to_string(&kernel).unwrap();
    fs::write(&kernel, text.replace("line 1\n", "line 2\n")).unwrap();
    File::open(&kernel).unwrap().set_modified(time).unwrap();
    assert_eq!(differences(), [PathBuf::from("src/kernel.txt")]);
    fs::write(&kernel, text).unwrap();
    fs::write(inputs.join("src/more.o"), "1").unwrap();
    assert_eq!(differences(), [PathBuf::from("src/more.o")]);
    fs::remove_file(inputs.join("src/more.o")).unwrap();
    fs::remove_file(inputs.join("link")).unwrap();
    assert_eq!(differences(), [PathBuf::from("link")]);
    assert!(!sandbox.beside("inputs.git").exists());
    let error = repository.extract("HEAD", &[PathBuf::from("none")], &sandbox.beside("other")).unwrap_err();
    assert!(error.to_string().contains("`none` is not in the tree"), "{error}");
}

#[test]
fn a_snapshot_checked_out_is_the_working_tree() {
    let (sandbox, stage) = two_trees();
    sandbox.write("a.txt", "dirty");
    sandbox.write("new", "untracked");
    fs::remove_file(sandbox.path("same.txt")).unwrap();
    let snapshot = sandbox.repository().snapshot(&crate::sandbox::globs([])).unwrap();
    sandbox.repository().checkout(&snapshot.tree, &stage).unwrap();
    let on_disk: BTreeMap<_, _> = folder_content(&sandbox.root());
    assert_eq!(folder_content(&stage), on_disk);
    assert!(on_disk.keys().any(|path| path.as_os_str().as_bytes() == b"new"));
}

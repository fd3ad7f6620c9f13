//! The repository as the loop uses it: real repositories in temporary folders, driven by the `git` program beside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;

mod checkout;
mod commit;
mod diff;
mod repository;
mod shared_files;
mod snapshot;

use std::{env, fs, process::Command};

#[test]
fn checkouts_are_the_same_under_hostile_settings() {
    run_under_hostile_settings("checkout::");
}

#[test]
fn commits_are_the_same_under_hostile_settings() {
    run_under_hostile_settings("commit::");
}

#[test]
fn differences_are_the_same_under_hostile_settings() {
    run_under_hostile_settings("diff::");
}

#[test]
fn repositories_are_the_same_under_hostile_settings() {
    run_under_hostile_settings("repository::");
}

#[test]
fn snapshots_are_the_same_under_hostile_settings() {
    run_under_hostile_settings("snapshot::");
}

/// Runs tests of this program once more, in the environment of a hook and with a configuration that changes what git
/// prints and runs.
#[track_caller]
fn run_under_hostile_settings(tests: &str) {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("ran");
    let program = dir.path().join("program.sh");
    fs::write(&program, format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\nexit 1\n", marker.display())).unwrap();
    sandbox::make_executable(&program);
    let hooks = dir.path().join("hooks");
    fs::create_dir(&hooks).unwrap();
    for hook in ["pre-commit", "commit-msg", "post-index-change", "reference-transaction", "post-checkout"] {
        fs::copy(&program, hooks.join(hook)).unwrap();
    }
    let config = dir.path().join("config");
    let (program, hooks) = (program.display(), hooks.display());
    fs::write(
        &config,
        format!(
            "[core]\nhooksPath = {hooks}\nfsmonitor = {program}\npager = {program}\neditor = {program}\nsplitIndex = true\n\
             untrackedCache = true\nignoreStat = true\ntrustctime = false\nquotepath = true\nsafecrlf = true\n\
             sparseCheckout = true\n\
             [color]\nui = always\n\
             [diff]\nexternal = {program}\nnoprefix = true\nrenames = copies\nsuppressBlankEmpty = true\n\
             algorithm = patience\ncontext = 1\nignoreSubmodules = all\n\
             [log]\nshowSignature = true\ndate = relative\n\
             [i18n]\nlogOutputEncoding = latin1\ncommitEncoding = latin1\n\
             [trailer]\nseparators = \"#\"\n\
             [submodule]\nrecurse = true\n\
             [index]\nsparse = true\n\
             [patchid]\nstable = false\n"
        ),
    )
    .unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .arg(tests)
        .env("GIT_CONFIG_GLOBAL", &config)
        .envs([("GIT_DIR", "/nowhere"), ("GIT_WORK_TREE", "/nowhere"), ("GIT_INDEX_FILE", "/nowhere/index")])
        .envs([("GIT_OBJECT_DIRECTORY", "/nowhere"), ("GIT_NAMESPACE", "elsewhere"), ("GIT_PREFIX", "deep/")])
        .envs([("GIT_DIFF_OPTS", "-u0"), ("GIT_LITERAL_PATHSPECS", "1"), ("GIT_TRACE", "1")])
        .envs([("LC_ALL", "de_DE.UTF-8"), ("LANGUAGE", "de")])
        .env("GIT_EXTERNAL_DIFF", dir.path().join("program.sh"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("running 0 tests"), "{text}");
    let ran = fs::read_to_string(&marker).unwrap_or_default();
    assert_eq!(ran, "", "programs of the configuration were run");
}

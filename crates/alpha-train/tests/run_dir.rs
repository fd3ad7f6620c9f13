//! The run folder: its lock, and earlier runs in it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::{fs, path::Path};

use alpha_train::{
    TrainError,
    run_dir::{Created, RunDir, check_is_free, check_is_read_elsewhere, read_run_config},
};
use miette::Diagnostic as _;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write_run(dir: &Path, mark: &str) {
    fs::create_dir_all(dir.join("checkpoint-5")).unwrap();
    fs::write(dir.join("checkpoint-5/config.json"), "{}").unwrap();
    fs::write(dir.join("config.json"), format!("{{\"mark\":\"{mark}\"}}")).unwrap();
    fs::write(dir.join("metrics.jsonl"), "{\"step\":1}\n").unwrap();
}

/// Message and hint.
fn words(error: &impl miette::Diagnostic) -> String {
    error.help().map_or(error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

#[test]
fn a_new_folder_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs/a/b");
    let Created { run_dir, moved_to, .. } = RunDir::create(&path, &[]).unwrap();
    assert_eq!((run_dir.path(), moved_to), (path.as_path(), None));
    assert_eq!(read_run_config(&path).unwrap(), None);
    run_dir.write_config(&serde_json::json!({ "steps": 5 })).unwrap();
    assert_eq!(read_run_config(&path).unwrap().unwrap()["steps"], 5);
    assert_eq!(names(&path), [".lock", "config.json"]);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = RunDir::create(dir.path(), &[]).unwrap();
    for second in [RunDir::create(dir.path(), &[]).map(|_| ()), RunDir::resume(dir.path()).map(|_| ())] {
        let error = second.unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, TrainError::RunDirInUse { .. }));
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(error.help().is_some_and(|hint| hint.to_string().contains("--runDir")));
        assert_eq!(error.exit_code(), 1);
    }
    drop(first);
    RunDir::create(dir.path(), &[]).unwrap();
}

#[test]
fn an_unreadable_lock_file_is_still_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let _first = RunDir::create(dir.path(), &[]).unwrap();
    for content in ["", "not a number", "99999999999999999999999"] {
        fs::write(dir.path().join(".lock"), content).unwrap();
        let message = RunDir::resume(dir.path()).unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
    }
}

#[test]
fn an_earlier_run_is_moved_and_only_the_newest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let older = dir.path().join("run.old-20200101T000000Z");
    let strangers = [dir.path().join("run.old-notes"), dir.path().join("runs.old-20200101T000000Z")];
    write_run(&older, "older");
    for stranger in &strangers {
        write_run(stranger, "stranger");
    }
    write_run(&path, "earlier");
    fs::write(path.join("notes.txt"), "not of the run").unwrap();
    let Created { run_dir, moved_to, .. } = RunDir::create(&path, &[]).unwrap();
    let moved_to = moved_to.unwrap();
    assert!(moved_to.starts_with(dir.path()) && moved_to.to_str().unwrap().contains("run.old-2"), "{moved_to:?}");
    assert_eq!(names(&moved_to), ["checkpoint-5", "config.json", "metrics.jsonl"]);
    assert_eq!(read_run_config(&moved_to).unwrap().unwrap()["mark"], "earlier");
    assert_eq!(names(&path), [".lock", "notes.txt"]);
    assert!(!older.exists() && strangers.iter().all(|stranger| stranger.exists()));
    drop(run_dir);

    // Within the same second too, the newest one stays.
    write_run(&path, "latest");
    let Created { run_dir: _run_dir, moved_to, .. } = RunDir::create(&path, &[]).unwrap();
    assert_eq!(read_run_config(&moved_to.unwrap()).unwrap().unwrap()["mark"], "latest");
    let old = names(dir.path()).into_iter().filter(|name| name.starts_with("run.old-2")).count();
    assert_eq!(old, 1);
}

#[test]
fn resuming_and_folders_without_a_run_move_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    write_run(&path, "earlier");
    drop(RunDir::resume(&path).unwrap());
    assert_eq!(names(&path), [".lock", "checkpoint-5", "config.json", "metrics.jsonl"]);

    let other = dir.path().join("project");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("config.json"), "{}").unwrap();
    assert_eq!(RunDir::create(&other, &[]).unwrap().moved_to, None);
    assert_eq!(names(&other), [".lock", "config.json"]);
}

#[test]
fn a_broken_configuration_and_a_file_in_the_way_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{").unwrap();
    let message = read_run_config(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("broken"), "{message}");
    let message = RunDir::create(&dir.path().join("config.json"), &[]).unwrap_err().to_string();
    assert!(message.contains("cannot create"), "{message}");
}

#[test]
fn files_that_no_run_wrote_keep_a_run_out() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str, files: &[&str]| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        for file in files {
            fs::write(folder.join(file), "{}").unwrap();
        }
        folder
    };
    let refused = |path: &Path| words(&check_is_free(path).unwrap_err());
    // A model, and data under a name that runs use.
    let message = refused(&folder("model", &["config.json", "model.safetensors"]));
    assert!(
        message.contains("`config.json`, which no run of alpha has written") && message.contains("--runDir"),
        "{message}"
    );
    assert!(refused(&folder("data", &["samples.jsonl"])).contains("`samples.jsonl`"));
    check_is_free(&folder("project", &["notes.txt", "weights-of-mine"])).unwrap();
    check_is_free(&dir.path().join("none")).unwrap();
    // A run that was killed before its first step left its configuration.
    let begun = folder("begun", &[]);
    fs::write(begun.join("config.json"), "{\"accumSteps\": 1}").unwrap();
    check_is_free(&begun).unwrap();
    // Files that would be moved aside with an earlier run cannot be read by the next run.
    let run = dir.path().join("run");
    write_run(&run, "earlier");
    check_is_free(&run).unwrap();
    check_is_read_elsewhere(&run, &[run.join("checkpoint-5"), run.join("notes.txt"), dir.path().join("data")]).unwrap();
    let message = check_is_read_elsewhere(&run, &[run.join("metrics.jsonl")]).unwrap_err().to_string();
    assert!(message.contains("`metrics.jsonl`, which this run is to read"), "{message}");
}

#[test]
fn an_earlier_run_that_is_read_from_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let older = dir.path().join("run.old-20200101T000000Z");
    write_run(&older, "older");
    write_run(&path, "earlier");
    let created = RunDir::create(&path, &[older.join("checkpoint-5")]).unwrap();
    assert!(older.exists() && created.removed.is_empty());
    drop(created);
    write_run(&path, "later");
    let created = RunDir::create(&path, &[]).unwrap();
    assert!(!older.exists() && created.removed.len() == 2, "{:?}", created.removed);
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_renamed_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("run"), dir.path().join("moved"));
    let mut run_dir = RunDir::create(&path, &[]).unwrap().run_dir;
    fs::rename(&path, &moved).unwrap();
    let mut other = RunDir::create(&path, &[]).unwrap().run_dir;
    run_dir.follow().unwrap();
    other.follow().unwrap();
    // It does not matter if the lock file was deleted.
    fs::remove_file(moved.join(".lock")).unwrap();
    run_dir.follow().unwrap();
    assert_eq!((run_dir.path().canonicalize().unwrap(), other.path()), (moved.canonicalize().unwrap(), path.as_path()));
    fs::remove_dir_all(&moved).unwrap();
    assert!(run_dir.follow().unwrap_err().to_string().contains("was moved or deleted"));
}

//! The folders of a run's checkpoints.

use std::{fs, path::Path};

use alpha_nn::ParamLayout;
use alpha_tensor::Region;
use alpha_train::checkpoint::{list, load_params, newest, prune, read_training_state, remove_after};

use crate::{filled_backend, memory_backend::MemoryBackend, save, small_config, state};

fn make(dir: &Path, steps: &[u64]) {
    for step in steps {
        fs::create_dir_all(dir.join(format!("checkpoint-{step}"))).unwrap();
    }
}

fn steps(dir: &Path) -> Vec<u64> {
    list(dir).unwrap().into_iter().map(|saved| saved.step).collect()
}

#[test]
fn only_checkpoints_are_listed_by_number() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[9, 100, 20]);
    for name in ["checkpoint-", "checkpoint-007", "checkpoint-1x", ".tmp-1-checkpoint-3", "checkpoint-+5"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("checkpoint-4"), "a file").unwrap();
    assert_eq!(steps(dir.path()), [9, 20, 100]);
    assert_eq!(newest(dir.path()).unwrap().unwrap().path, dir.path().join("checkpoint-100"));
    assert_eq!(newest(&dir.path().join("none")).unwrap(), None);
}

#[test]
fn pruning_keeps_the_newest_and_the_best() {
    let check = |keep, best, expected: &[u64]| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &[10, 20, 30, 40]);
        let mut removed = prune(dir.path(), keep, best).unwrap();
        assert_eq!(steps(dir.path()), expected);
        removed.extend(expected);
        removed.sort_unstable();
        assert_eq!(removed, [10, 20, 30, 40]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), expected.len());
    };
    check(3, None, &[20, 30, 40]);
    check(3, Some(10), &[10, 20, 30, 40]);
    check(1, Some(20), &[20, 40]);
    check(2, Some(40), &[30, 40]);
    check(0, None, &[40]);
    check(9, None, &[10, 20, 30, 40]);
}

#[test]
fn a_run_that_goes_on_from_earlier_drops_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[10, 20, 30]);
    assert_eq!(remove_after(dir.path(), 15).unwrap(), [20, 30]);
    assert_eq!(steps(dir.path()), [10]);
}

#[test]
fn saving_cleans_up_after_a_crash_and_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let layout = ParamLayout::new(&small_config());
    let mut backend = filled_backend(&layout);
    save(dir.path(), &small_config(), &mut backend, &state(5));
    fs::create_dir(dir.path().join(".tmp-1-checkpoint-10")).unwrap();
    fs::write(dir.path().join(".tmp-1-checkpoint-10/model.safetensors"), "half").unwrap();
    backend.region_mut(Region::Params)[0] = -7.0;
    let folder = save(dir.path(), &small_config(), &mut backend, &state(5));
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["checkpoint-5", "metrics.jsonl"]);
    let mut loaded = MemoryBackend::new(&layout);
    load_params(&folder, &layout, &mut loaded).unwrap();
    assert_eq!(loaded.region(Region::Params), backend.region(Region::Params));
    assert_eq!(read_training_state(&folder).unwrap(), state(5));
}

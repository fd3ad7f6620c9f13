//! The peak memory that is predicted before a run, and the peak that the run reaches.

#![cfg(target_os = "linux")]

use std::fs;

use crate::place::{Place, Running};

/// Trains, then compares the prediction with the peak of resident memory, all in MiB. The data has only a few pages, so
/// they need not be subtracted.
///
/// Pages of the binary belong to the peak, but a system short of memory takes them back: the prediction has to hold
/// with them and without.
#[track_caller]
fn check(flags: &[&str], range: std::ops::Range<f64>) {
    let place = Place::with_text();
    let all = [flags, &["--steps=1000000", "--evalInterval=2", "--sampleInterval=2"]].concat();
    let mut run = Running::start(&mut place.train_command("run", &all));
    run.read_lines(5); // a step, an evaluation, a checkpoint, samples, and one round more
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let mib = |key: &str| -> f64 {
        let kib = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")).unwrap();
        kib.parse::<f64>().unwrap() / 1024.0
    };
    let peak = mib("VmHWM:");
    let done = run.end_by("KILL");
    let predicted = done.stderr.split_once("peak memory ").unwrap().1.split_once(" MiB predicted").unwrap().0;
    let predicted: f64 = predicted.parse().unwrap();
    assert!(range.contains(&peak), "{peak} MiB: not the size of run that this test is about");
    for measured in [peak, peak - mib("RssFile:")] {
        let off = (predicted - measured).abs();
        assert!(off <= 0.1 * measured + 16.0, "{predicted} MiB predicted, {measured} MiB measured");
    }
}

#[test]
fn a_small_model() {
    check(&[], 1.0..30.0);
    check(&["--tokenizer=bpe", "--accumSteps=3", "--checkpoint"], 1.0..50.0);
}

#[test]
fn a_middle_model_of_activations() {
    check(&["--layers=4", "--dim=128", "--heads=4", "--block=128", "--batch=48"], 150.0..300.0);
}

#[test]
fn a_middle_model_of_weights() {
    check(&["--layers=4", "--dim=512", "--heads=4", "--batch=2"], 180.0..300.0);
}

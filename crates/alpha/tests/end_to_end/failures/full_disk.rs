//! A file that cannot be written completely while a checkpoint is saved: the disk is full, or a limit is reached.
//!
//! A full disk takes a file system of its own, which not every system lets a user mount: there, that test says that it
//! was skipped. The limit on a file's size, which every process has, goes the same way through the program.

use std::{fs, io::Write};

use crate::{outcome::finish, place::Place, tensors::assert_same_checkpoint};

const FLAGS: &[&str] = &["--steps=20", "--evalInterval=5"];

#[test]
fn earlier_checkpoints_survive_and_the_run_goes_on_later() {
    let place = Place::with_text();
    place.train("whole", FLAGS).succeeded();
    place.train("run", &["--steps=20", "--evalInterval=5", "--keepCheckpoints=9"]).succeeded();
    for step in [10, 15, 20] {
        fs::remove_dir_all(place.path("run").join(format!("checkpoint-{step}"))).unwrap();
    }
    let before = place.tree("run/checkpoint-5");
    // 64 KiB: enough for rows and configuration, too little for the weights.
    let limit = "trap '' XFSZ; ulimit -f 128";
    let done = place.train_in_shell(limit, "run", &[FLAGS, &["--resume=auto"]].concat());
    done.refused(1, &["checkpoint-10"]);
    assert_eq!(place.checkpoint_steps("run"), [5]);
    assert!(place.tree("run/checkpoint-5") == before);
    assert!(!place.names("run").iter().any(|name| name.starts_with(".tmp-")), "{:?}", place.names("run"));
    assert_eq!(place.column("run", "step"), (1..=10).map(f64::from).collect::<Vec<_>>(), "no row is lost or torn");
    place.resume("run", &[]).succeeded();
    assert_same_checkpoint(&place.path("run/checkpoint-20"), &place.path("whole/checkpoint-20"));
}

/// 400 KiB hold one checkpoint of 330 KB, not two.
#[test]
fn a_full_disk_costs_nothing_that_was_saved() {
    const NO_MOUNT: i32 = 77;
    let place = Place::with_text();
    place.train("whole", FLAGS).succeeded();
    place.train("run", &["--steps=20", "--evalInterval=5", "--keepCheckpoints=9"]).succeeded();
    for step in [10, 15, 20] {
        fs::remove_dir_all(place.path("run").join(format!("checkpoint-{step}"))).unwrap();
    }
    fs::create_dir(place.path("disk")).unwrap();
    let script = "mount -t tmpfs -o size=400k none disk || exit 77
        cp -r run disk/run && rm -r run || exit 78
        \"$0\" train --resume=auto --runDir=disk/run; code=$?
        cp -r disk/run run; exit $code";
    let mut command = place.command("unshare");
    let Ok(mut probe) = place.command("unshare").arg("--version").stdout(std::process::Stdio::null()).spawn() else {
        return skipped("there is no `unshare`");
    };
    probe.wait().unwrap();
    let done = finish(command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_alpha")]));
    if done.code == Some(NO_MOUNT) || (done.code == Some(1) && done.stderr.starts_with("unshare: ")) {
        return skipped(&done.stderr);
    }
    done.refused(1, &["the disk is full", "checkpoint-10", "--resume=auto"]);
    assert_eq!(place.checkpoint_steps("run"), [5]);
    assert!(!place.names("run").iter().any(|name| name.starts_with(".tmp-")), "{:?}", place.names("run"));
    place.resume("run", &[]).succeeded();
    assert_same_checkpoint(&place.path("run/checkpoint-20"), &place.path("whole/checkpoint-20"));
}

/// Prints past the test runner, which hides the output of passing tests.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED a_full_disk_costs_nothing_that_was_saved: {}", why.trim());
}

#[test]
fn a_row_that_does_not_fit_is_not_torn() {
    let place = Place::with_text();
    // 8 KiB: not enough for the rows of a thousand steps.
    let done = place.train_in_shell("trap '' XFSZ; ulimit -f 16", "run", &["--steps=1000", "--evalInterval=0"]);
    done.refused(1, &["metrics.jsonl"]);
    let steps = place.column("run", "step");
    assert!(steps.len() > 5 && steps.iter().map(|&step| step as u64).eq(1..=steps.len() as u64), "{steps:?}");
}

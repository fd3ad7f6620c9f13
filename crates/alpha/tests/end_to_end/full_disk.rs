//! A file that cannot be written to its end while a checkpoint is saved: the disk is full, or a limit is reached.
//!
//! A full disk needs a file system of its own, which takes user namespaces; the limit on a file's size that every
//! process has goes the same way through the program. The system's own "no space left" is tested beside the writer.

use crate::{place::Place, tensors::assert_same_checkpoint};

const FLAGS: &[&str] = &["--steps=20", "--evalInterval=5"];

#[test]
fn earlier_checkpoints_survive_and_the_run_goes_on_later() {
    let place = Place::with_text();
    place.train("whole", FLAGS).succeeded();
    place.train("run", &["--steps=20", "--evalInterval=5", "--keepCheckpoints=9"]).succeeded();
    for step in [10, 15, 20] {
        std::fs::remove_dir_all(place.path("run").join(format!("checkpoint-{step}"))).unwrap();
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

#[test]
fn a_row_that_does_not_fit_is_not_torn() {
    let place = Place::with_text();
    // 8 KiB: not enough for the rows of a thousand steps.
    let done = place.train_in_shell("trap '' XFSZ; ulimit -f 16", "run", &["--steps=1000", "--evalInterval=0"]);
    done.refused(1, &["metrics.jsonl"]);
    let steps = place.column("run", "step");
    assert!(steps.len() > 5 && steps.iter().zip(1..).all(|(&found, step)| found == f64::from(step)), "{steps:?}");
}

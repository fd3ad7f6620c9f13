//! Same seed, same bits: flags that must not change a run change nothing in it.

use serde_json::Value;

use crate::place::Place;

/// The values of every step that training decides.
fn trajectory(place: &Place, run: &str) -> Vec<[Value; 6]> {
    let keys = ["step", "loss", "gradNorm", "lr", "clip_coef", "data_hash"];
    place.metrics(run).iter().map(|row| keys.map(|key| row[key].clone())).collect()
}

/// Trains with and without some flags and checks that nothing differs.
#[track_caller]
fn check(base: &[&str], added: &[&[&str]]) {
    let place = Place::with_text();
    place.train("base", &[base, &["--steps=20"]].concat()).succeeded();
    let (expected, weights) = (trajectory(&place, "base"), place.weights("base", 20));
    for flags in added {
        let base =
            base.iter().filter(|flag| !flags.iter().any(|other| other.split('=').next() == flag.split('=').next()));
        let all: Vec<&str> = base.chain(*flags).copied().chain(["--steps=20"]).collect();
        place.train("other", &all).succeeded();
        assert_eq!(trajectory(&place, "other"), expected, "with {flags:?}");
        assert!(place.weights("other", 20) == weights, "weights with {flags:?}");
    }
}

#[test]
fn twice_the_same_run() {
    check(&["--dropout=0.1"], &[&[]]);
}

#[test]
fn watching_changes_nothing() {
    check(
        &["--dropout=0.1", "--evalInterval=20"],
        &[
            &["--trace"],
            &["--logEvery=7"],
            &["--sampleInterval=3", "--postSamples"],
            &["--evalInterval=6", "--evalIters=5"],
            &["--evalInterval=0"],
        ],
    );
}

#[test]
fn recomputation_changes_nothing() {
    check(&["--dropout=0.1", "--accumSteps=2"], &[&["--checkpoint=true"]]);
    check(&["--activation=swiglu", "--tie=false", "--bias=false"], &[&["--checkpoint=true"]]);
}

#[test]
fn seeds_differ() {
    let place = Place::with_text();
    for seed in [1, 2] {
        place.train(&format!("seed-{seed}"), &["--steps=2", &format!("--seed={seed}")]).succeeded();
    }
    assert_ne!(trajectory(&place, "seed-1")[0][1], trajectory(&place, "seed-2")[0][1]);
}

/// Not only on the fast backend: the reference has to be deterministic too.
#[test]
fn the_reference_repeats_itself() {
    check(&["--backend=cpu_ref", "--dropout=0.1"], &[&["--trace", "--sampleInterval=9"]]);
}

//! `data_hash` in the rows: a check sum of every token and target that the run has consumed.

use serde_json::Value;

use crate::{
    place::{Place, u16_tokens},
    tensors::Tensors,
};

fn hashes(place: &Place, run: &str) -> Vec<String> {
    place.metrics(run).iter().map(|row| row["data_hash"].as_str().unwrap().to_owned()).collect()
}

/// The formula of `DataHash`, written a second time.
fn expected(tokens: &[u64], tokens_per_step: usize, steps: usize) -> Vec<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut pairs = tokens.windows(2);
    let mut after_step = || {
        for pair in pairs.by_ref().take(tokens_per_step) {
            hash = (hash ^ (pair[0] + pair[1] * (1 << 32))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        format!("{hash:016x}")
    };
    (0..steps).map(|_| after_step()).collect()
}

#[test]
fn rows_hash_the_tokens_consumed_so_far() {
    let place = Place::new();
    let tokens: Vec<u64> = (0..1000).map(|i| i * i % 97).collect();
    place.write("tokens.bin", u16_tokens(tokens.iter().map(|&token| token as u16)));
    let shards = ["--data=tokens.bin", "--tokenizer=", "--tokenDtype=u16", "--vocabSize=97", "--packed", "--steps=7"];
    let expected = expected(&tokens, 4 * 2 * 16, 7);
    for (run, flags) in [
        ("micro", &["--accumSteps=2"][..]),
        ("whole", &["--batch=8"]),
        ("threads", &["--batch=8", "--threads=1"]),
        ("still", &["--batch=8", "--spikeThreshold=1e-9"]), // updates left out have consumed their data
        ("reference", &["--batch=8", "--backend=cpu_ref"]),
    ] {
        place.train(run, &[&shards[..], flags].concat()).succeeded();
        assert_eq!(hashes(&place, run), expected, "{run}");
    }
}

#[test]
fn other_data_is_seen() {
    let place = Place::with_text();
    let last = |run: &str, flags: &[&str]| {
        place.train(run, &[&["--steps=4"], flags].concat()).succeeded();
        hashes(&place, run).pop().unwrap()
    };
    let base = last("base", &[]);
    assert_eq!(last("lr", &["--lr=1e-4"]), base);
    assert_ne!(last("seed", &["--seed=43"]), base);
    assert_ne!(last("half", &["--batch=2"]), base);
    assert_ne!(last("order", &["--packed"]), base);
}

/// Checkpoints without a hash are accepted, and no hash is made up.
#[test]
fn a_checkpoint_without_hash_goes_on_without() {
    let place = Place::with_text();
    let flags = ["--steps=10", "--evalInterval=5", "--keepCheckpoints=9"];
    place.train("whole", &flags).succeeded();
    place.train("run", &flags).succeeded();
    let path = place.path("run/checkpoint-5/training_state.safetensors");
    let mut state = Tensors::read(&path);
    let mut counters: Value = serde_json::from_str(state.metadata["training_state"].as_str().unwrap()).unwrap();
    assert!(counters.as_object_mut().unwrap().remove("data_hash").is_some());
    state.metadata["training_state"] = counters.to_string().into();
    state.write(&path);
    let done = place.alpha(&["train", "--resume=run/checkpoint-5"]).succeeded();
    assert!(done.stderr.contains("without `data_hash`"), "{}", done.stderr);
    let has_hash: Vec<bool> = place.metrics("run").iter().map(|row| row.get("data_hash").is_some()).collect();
    assert_eq!(has_hash, [vec![true; 5], vec![false; 5]].concat());
    assert!(place.weights("run", 10) == place.weights("whole", 10));
}

//! Data that cannot be used, too little memory, and numbers that are not finite.

use std::fs;

use serde_json::Value;

use crate::place::{Place, u16_tokens};

/// Flags for shards instead of text.
const SHARDS: &[&str] = &["--tokenizer=", "--tokenDtype=u16", "--steps=5"];

/// A shard as llm.c writes it for GPT-2.
fn llm_c_shard(said: u32, tokens: Vec<u8>) -> Vec<u8> {
    let words = [20_240_520, 1, said];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.resize(1024, 0);
    [bytes, tokens].concat()
}

/// A mistake must not cost the run that is in the folder already.
#[test]
fn data_that_cannot_be_used() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    let before = place.tree("run");
    place.write("empty.txt", "");
    place.write("short.txt", "the cat sat");
    place.write("latin1.txt", [b"caf\xe9 ".repeat(100), vec![0xff]].concat());
    place.write("broken.jsonl", "{\"text\": \"fine\"}\n{\"text\": 7}\n");
    place.write("cut.jsonl", "{\"text\": \"fine\"}\n{\"text\": \"cut o");
    place.write("cut.bin", llm_c_shard(500, u16_tokens(0..400)));
    place.write("header.bin", &llm_c_shard(0, Vec::new())[..600]);
    place.write("odd.bin", vec![1; 999]);
    fs::create_dir(place.path("nothing")).unwrap();
    let text: &[&str] = &["--steps=2"];
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("missing.txt", text, &["missing.txt", "does not exist"]),
        ("nothing", text, &["nothing", "no file"]),
        ("no/*.txt", text, &["no/*.txt", "no file"]),
        ("empty.txt", text, &["empty.txt", "is empty"]),
        ("short.txt", text, &["11 tokens", "at least 34"]),
        ("short.txt", &["--steps=2", "--packed"], &["11 tokens", "at least"]),
        ("latin1.txt", text, &["latin1.txt", "not UTF-8", "offset 3"]),
        ("broken.jsonl", text, &["broken.jsonl", "line 2"]),
        ("cut.jsonl", text, &["cut.jsonl", "line 2"]),
        ("cut.bin", &["--tokenizer="], &["cut.bin", "says 500", "holds 400"]),
        ("header.bin", &["--tokenizer="], &["header.bin", "600 bytes"]),
        ("odd.bin", SHARDS, &["odd.bin", "999 bytes"]),
        ("odd.bin", &["--tokenizer="], &["odd.bin", "--tokenDtype"]),
        ("text.txt", &["--valData=missing.txt"], &["missing.txt", "does not exist"]),
        ("text.txt", &["--valData=short.txt"], &["11 tokens"]),
        ("text.txt", &["--tokenizer=missing.json"], &["missing.json"]),
        ("text.txt", &["--tokenizer=text.txt"], &["text.txt"]),
    ];
    for (data, flags, words) in cases {
        let data = format!("--data={data}");
        place.train("run", &[&[data.as_str()], *flags].concat()).refused(1, words);
    }
    assert!(place.tree("run") == before);
    assert_eq!(place.names(".").iter().filter(|name| name.contains(".old-")).count(), 0);
}

#[test]
fn what_the_command_line_alone_shows_is_exit_2() {
    let place = Place::with_text();
    place.write("tokens.bin", u16_tokens((0..400).map(|i| i % 50)));
    let data = "--data=tokens.bin";
    place.train("run", &[&[data], SHARDS].concat()).refused(2, &["vocabulary", "--vocabSize"]);
    place.train("run", &["--vocabSize=17"]).refused(2, &["--vocabSize"]);
    place.train("run", &[data, "--tokenDtype=u16"]).refused(2, &["--tokenizer"]);
    place.train("run", &["--lr=1e39"]).refused(2, &["--lr=1e39", "single precision"]); // finite, but not in single precision
    assert!(!place.path("run").exists());
}

#[test]
fn a_token_outside_the_vocabulary() {
    let place = Place::new();
    let mut tokens: Vec<u16> = (0..400).map(|i| i % 50).collect();
    tokens[150] = 50;
    place.write("tokens.bin", u16_tokens(tokens));
    let flags = ["--data=tokens.bin", "--vocabSize=50", "--packed", "--evalInterval=1", "--evalIters=1"];
    // The third step reads tokens 128 to 192; the checkpoint of the second stays.
    let done = place.train("run", &[SHARDS, &flags].concat());
    done.refused(1, &["tokens.bin", "token 50", "index 150", "vocabulary of 50"]);
    assert_eq!(place.checkpoint_steps("run"), [1, 2]);
    assert_eq!(place.column("run", "step"), [1.0, 2.0]);
    place.train("larger", &[SHARDS, &flags[..1], &["--vocabSize=51", "--packed"]].concat()).succeeded();
    place.write("other.bin", u16_tokens([60; 40]));
    let eval = ["eval", "--checkpoint=larger/checkpoint-5", "--data=other.bin", "--tokenDtype=u16"];
    place.alpha(&eval).refused(1, &["other.bin", "token 60", "vocabulary of 51"]);
    place.alpha(&["sample", "--checkpoint=larger/checkpoint-5", "--prompt=3 51"]).refused(1, &["51"]);
    place.alpha(&["sample", "--checkpoint=larger/checkpoint-5", "--prompt=three"]).refused(1, &["three", "below 51"]);
}

#[test]
fn a_character_outside_the_vocabulary() {
    let place = Place::with_text();
    place.train("run", &["--steps=1"]).succeeded();
    place.write("other.txt", "the cat sat on a mat, and ran");
    let eval = ["eval", "--checkpoint=run/checkpoint-1", "--data=other.txt"];
    place.alpha(&eval).refused(1, &["other.txt", "byte 20", "`,`"]);
    place.alpha(&["sample", "--checkpoint=run/checkpoint-1", "--prompt=Hello"]).refused(1, &["`H`"]);
}

#[test]
fn a_model_larger_than_the_memory() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    let before = place.tree("run");
    let huge = ["--layers=100", "--dim=20000", "--heads=1"];
    place.train("run", &huge).refused(1, &["of memory", "are free", "make the model or `--block` smaller"]);
    assert!(place.tree("run") == before);
}

/// The suggestion is one that works, under the same limit.
#[test]
fn a_batch_larger_than_the_memory() {
    let place = Place::with_text();
    let limit = "ulimit -v 700000";
    let flags = ["--steps=1", "--batch=2048", "--layers=4", "--dim=128", "--evalIters=1"];
    let done = place.train_in_shell(limit, "run", &flags);
    done.refused(1, &["of memory", "are free", "--batch=", "--accumSteps="]);
    assert!(!place.path("run").exists());
    let number = |name: &str| -> u64 {
        let rest = done.stderr.split_once(name).unwrap().1;
        rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let (batch, accum_steps) = (number("--batch="), number("--accumSteps="));
    assert_eq!(batch * accum_steps, 2048, "{}", done.stderr);
    let [batch, accum_steps] = [format!("--batch={batch}"), format!("--accumSteps={accum_steps}")];
    let smaller = [&flags[..1], &flags[2..], &[&batch, &accum_steps]].concat();
    place.train_in_shell(limit, "run", &smaller).succeeded();
}

const DIVERGING: &[&str] = &["--lr=1e30", "--gradClip=0", "--warmupIters=-1", "--steps=20"];

#[test]
fn a_loss_that_becomes_nan_stops_the_run() {
    let place = Place::with_text();
    let done =
        place.train("run", &[DIVERGING, &["--accumSteps=2", "--evalInterval=1", "--keepCheckpoints=9"]].concat());
    let rows = place.metrics("run");
    let last = rows.last().unwrap();
    let step = last["step"].as_u64().unwrap();
    assert!((2..20).contains(&step), "{last}");
    done.refused(
        1,
        &[&format!("step {step}"), "first tensor", &format!("nonfinite-{step}.json"), "--onNonfinite=skip"],
    );
    assert!(last["nonfinite"].as_array().is_some_and(|names| !names.is_empty()), "{last}");
    for name in last["nonfinite"].as_array().unwrap() {
        assert_eq!(last[name.as_str().unwrap()], Value::Null, "{last}");
    }
    // The batch, as the loader gave it: targets are the tokens that follow.
    let saved = place.json(&format!("run/nonfinite-{step}.json"));
    assert_eq!(saved["step"], step);
    let micro_batches = saved["microBatches"].as_array().unwrap();
    assert_eq!(micro_batches.len(), 2);
    for micro_batch in micro_batches {
        let ids = |key: &str| -> Vec<u64> {
            micro_batch[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
        };
        let (tokens, targets) = (ids("tokens"), ids("targets"));
        assert_eq!((tokens.len(), targets.len()), (64, 64));
        for (tokens, targets) in tokens.chunks(16).zip(targets.chunks(16)) {
            assert_eq!(tokens[1..], targets[..15]);
        }
    }
    let culprit = saved["culprit"].as_str().unwrap();
    assert!(done.stderr.contains(culprit) && !culprit.contains("no tensor"), "{culprit}");
    // The state before the step is saved and whole.
    assert_eq!(place.checkpoint_steps("run").last(), Some(&(step - 1)));
    let weights =
        crate::tensors::Tensors::read(&place.path("run").join(format!("checkpoint-{}/model.safetensors", step - 1)));
    let values = weights.tensors.iter().flat_map(|(.., bytes)| bytes.as_chunks::<4>().0);
    assert!(values.map(|bytes| f32::from_le_bytes(*bytes)).all(f32::is_finite));
}

/// The same without an evaluation before it.
#[test]
fn the_state_before_the_bad_step_is_saved() {
    let place = Place::with_text();
    place.train("run", &[DIVERGING, &["--evalInterval=0"]].concat()).refused(1, &["first tensor"]);
    let step = place.metrics("run").len() as u64;
    assert_eq!(place.checkpoint_steps("run"), [step - 1]);
    // Going on with the same data ends in the same step.
    place.resume("run", &[]).refused(1, &[&format!("step {step}")]);
    assert_eq!(place.metrics("run").len() as u64, step);
}

/// Weights that are not finite to begin with are named.
#[test]
fn a_bad_weight_is_named() {
    let place = Place::with_text();
    place.train("run", &["--steps=1"]).succeeded();
    let path = place.path("run/checkpoint-1/model.safetensors");
    let mut tensors = crate::tensors::Tensors::read(&path);
    tensors.get_mut("h.1.attn.c_proj.weight").2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    tensors.write(&path);
    let flags = ["--init=run/checkpoint-1", "--tokenizer=run/checkpoint-1/tokenizer.json", "--steps=2"];
    let done = place.train("bad", &[&flags[..], &["--layers=", "--dim=", "--heads=", "--block="]].concat());
    done.refused(1, &["step 1 ", "h.1.attn.c_proj.weight"]);
    assert!(place.checkpoint_steps("bad").is_empty(), "there was no good state to save");
    assert!(!done.stderr.contains("newest checkpoint"), "a checkpoint is promised that is not there:\n{}", done.stderr);
}

#[test]
fn updates_that_are_not_finite_can_be_left_out() {
    let place = Place::with_text();
    let done = place.train("run", &[DIVERGING, &["--onNonfinite=skip"]].concat()).succeeded();
    let rows = place.metrics("run");
    assert_eq!(rows.len(), 20);
    let skipped = rows.iter().filter(|row| row["skipped"] == "nonfinite").count();
    let is_bad = |row: &&Value| row.get("nonfinite").is_some();
    assert!(skipped > 0 && skipped == rows.iter().filter(is_bad).count(), "{skipped}");
    let counters = crate::tensors::counters(&place.path("run/checkpoint-20"));
    assert_eq!((&counters["nonfinite_skipped"], &counters["updates"]), (&skipped.into(), &(20 - skipped).into()));
    assert!(done.stderr.contains(&format!("{skipped} not finite")), "{}", done.stderr);
    let printed_nan = done.stdout.lines().any(|line| line.contains("loss=nan") || line.contains("=inf"));
    assert!(printed_nan || done.stdout.contains("grad_norm=nan"), "{}", done.stdout);
    for line in done.stdout.lines() {
        crate::lines::StepLine::parse(line).expect(line);
    }
}

#[test]
fn spikes_are_left_out_and_counted() {
    let place = Place::with_text();
    place.train("free", &["--steps=20"]).succeeded();
    let norms = place.column("free", "gradNorm");
    let threshold = norms[0] * 0.999; // the first step is a spike; without its update, so are all that are as steep
    let done = place.train("run", &["--steps=20", &format!("--spikeThreshold={threshold}")]).succeeded();
    let rows = place.metrics("run");
    for row in &rows {
        let is_spike = row["gradNorm"].as_f64().unwrap() > threshold;
        assert_eq!(row.get("skipped").is_some_and(|why| why == "spike"), is_spike, "{row}");
    }
    assert_eq!(rows[0]["skipped"], "spike");
    let skipped = rows.iter().filter(|row| row.get("skipped").is_some()).count();
    let counters = crate::tensors::counters(&place.path("run/checkpoint-20"));
    assert_eq!((&counters["spikes_skipped"], &counters["updates"]), (&skipped.into(), &(20 - skipped).into()));
    assert!(done.stderr.contains(&format!("{skipped} spikes")), "{}", done.stderr);
    // A threshold that no norm exceeds changes nothing.
    place.train("high", &["--steps=20", "--spikeThreshold=1e6"]).succeeded();
    assert!(place.weights("high", 20) == place.weights("free", 20));
    // One that every norm exceeds leaves the weights as they were.
    place.train("low", &["--steps=20", "--spikeThreshold=1e-9"]).succeeded();
    place.train("one", &["--steps=1", "--spikeThreshold=1e-9"]).succeeded();
    assert!(place.weights("low", 20) == place.weights("one", 1));
}

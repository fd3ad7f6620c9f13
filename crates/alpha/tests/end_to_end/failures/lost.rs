//! Files, folders and runs that a mistake must not cost; and what a model's folder says about it.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;

use crate::{
    outcome::finish,
    place::{Place, Running},
};

/// Rewrites a JSON file.
fn edit(place: &Place, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap();
    change(&mut value);
    place.write(file, value.to_string());
}

#[test]
fn a_folder_chosen_by_mistake_keeps_what_is_in_it() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    // A model as other programs keep it.
    fs::rename(place.path("run/checkpoint-2"), place.path("model")).unwrap();
    let before = fs::read(place.path("model/config.json")).unwrap();
    let init: &[&str] = &["--init=model", "--steps=1", "--layers=", "--dim=", "--heads=", "--tokenizer="];
    place.train("model", init).refused(1, &["`model`", "`config.json`", "--runDir"]);
    assert_eq!(fs::read(place.path("model/config.json")).unwrap(), before);
    // Data under a name that runs use.
    place.write("mine/samples.jsonl", "{\"text\": \"the cat sat\"}\n".repeat(90));
    place
        .train("mine", &["--steps=1", "--data=mine/samples.jsonl"])
        .refused(1, &["`samples.jsonl`", "no run of alpha"]);
    // Nor in a folder that a run has used, under any name of the data.
    place.write("run/samples.jsonl", fs::read(place.path("mine/samples.jsonl")).unwrap());
    for data in ["--data=run/sam*.jsonl", "--valData=run/samples.jsonl"] {
        place.train("run", &["--steps=1", data]).refused(1, &["`samples.jsonl`", "is to read"]);
    }
    assert_eq!(fs::read_to_string(place.path("run/samples.jsonl")).unwrap().lines().count(), 90);
    assert_eq!(fs::read_to_string(place.path("mine/samples.jsonl")).unwrap().lines().count(), 90);
}

#[test]
fn what_a_run_begins_with_is_not_deleted_by_it() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    place.train("run", &["--steps=2"]).succeeded();
    let old = fs::read_dir(place.path("")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let old = old.into_iter().find(|name| name.starts_with("run.old-")).unwrap();
    let kept = place.path("run.old-20200101T000000Z");
    fs::rename(place.path(&old), &kept).unwrap();
    let init = format!("--init={}", kept.join("checkpoint-2").display());
    let shape: &[&str] = &["--steps=1", "--layers=", "--dim=", "--heads=", "--tokenizer="];
    place.train("run", &[&[init.as_str()], shape].concat()).succeeded();
    assert!(kept.exists());
    let done = place.train("run", &["--steps=1"]).succeeded();
    assert!(!kept.exists() && done.stderr.contains("run.old-20200101T000000Z`, moved aside before"), "{}", done.stderr);
}

/// A run that died before it saved anything is an earlier run too, but it does not replace one with a checkpoint.
#[test]
fn a_run_without_a_checkpoint_pushes_out_none_that_has_one() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    let die = || {
        let mut running = Running::start(&mut place.train_command("run", &["--steps=100000", "--evalInterval=0"]));
        running.read_lines(1);
        running.kill();
    };
    die();
    die();
    let done =
        place.resume("run", &["--data=text.txt", "--steps=1", "--backend=cpu", "--layers=1", "--dim=32", "--heads=2"]);
    let done = done.succeeded();
    let old = place.names("").into_iter().filter(|name| name.starts_with("run.old-"));
    let old: Vec<String> = old.filter(|name| place.path(name).join("checkpoint-2").exists()).collect();
    assert_eq!(old.len(), 1, "{:?}", place.names(""));
    assert!(done.stderr.contains(&format!("{}/checkpoint-2`", old[0])), "{}", done.stderr);
}

#[test]
fn a_tokenizer_replaces_nothing_but_a_tokenizer() {
    let place = Place::with_text();
    let build =
        |out: &str| place.alpha(&["tokenizer", "build", "--type=char", "--input=text.txt", &format!("--out={out}")]);
    let text = fs::read(place.path("text.txt")).unwrap();
    build("text.txt").refused(1, &["`text.txt` exists and is not a tokenizer"]);
    assert_eq!(fs::read(place.path("text.txt")).unwrap(), text);
    build("own.json").succeeded();
    let own = fs::read(place.path("own.json")).unwrap();
    place.write("deep/target.json", &own[..]);
    symlink("deep/target.json", place.path("link.json")).unwrap();
    build("link.json").succeeded();
    assert!(place.path("link.json").is_symlink());
    assert_eq!(fs::read(place.path("deep/target.json")).unwrap(), own);
    assert_eq!(build("/dev/stdout").succeeded().stdout.as_bytes(), own);
    let mut command = place.command("sh");
    let script = "\"$0\" tokenizer build --type=char --input=text.txt --out=/dev/stdout > kept.json && cat kept.json";
    command.args(["-c", script, env!("CARGO_BIN_EXE_alpha")]);
    assert_eq!(finish(&mut command).succeeded().stdout.as_bytes(), own);
    // A file system in memory is not a device.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        build(memory.path().join("own.json").to_str().unwrap()).succeeded();
        assert_eq!(fs::read(memory.path().join("own.json")).unwrap(), own);
    }
    let mut command = place.command("sh");
    let script =
        "mkfifo pipe; cat pipe > read.json & \"$0\" tokenizer build --type=char --input=text.txt --out=pipe && wait";
    command.args(["-c", script, env!("CARGO_BIN_EXE_alpha")]);
    finish(&mut command).succeeded();
    assert_eq!(fs::read(place.path("read.json")).unwrap(), own);
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_with_its_name() {
    let place = Place::with_text();
    place.train_in_shell("ulimit -f 40", "run", &["--steps=2"]).refused(1, &["ulimit -f", "model.safetensors"]);
}

#[test]
fn a_split_that_held_nothing_back_is_not_evaluated_as_if_it_had() {
    let place = Place::with_text();
    place.write("val.txt", fs::read(place.path("text.txt")).unwrap());
    let eval = |run: &str, split: &str| {
        place.alpha(&["eval", &format!("--checkpoint={run}/checkpoint-2"), "--data=text.txt", split, "--backend=cpu"])
    };
    place.train("split", &["--steps=2"]).succeeded();
    eval("split", "--split=val").succeeded();
    place.train("given", &["--steps=2", "--valData=val.txt"]).succeeded();
    eval("given", "--split=val").refused(1, &["trained on", "--split=all"]);
    eval("given", "--split=all").succeeded();
    // A state that cannot be read says nothing about it.
    place.write("given/checkpoint-2/training_state.safetensors", "broken");
    eval("given", "--split=val").refused(1, &["training_state.safetensors", "broken"]);
}

#[test]
fn a_configuration_that_was_edited_does_not_change_the_model() {
    let place = Place::with_text();
    place.train("run", &["--steps=2"]).succeeded();
    for (key, value, words) in [
        ("heads", Value::from(4), ["heads=4", "heads=2"]),
        ("seed", Value::from(77), ["seed=77", "seed=42"]),
        ("lr", Value::from(0.5), ["lr=0.5", "lr=0.01"]),
        ("weightDecay", Value::from(0.5), ["weightDecay=0.5", "weightDecay=0.1"]),
    ] {
        let kept = fs::read(place.path("run/config.json")).unwrap();
        edit(&place, "run/config.json", |config| config[key] = value);
        place.resume("run", &["--steps=4"]).refused(1, &[&words[..], &["checkpoint-2"]].concat());
        place.write("run/config.json", kept);
    }
    let tokenizer = "run/checkpoint-2/tokenizer.json";
    let kept = fs::read(place.path(tokenizer)).unwrap();
    place.write(tokenizer, String::from_utf8(kept.clone()).unwrap().replacen('\n', "\n ", 1));
    place.resume("run", &["--steps=4"]).refused(1, &[tokenizer, "is not the tokenizer that the run was trained with"]);
    place.write(tokenizer, kept);
    place.resume("run", &["--steps=4"]).succeeded();
}

/// A run follows its folder, and does not write into another that has taken its name.
#[test]
fn a_run_goes_with_its_folder() {
    let place = Place::with_text();
    let mut running = Running::start(&mut place.train_command("run", &["--steps=100000", "--evalInterval=0"]));
    running.read_lines(3);
    fs::rename(place.path("run"), place.path("moved")).unwrap();
    place.train("run", &["--steps=2"]).succeeded();
    let done = running.end_by("INT");
    assert_eq!(done.code, Some(130), "{}", done.stderr);
    assert_eq!(place.checkpoint_steps("run"), [2]);
    assert_eq!(place.checkpoint_steps("moved").len(), 1);
}

/// `eos_token_id` of a folder's `config.json`, one or several.
#[test]
fn a_text_ends_where_the_model_says_it_ends() {
    let place = Place::with_text();
    place.train("run", &["--steps=30"]).succeeded();
    let sample = || {
        let done = place.alpha(&[
            "sample",
            "--checkpoint=run/checkpoint-30",
            "--prompt=the ",
            "--steps=20",
            "--temp=0",
            "--json",
            "--backend=cpu",
        ]);
        let object: Value = serde_json::from_str(&done.succeeded().stdout).unwrap();
        object["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let whole = sample();
    assert_eq!(whole.len(), 20);
    let fifth = whole.iter().position(|token| *token == whole[5]).unwrap();
    let config = "run/checkpoint-30/config.json";
    for declared in [Value::from(whole[5]), Value::from(vec![999_999, whole[5]])] {
        edit(&place, config, |config| config["eos_token_id"] = declared);
        assert_eq!(sample(), whole[..=fifth]);
    }
    // Documents end with it too.
    place.write("docs.jsonl", "{\"text\": \"the cat sat\"}\n".repeat(90));
    let shape: &[&str] = &["--data=docs.jsonl", "--steps=1", "--layers=", "--dim=", "--heads=", "--tokenizer="];
    let done = place.train("tuned", &[&["--init=run/checkpoint-30"], shape].concat()).succeeded();
    assert!(!done.stderr.contains("no end-of-text token"), "{}", done.stderr);
    let saved: Value =
        serde_json::from_slice(&fs::read(place.path("tuned/checkpoint-1/config.json")).unwrap()).unwrap();
    assert_eq!(saved["eos_token_id"], whole[5]);
    // As Python writes it, and where only the tokenizer's own configuration names it.
    let text = fs::read_to_string(place.path(config)).unwrap().replacen('{', "\u{feff}{\"other\": NaN, ", 1);
    place.write(config, text);
    assert_eq!(sample(), whole[..=fifth]);
    let tokenizer: Value = place.json("run/checkpoint-30/tokenizer.json");
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let token = vocab.iter().find(|(_, id)| id.as_u64() == Some(whole[5])).unwrap().0.clone();
    place.write(config, fs::read_to_string(place.path(config)).unwrap().replace("eos_token_id", "other_id"));
    for own in [Value::from(token.clone()), serde_json::json!({ "content": token })] {
        place.write("run/checkpoint-30/tokenizer_config.json", serde_json::json!({ "eos_token": own }).to_string());
        assert_eq!(sample(), whole[..=fifth]);
    }
    place.write("run/checkpoint-30/tokenizer_config.json", "{");
    place.alpha(&["sample", "--checkpoint=run/checkpoint-30"]).failed(1, &["tokenizer_config.json", "not valid JSON"]);
}

/// Token 0 can be the end of a text, and tokens that were encoded without it are not mistaken for those with it.
#[test]
fn documents_end_with_token_0_where_the_model_says_so() {
    let place = Place::with_text();
    place.train("run", &["--steps=1"]).succeeded();
    place.write("docs.jsonl", "{\"text\": \"the cat sat\"}\n".repeat(90));
    let tokens = || {
        let done =
            place.alpha(&["eval", "--checkpoint=run/checkpoint-1", "--data=docs.jsonl", "--json", "--backend=cpu"]);
        serde_json::from_str::<Value>(&done.succeeded().stdout).unwrap()["tokens"].as_u64().unwrap()
    };
    let without = tokens();
    edit(&place, "run/checkpoint-1/config.json", |config| config["eos_token_id"] = Value::from(0));
    assert_eq!(tokens(), without + 90);
}

//! Checkpoints that are broken or do not fit, under `--init`, `sample`, `eval` and `--resume`.

use std::fs;

use crate::{place::Place, tensors::Tensors};

/// A place with a run of five steps, and `model`: a copy of its checkpoint to damage.
fn with_model() -> Place {
    let place = Place::with_text();
    place.train("run", &["--steps=5"]).succeeded();
    repair(&place);
    place
}

/// Restores `model`.
fn repair(place: &Place) {
    for (name, content) in place.tree("run/checkpoint-5") {
        place.write(&format!("model/{}", name.display()), content);
    }
}

/// Checks that every command that opens `model` says the same, and that the run is unchanged.
#[track_caller]
fn check(place: &Place, words: &[&str]) {
    let before = place.tree("run");
    let shape = ["--layers=", "--dim=", "--heads=", "--block="]; // an empty value: the model's own
    let tokenizer = "--tokenizer=run/checkpoint-5/tokenizer.json";
    let init = [&["--init=model", "--steps=2", tokenizer][..], &shape].concat();
    place.train("other", &init).refused(1, words);
    place.alpha(&["sample", "--checkpoint=model", "--prompt=the", "--steps=3"]).refused(1, words);
    place.alpha(&["eval", "--checkpoint=model", "--data=text.txt"]).refused(1, words);
    assert!(place.tree("run") == before);
    repair(place);
}

/// Changes the weights of `model`.
fn edit(place: &Place, change: impl FnOnce(&mut Tensors)) {
    let path = place.path("model/model.safetensors");
    let mut tensors = Tensors::read(&path);
    change(&mut tensors);
    tensors.write(&path);
}

#[test]
fn whole_models_are_taken() {
    let place = with_model();
    edit(&place, |_| ());
    place.alpha(&["eval", "--checkpoint=model", "--data=text.txt", "--maxTokens=64"]).succeeded();
    let flags = ["--init=model", "--steps=2", "--tokenizer=model/tokenizer.json", "--layers=", "--dim=", "--heads="];
    place.train("other", &flags).succeeded();
}

#[test]
fn truncated_weights() {
    let place = with_model();
    let whole = fs::read(place.path("model/model.safetensors")).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 100, 8, 3, 0] {
        place.write("model/model.safetensors", &whole[..length]);
        check(&place, &["model/model.safetensors", "broken"]);
    }
}

#[test]
fn a_tensor_of_another_shape() {
    let place = with_model();
    edit(&place, |tensors| tensors.get_mut("h.1.mlp.c_fc.weight").1.reverse());
    check(&place, &["h.1.mlp.c_fc.weight", "[128, 32]", "[32, 128]"]);
}

#[test]
fn weights_that_are_not_finite() {
    let place = with_model();
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        edit(&place, |tensors| {
            tensors.get_mut("h.1.mlp.c_proj.bias").2[60..64].copy_from_slice(&bad.to_le_bytes());
        });
        check(&place, &["not finite", "h.1.mlp.c_proj.bias"]);
    }
}

#[test]
fn the_folder_of_a_run() {
    let place = with_model();
    fs::remove_dir_all(place.path("model")).unwrap();
    place.train("model", &["--steps=4", "--evalInterval=2"]).succeeded();
    check(&place, &["`model` is a run's folder", "`model/checkpoint-4`"]);
}

#[test]
fn a_missing_tensor() {
    let place = with_model();
    edit(&place, |tensors| tensors.tensors.retain(|(name, ..)| !name.ends_with("h.0.ln_2.bias")));
    check(&place, &["has no tensor", "h.0.ln_2.bias"]);
}

#[test]
fn an_extra_tensor() {
    let place = with_model();
    edit(&place, |tensors| tensors.tensors.push(("transformer.h.2.ln_1.weight".into(), vec![32], vec![0; 128])));
    check(&place, &["transformer.h.2.ln_1.weight", "no place for"]);
}

#[test]
fn a_missing_or_broken_config() {
    let place = with_model();
    fs::remove_file(place.path("model/config.json")).unwrap();
    check(&place, &["model/config.json", "does not exist"]);
    place.write("model/config.json", "{\"model_type\": \"gpt2\", ");
    check(&place, &["model/config.json", "broken"]);
    let mut config = place.json("model/config.json");
    config["n_head"] = 5.into();
    place.write("model/config.json", config.to_string());
    check(&place, &["model/config.json"]);
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    check(&place, &["model/model.safetensors", "does not exist"]);
    place.alpha(&["sample", "--checkpoint=nowhere"]).refused(1, &["nowhere"]);
}

#[test]
fn a_damaged_checkpoint_is_not_resumed() {
    let place = with_model();
    for name in ["model.safetensors", "training_state.safetensors"] {
        let path = place.path("run/checkpoint-5").join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let before = place.tree("run");
        place.resume("run", &["--steps=9"]).refused(1, &[&format!("checkpoint-5/{name}"), "broken"]);
        let mut after = place.tree("run");
        for file in ["config.json", ".lock"] {
            let name = std::path::Path::new(file);
            after.insert(name.into(), before[name].clone()); // the process's own
        }
        assert!(after == before, "nothing is lost by trying");
        fs::write(&path, &whole).unwrap();
    }
    place.resume("run", &["--steps=9"]).succeeded();
}

//! `config.json` as transformers writes it, as written here, and broken.

use std::{fs, path::Path};

use alpha_nn::{FeedForward, ModelConfig, ParamLayout};
use alpha_tensor::op::Activation;
use alpha_train::checkpoint::{config_json::write_config, read_config};
use miette::Diagnostic as _;
use serde_json::{Value, json};

use crate::{filled_backend, save, small_config, state};

fn written(config: &ModelConfig, end_of_text: Option<u32>) -> Value {
    let mut bytes = Vec::new();
    write_config(&mut bytes, config, end_of_text).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[track_caller]
fn check_read(text: &str, expected: &Result<ModelConfig, &[&str]>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), text).unwrap();
    match (read_config(dir.path()), expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, *expected),
        (Err(error), Err(parts)) => {
            let message = error.to_string();
            assert!(message.contains("config.json"), "{message}");
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert_eq!(error.exit_code(), 1);
        }
        (found, _) => panic!("{found:?}, expected {expected:?}"),
    }
}

/// The file that `GPT2LMHeadModel.save_pretrained` of transformers 4.57 writes.
fn stock() -> Value {
    json!({
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "dtype": "float32",
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_inner": null,
        "n_layer": 12,
        "n_positions": 1024,
        "reorder_and_upcast_attn": false,
        "resid_pdrop": 0.1,
        "scale_attn_by_inverse_layer_idx": false,
        "scale_attn_weights": true,
        "summary_activation": null,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true,
        "summary_type": "cls_index",
        "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
        "transformers_version": "4.57.1",
        "use_cache": true,
        "vocab_size": 50257
    })
}

fn gpt2_small() -> ModelConfig {
    ModelConfig {
        layers: 12,
        dim: 768,
        heads: 12,
        block: 1024,
        vocab: 50257,
        ffn_dim: 3072,
        feed_forward: FeedForward::Pointwise(Activation::Gelu),
        is_tied: true,
        has_bias: true,
        dropout: 0.1,
        layer_norm_eps: 1e-5,
    }
}

#[test]
fn what_transformers_writes_is_read() {
    check_read(&stock().to_string(), &Ok(gpt2_small()));
    let mut value = stock();
    value["tie_word_embeddings"] = json!(false);
    value["n_inner"] = json!(1000);
    value["activation_function"] = json!("relu");
    let feed_forward = FeedForward::Pointwise(Activation::Relu);
    check_read(&value.to_string(), &Ok(ModelConfig { is_tied: false, ffn_dim: 1000, feed_forward, ..gpt2_small() }));
}

#[test]
fn stock_models_are_written_as_stock() {
    let value = written(&gpt2_small(), Some(50256));
    for (key, expected) in stock().as_object().unwrap() {
        if let Some(found) = value.get(key).filter(|_| !key.ends_with("_pdrop")) {
            assert_eq!(found, expected, "{key}");
        }
    }
    assert_eq!(value["tie_word_embeddings"], json!(true));
    assert!(value.get("alpha_bias").is_none() && value.get("alpha_note").is_none());
    assert_eq!(written(&small_config(), None)["eos_token_id"], Value::Null);
}

#[test]
fn what_stock_gpt2_cannot_hold_says_so() {
    let config = ModelConfig { feed_forward: FeedForward::Swiglu, ffn_dim: 64, ..small_config() };
    let value = written(&config, None);
    assert_eq!((&value["model_type"], &value["n_inner"]), (&json!("alpha_gpt"), &json!(64)));
    assert!(value["alpha_note"].as_str().unwrap().contains("swiglu"));
    check_read(&value.to_string(), &Ok(config));
}

#[test]
fn every_shape_comes_back() {
    for name in ["gelu", "silu", "relu", "swiglu"] {
        for (has_bias, is_tied, ffn_dim) in [(true, true, 48), (false, true, 40), (true, false, 1)] {
            let feed_forward = FeedForward::from_name(name).unwrap();
            let config = ModelConfig { feed_forward, has_bias, is_tied, ffn_dim, dropout: 0.2, ..small_config() };
            check_read(&written(&config, None).to_string(), &Ok(config));
        }
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let check = |key: &str, value: Value, parts: &[&str]| {
        let mut config = stock();
        config[key] = value;
        check_read(&config.to_string(), &Err(parts));
    };
    check("n_layer", json!(0), &["`n_layer`", "`0`", "from 1 to"]);
    check("n_layer", json!(1u64 << 60), &["`n_layer`"]);
    check("n_embd", json!("768"), &["`n_embd`", "`\"768\"`"]);
    check("n_embd", json!(-1), &["`n_embd`"]);
    check("vocab_size", Value::Null, &["`vocab_size`", "missing"]);
    check("n_head", json!(7), &["768", "not divisible", "7"]);
    check("activation_function", json!("gelu"), &["`activation_function`", "`\"gelu\"`", "`gelu_new`"]);
    check("activation_function", json!("swiglu"), &["`activation_function`"]);
    check("model_type", json!("llama"), &["`model_type`", "llama", "`gpt2`"]);
    check("layer_norm_epsilon", json!(-1), &["`layer_norm_epsilon`"]);
    check("resid_pdrop", json!(1.0), &["`resid_pdrop`"]);
    check(
        "scale_attn_by_inverse_layer_idx",
        json!(true),
        &["`scale_attn_by_inverse_layer_idx`", "alpha computes `false`"],
    );
    check("tie_word_embeddings", json!("yes"), &["`tie_word_embeddings`", "`true` or `false`"]);
}

#[test]
fn what_python_writes_is_read() {
    let text = stock().to_string();
    check_read(&format!("\u{feff}{text}"), &Ok(gpt2_small()));
    for odd in ["NaN", "-Infinity", "[Infinity, NaN]"] {
        let odd = format!("{{\"other\": {odd}, \"in text\": \"a \\\" NaN\", ");
        check_read(&text.replacen('{', &odd, 1), &Ok(gpt2_small()));
    }
    check_read("{\"n_layer\": NaN", &Err(&["is broken"]));
}

#[test]
fn broken_files_are_named() {
    check_read("", &Err(&["is broken", "EOF"]));
    check_read("[1]", &Err(&["JSON object"]));
    check_read("{\"n_layer\": 1", &Err(&["is broken"]));
    check_read(&"[".repeat(100_000), &Err(&["is broken"]));
    let missing = read_config(Path::new("no such folder")).unwrap_err();
    assert!(missing.to_string().contains("does not exist") && missing.help().is_some(), "{missing}");
}

#[test]
fn a_checkpoint_holds_the_four_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save(dir.path(), &small_config(), &mut filled_backend(&ParamLayout::new(&small_config())), &state(1));
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "training_state.safetensors"]);
}

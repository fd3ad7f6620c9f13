//! Layers, presets, init and resume, against what the reference says.

use std::path::Path;

use alpha_nn::ModelConfig;
use alpha_train::config::{Backend, Resume, TrainConfig};
use serde_json::{Map, Value, json};

use super::{Folders, resolve};
use crate::{
    exit::{Exit, Failure},
    flags::layer::Layer,
};

fn no_folders() -> Folders {
    Folders { stored_config: |_| Ok(None), init_shape: |init| Err(Failure::failed(init.display().to_string())) }
}

#[track_caller]
fn config(values: &[(&str, &str)]) -> TrainConfig {
    with_data(values, no_folders()).unwrap()
}

fn with_data(values: &[(&str, &str)], folders: Folders) -> Result<TrainConfig, Failure> {
    let layer = Layer::of(&[("data", "x.txt")]).under(&Layer::of(values));
    resolve(&layer, folders).map(|resolved| resolved.config)
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = config(&[]);
    assert_eq!(config.backend, Backend::Cpu);
    assert_eq!((config.steps, config.batch, config.accum_steps, config.block), (1000, 64, 1, 256));
    assert_eq!((config.layers, config.dim, config.heads, config.ffn_dim), (6, 256, 8, 1024));
    assert_eq!((config.lr, config.lr_min, config.warmup_steps()), (3e-4, 3e-4 / 10.0, 200));
    assert_eq!((config.beta1, config.beta2, config.eps, config.weight_decay), (0.9, 0.95, 1e-8, 0.1));
    assert_eq!((config.grad_clip, config.eval_interval, config.eval_iters, config.seed), (1.0, 100, 10, 42));
    assert_eq!((config.sample_interval, config.post_samples, config.keep_checkpoints), (100, true, 3));
    assert_eq!((config.tokenizer.as_deref(), config.log_every, config.sample_prompts.len()), (None, 1, 3));
    assert!(config.tie && config.bias && !config.trace && !config.packed && !config.checkpoint);
}

#[test]
fn computed_defaults_follow_other_flags() {
    assert_eq!(config(&[("activation", "swiglu"), ("dim", "128")]).ffn_dim, 384);
    assert_eq!(config(&[("steps", "20000")]).warmup_steps(), 2000);
    assert_eq!(config(&[("warmupIters", "-1")]).warmup_steps(), 0);
    assert_eq!(config(&[("steps", "4")]).warmup_steps(), 0);
    assert_eq!(config(&[("warmupIters", "7")]).warmup_steps(), 7);
}

#[test]
fn typed_over_file_over_preset_over_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    std::fs::write(&file, "domain = 'chat'\nlr = 1e-4\ndropout = 0.2\n").unwrap();
    let config = config(&[("config", file.to_str().unwrap()), ("dropout", "0.3")]);
    assert_eq!((config.dropout, config.lr, config.tokenizer.as_deref()), (0.3, 1e-4, Some("bpe-4k")));
    assert_eq!((config.domain.as_deref(), config.batch), (Some("chat"), 64));
}

#[test]
fn presets_have_the_reference_s_numbers() {
    for (name, tokenizer, shape, block, lr, batch, dropout) in [
        ("abc", "char", (4, 128, 4), 256, 3e-4, 64, 0.0),
        ("chords", "word", (3, 64, 4), 64, 3e-4, 64, 0.0),
        ("novels", "bpe", (6, 128, 8), 128, 3e-4, 64, 0.0),
        ("concordance", "bpe-64k", (12, 768, 12), 1024, 6e-4, 4, 0.0),
        ("chat", "bpe-4k", (6, 256, 8), 256, 5e-5, 64, 0.1),
        ("fine_corpus", "bpe-8k", (8, 384, 6), 512, 6e-4, 64, 0.0),
    ] {
        let config = config(&[("domain", name)]);
        assert_eq!((config.layers, config.dim, config.heads), shape, "{name}");
        assert_eq!(
            (config.tokenizer.as_deref(), config.block, config.batch),
            (Some(tokenizer), block, batch),
            "{name}"
        );
        assert_eq!((config.lr, config.dropout), (lr, dropout), "{name}");
    }
}

#[test]
fn a_written_configuration_given_back_is_the_same() {
    let first = config(
        &[
            ("domain", "abc"),
            ("warmupIters", "-5"),
            ("valData", "v.txt"),
            ("samplePrompts", "-a\n|"),
            ("tokenDtype", "u16"),
            ("lr", "0.1"),
            ("seed", "18446744073709551615"),
            ("init", "some/where"),
            ("threads", "3"),
        ][..7],
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, serde_json::to_string_pretty(&first).unwrap()).unwrap();
    assert_eq!(config(&[("config", file.to_str().unwrap())]), first);
}

fn small_model() -> ModelConfig {
    let mut model =
        config(&[("layers", "2"), ("dim", "32"), ("heads", "4"), ("block", "16"), ("tie", "false")]).model(65);
    model.feed_forward = alpha_nn::FeedForward::Swiglu;
    model.ffn_dim = 100;
    model
}

fn with_init(values: &[(&str, &str)]) -> Result<TrainConfig, Failure> {
    let folders = Folders { init_shape: |_| Ok(small_model()), ..no_folders() };
    with_data(&[&[("init", "folder")], values].concat(), folders)
}

#[test]
fn init_brings_its_shape_under_given_flags_and_over_presets() {
    assert_eq!(with_init(&[]).unwrap().model(65), small_model());
    assert_eq!(with_init(&[("domain", "abc")]).unwrap().model(65), small_model());
    assert_eq!(with_init(&[("layers", "2"), ("ffnDim", "100"), ("tie", "false")]).unwrap().model(65), small_model());
    assert_eq!(with_init(&[("block", "8")]).unwrap().block, 8);
}

#[test]
fn a_shape_flag_that_differs_from_init_is_refused() {
    for (name, value, known) in [
        ("layers", "3", "2"),
        ("dim", "64", "32"),
        ("heads", "8", "4"),
        ("block", "17", "16 positions"),
        ("activation", "gelu", "swiglu"),
        ("ffnDim", "64", "100"),
        ("tie", "true", "false"),
        ("bias", "false", "true"),
        ("vocabSize", "66", "65"),
    ] {
        let failure = with_init(&[(name, value)]).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let start = format!("`--{name}={value}`, but `folder` has {known}");
        assert!(failure.text().starts_with(&start), "{}", failure.text());
    }
}

/// What a run with 100 steps, 2 threads and the preset chat has stored, with records of the run.
#[expect(clippy::unnecessary_wraps, reason = "the signature that `Folders` has")]
fn stored(run_dir: &Path) -> Result<Option<Map<String, Value>>, Failure> {
    if run_dir == Path::new("none") {
        return Ok(None);
    }
    let config =
        config(&[("domain", "chat"), ("steps", "100"), ("threads", "2"), ("lrMin", "1e-6"), ("runDir", "old")]);
    let Value::Object(mut stored) = serde_json::to_value(config).unwrap() else { unreachable!() };
    stored.insert("params".into(), json!(12345));
    Ok(Some(stored))
}

fn resumed(values: &[(&str, &str)]) -> Result<TrainConfig, Failure> {
    resolve(&Layer::of(values), Folders { stored_config: stored, ..no_folders() }).map(|resolved| resolved.config)
}

#[test]
fn a_resumed_run_needs_nothing_but_its_folder() {
    let config = resumed(&[("resume", "auto"), ("runDir", "run")]).unwrap();
    assert_eq!((config.data.as_str(), config.dropout, config.threads, config.lr_min), ("x.txt", 0.1, 2, 1e-6));
    assert_eq!((config.resume, config.run_dir.unwrap().to_str()), (Some(Resume::Auto), Some("run")));
    let config = resumed(&[("resume", "some/run/checkpoint-50")]).unwrap();
    assert_eq!(config.run_dir.unwrap().to_str(), Some("some/run"));
}

#[test]
fn a_resumed_run_takes_more_steps_and_keeps_its_warm_up() {
    let more = [("steps", "500"), ("evalInterval", "7"), ("trace", "true"), ("domain", "chat"), ("data", "./x.txt")];
    let config = resumed(&[&[("resume", "auto"), ("runDir", "run")], &more[..4]].concat()).unwrap();
    assert_eq!((config.steps, config.eval_interval, config.trace, config.warmup_steps()), (500, 7, true, 20));
    let again = resumed(&[("resume", "auto"), ("runDir", "run"), ("steps", "500"), ("warmupIters", "0")]).unwrap();
    assert_eq!(again.warmup_steps(), 20);
}

#[test]
fn a_flag_that_differs_from_the_stored_one_is_refused() {
    for (name, value, known) in [
        ("lr", "0.001", "0.00005"),
        ("batch", "8", "64"),
        ("domain", "abc", "chat"),
        ("threads", "1", ""),
        ("data", "moved.txt", ""),
        ("valData", "", ""),
    ] {
        let result = resumed(&[("resume", "auto"), ("runDir", "run"), (name, value)]);
        if known.is_empty() {
            assert!(result.is_ok());
            continue;
        }
        let failure = result.unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let text = failure.text();
        assert!(text.starts_with(&format!("`--{name}={value}`, but the run that is resumed has ")), "{text}");
    }
}

#[test]
fn nothing_to_resume() {
    let config = resumed(&[("data", "x"), ("resume", "auto"), ("runDir", "none")]).unwrap();
    assert_eq!((config.resume, config.steps), (Some(Resume::Auto), 1000));
    assert_eq!(resumed(&[("resume", "none/checkpoint-1")]).unwrap_err().exit(), Exit::Failed);
    assert_eq!(resumed(&[("resume", "auto")]).unwrap_err().exit(), Exit::Usage);
}

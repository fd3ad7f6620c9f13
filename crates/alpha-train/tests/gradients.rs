//! Gradients of whole models: the golden cases of `PyTorch` on each backend, and properties that
//! must hold to the bit.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::path::{Path, PathBuf};

use alpha_data::{BatchShape, DataOptions, Dataset, TrainLoader, Work};
use alpha_nn::{FeedForward, ModelConfig, ParamLayout, StepConfig, TrainStep};
use alpha_tensor::{Backend, Region, RunArgs, cpu::CpuBackend, cpu_ref::RefBackend, op::Activation};
use alpha_train::{
    checkpoint::{load_params, read_config, safetensors::SafetensorsFile},
    inspect::gradcheck,
    trainer::initialise,
};
use serde_json::Value;

/// Relative L2 distance of a tensor's gradient.
const TOLERANCE: f64 = 1e-4;
/// The key bias has no gradient but rounding noise; it is compared with the norm of all gradients.
const NOISE: f64 = 1e-6;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn step_config(batch: usize, block: usize, accum_steps: usize) -> StepConfig {
    StepConfig {
        batch,
        block,
        accum_steps,
        recompute: false,
        grad_clip: 0.0,
        spike_threshold: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        activations16: false,
    }
}

fn backends() -> Vec<Box<dyn Backend>> {
    vec![Box::new(RefBackend::<f32>::default()), Box::new(CpuBackend::new(2).unwrap())]
}

#[test]
fn golden_gradients_of_the_first_step() {
    let mut cases = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let folder = entry.unwrap().path();
        for mut backend in backends() {
            check_golden(&folder, &mut *backend);
            cases += 1;
        }
    }
    assert!(cases >= 8, "{cases} cases");
}

fn check_golden(folder: &Path, backend: &mut dyn Backend) {
    let recipe: Value = serde_json::from_slice(&std::fs::read(folder.join("recipe.json")).unwrap()).unwrap();
    let number = |key: &str| recipe[key].as_u64().unwrap() as usize;
    let mut config = read_config(folder).unwrap();
    config.block = number("block");
    let layout = ParamLayout::new(&config);
    let accum_steps = number("accum_steps");
    let step = TrainStep::new(&config, &layout, &step_config(number("batch"), config.block, accum_steps));
    let sizes = step.programs().iter().fold(*step.program(0).sizes(), |sizes, program| sizes.max(program.sizes()));
    backend.prepare(&sizes, &step.programs()).unwrap();
    load_params(folder, &layout, backend).unwrap();

    let options = DataOptions {
        data: folder.join("tokens.bin").display().to_string(),
        model_vocab: Some(config.vocab),
        block: config.block,
        packed: true,
        ..DataOptions::default()
    };
    let data = Dataset::open(&options, &Work::default()).unwrap();
    let shape = BatchShape { batch: number("batch"), block: config.block };
    let loader = TrainLoader::packed(&data.train, shape, accum_steps as u32).unwrap();
    let (mut tokens, mut targets) = (vec![0; shape.tokens()], vec![0; shape.tokens()]);
    for micro_step in 0..accum_steps {
        loader.batch(1, micro_step as u32, &mut tokens, &mut targets).unwrap();
        backend.write_tokens(step.inputs.tokens.offset, &tokens).expect("it is prepared");
        backend.write_tokens(step.inputs.targets.offset, &targets).expect("it is prepared");
        let args = RunArgs { step: 1, micro_step: micro_step as u32, update: 1, ..RunArgs::default() };
        backend.run(step.program(micro_step), &args, None).unwrap();
    }

    let mut file = SafetensorsFile::open(&folder.join("expected.safetensors")).unwrap();
    for param in &layout.params {
        let name = format!("grad.{}", param.name.trim_start_matches("transformer."));
        let mut expected = Vec::new();
        let read = file.read_f32(&name, param.tensor.len(), |_, values| {
            expected.extend_from_slice(values);
            Ok(())
        });
        read.unwrap();
        let mut found = vec![0.0; param.tensor.len()];
        backend.read(Region::Grads, param.tensor.offset, &mut found).expect("it is prepared");
        let difference = norm(found.iter().zip(&expected).map(|(f, e)| f64::from(*f) - f64::from(*e)));
        let scale = norm(expected.iter().map(|e| f64::from(*e)));
        let allowed = TOLERANCE * scale + NOISE * f64::from(backend.results().expect("it ran").grad_norm);
        assert!(
            difference <= allowed,
            "{}: {} on {}: off by {difference:e}, allowed {allowed:e}",
            folder.display(),
            param.name,
            backend.name()
        );
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn small_model(feed_forward: FeedForward, dropout: f32) -> ModelConfig {
    ModelConfig {
        layers: 2,
        dim: 24,
        heads: 2,
        block: 9,
        vocab: 37,
        ffn_dim: feed_forward.default_ffn_dim(24),
        feed_forward,
        is_tied: true,
        has_bias: true,
        dropout,
        layer_norm_eps: 1e-5,
    }
}

/// Parameters after three steps of training.
fn trained(config: &ModelConfig, step: StepConfig, threads: usize) -> Vec<f32> {
    let layout = ParamLayout::new(config);
    let train = TrainStep::new(config, &layout, &step);
    let mut backend = CpuBackend::new(threads).unwrap();
    let sizes = train.programs().iter().fold(*train.program(0).sizes(), |sizes, program| sizes.max(program.sizes()));
    backend.prepare(&sizes, &train.programs()).unwrap();
    initialise(&layout, 3, &mut backend).unwrap();
    let rows = step.batch * step.block;
    for number in 1..=3u64 {
        for micro_step in 0..step.accum_steps {
            let ids = |shift: usize| -> Vec<u32> {
                (0..rows)
                    .map(|r| ((r * 7 + shift + number as usize * 11 + micro_step * 5) % config.vocab) as u32)
                    .collect()
            };
            backend.write_tokens(train.inputs.tokens.offset, &ids(0)).expect("it is prepared");
            backend.write_tokens(train.inputs.targets.offset, &ids(3)).expect("it is prepared");
            let args = RunArgs {
                seed: 5,
                step: number,
                micro_step: micro_step as u32,
                update: number,
                lr: 1e-2,
                ..RunArgs::default()
            };
            backend.run(train.program(micro_step), &args, None).unwrap();
        }
    }
    let mut params = vec![0.0; layout.region_len];
    backend.read(Region::Params, 0, &mut params).expect("it is prepared");
    params
}

#[track_caller]
fn assert_same_bits(a: &[f32], b: &[f32]) {
    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn recomputing_activations_changes_no_bit() {
    for feed_forward in [FeedForward::Pointwise(Activation::Gelu), FeedForward::Swiglu] {
        let config = small_model(feed_forward, 0.2);
        let kept = trained(&config, step_config(3, 9, 2), 2);
        let recomputed = trained(&config, StepConfig { recompute: true, ..step_config(3, 9, 2) }, 2);
        assert_same_bits(&kept, &recomputed);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let config = small_model(FeedForward::Pointwise(Activation::Silu), 0.1);
    assert_same_bits(&trained(&config, step_config(4, 9, 1), 1), &trained(&config, step_config(4, 9, 1), 3));
}

#[test]
fn accumulating_is_the_same_as_a_larger_batch() {
    // The same sequences, in one batch of four or in four of one; sums are in another order.
    let config = small_model(FeedForward::Pointwise(Activation::Relu), 0.0);
    let layout = ParamLayout::new(&config);
    let gradient = |batch: usize, accum_steps: usize| {
        let train = TrainStep::new(&config, &layout, &step_config(batch, 9, accum_steps));
        let mut backend = CpuBackend::new(2).unwrap();
        let sizes =
            train.programs().iter().fold(*train.program(0).sizes(), |sizes, program| sizes.max(program.sizes()));
        backend.prepare(&sizes, &train.programs()).unwrap();
        initialise(&layout, 3, &mut backend).unwrap();
        let all: Vec<u32> = (0..37u32).map(|i| i * 5 % 37).collect();
        for micro_step in 0..accum_steps {
            let part = &all[micro_step * batch * 9..(micro_step + 1) * batch * 9];
            backend.write_tokens(train.inputs.tokens.offset, part).expect("it is prepared");
            backend
                .write_tokens(train.inputs.targets.offset, &all[micro_step * batch * 9 + 1..][..batch * 9])
                .expect("it is prepared");
            let args = RunArgs { step: 1, micro_step: micro_step as u32, update: 1, ..RunArgs::default() };
            backend.run(train.program(micro_step), &args, None).unwrap();
        }
        let mut grads = vec![0.0; layout.region_len];
        backend.read(Region::Grads, 0, &mut grads).expect("it is prepared");
        (grads, backend.results().expect("it ran").loss)
    };
    let (whole, whole_loss) = gradient(4, 1);
    let (parts, parts_loss) = gradient(1, 4);
    let difference = norm(whole.iter().zip(&parts).map(|(a, b)| f64::from(a - b)));
    assert!(difference < 1e-6 * norm(whole.iter().map(|&a| f64::from(a))).max(1.0));
    assert!((whole_loss - parts_loss).abs() < 1e-6);
}

#[test]
fn the_gradient_check_passes_and_sees_a_wrong_parameter() {
    for feed_forward in [FeedForward::Pointwise(Activation::Gelu), FeedForward::Swiglu] {
        let config = small_model(feed_forward, 0.1);
        let load = |backend: &mut dyn Backend, layout: &ParamLayout| {
            initialise(layout, 1, backend)?;
            Ok(())
        };
        let checks = gradcheck::check(&mut CpuBackend::new(2).unwrap(), &config, 2, 42, load).unwrap();
        let bad: Vec<_> = checks.iter().filter(|check| !check.is_ok()).collect();
        assert!(bad.is_empty(), "{bad:#?}");

        // A backend that computes with other parameters must be noticed.
        let mut calls = 0;
        let load = |backend: &mut dyn Backend, layout: &ParamLayout| {
            initialise(layout, 1, backend)?;
            calls += 1;
            if calls == 1 {
                backend
                    .write(Region::Params, layout.tensors.layers[1].fc.weight.offset, &[0.5])
                    .expect("it is prepared");
            }
            Ok(())
        };
        let checks = gradcheck::check(&mut CpuBackend::new(2).unwrap(), &config, 2, 42, load).unwrap();
        assert!(checks.iter().any(|check| !check.is_ok()));
    }
}

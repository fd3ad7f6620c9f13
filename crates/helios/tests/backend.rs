//! What the backend promises besides right numbers, which `alpha-tensor/tests/ops` checks.
//!
//! On a machine without any device the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]
#![expect(clippy::print_stdout, reason = "tests say what they skipped")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use alpha_nn::{FeedForward, ModelConfig, ParamLayout, StepConfig, TrainStep};
use alpha_tensor::{
    Backend, BackendError, Program, ProgramBuilder, Region, RegionSizes, Results, RunArgs, Tensor,
    cpu_ref::RefBackend,
    op::{
        Activation, AdamW, Attention, AttentionBwd, CrossEntropy, DecayRun, Embedding, EmbeddingBwd, Fill, GradNorm,
        HeadBwd, LayerNorm, LayerNormBwd, Linear, LinearBwdInput, LinearBwdWeight, LossSum,
    },
    rng::{Key, Purpose},
};
use helios::{BlobStore, HeliosBackend, HeliosError, Options, StoreError, stored_kernels};

fn open(options: &Options) -> Option<HeliosBackend> {
    match HeliosBackend::open(options) {
        Ok(backend) => Some(backend),
        Err(HeliosError::NoDevice) => {
            println!("SKIPPED helios: no device");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const ROWS: usize = 96;
const COLS: usize = 40;
const WIDE: usize = 160;
const VOCAB: usize = 301;
const PARAMS: usize = 1 << 15;

/// The operations of a step. All operands larger than 24 KiB can be cut.
fn step() -> Program {
    let mut sizes = RegionSizes::default();
    for region in [Region::Params, Region::Grads, Region::Moment1, Region::Moment2] {
        sizes.set(region, PARAMS);
    }
    sizes.set(Region::Inputs, 2 * ROWS);
    sizes.set(Region::Results, Results::LEN);
    let mut b = ProgramBuilder::new(sizes);
    let tokens = Tensor::new(Region::Inputs, 0, 1, ROWS);
    let targets = Tensor::new(Region::Inputs, ROWS, 1, ROWS);
    let wte = Tensor::new(Region::Params, 0, VOCAB, COLS);
    let wpe = Tensor::new(Region::Params, 12_048, 48, COLS);
    let fc = Tensor::new(Region::Params, 13_984, COLS, WIDE);
    let norm = Tensor::new(Region::Params, 20_384, 1, COLS);
    let qkv_weight = Tensor::new(Region::Params, 20_432, COLS, 3 * COLS);

    let x = b.activation(ROWS, COLS);
    b.push(Embedding { tokens, wte, wpe, out: x, block: 48 });
    let [y, mean, rstd] = [b.activation(ROWS, COLS), b.activation(1, ROWS), b.activation(1, ROWS)];
    b.push(LayerNorm { x, weight: norm, bias: None, y, mean, rstd, eps: 1e-5 });
    let qkv = b.activation(ROWS, 3 * COLS);
    b.push(Linear { x: y, weight: qkv_weight, bias: None, activation: None, pre: None, residual: None, out: qkv });
    let [attended, lse] = [b.activation(ROWS, COLS), b.activation(2 * 4, 48)];
    b.push(Attention { qkv, out: attended, lse, batch: 2, heads: 4, dropout: None });
    let hidden = b.activation(ROWS, WIDE);
    b.push(Linear { x: attended, weight: fc, bias: None, activation: None, pre: None, residual: None, out: hidden });
    let [dhidden, dattended] = [b.activation(ROWS, WIDE), b.activation(ROWS, COLS)];
    b.push(Fill { out: dhidden, value: 0.25 });
    b.push(LinearBwdWeight { x: attended, dy: dhidden, dweight: grad(fc), dbias: None, accumulate: false });
    b.push(LinearBwdInput { dy: dhidden, weight: fc, activation: None, dx: dattended });
    let dqkv = b.activation(ROWS, 3 * COLS);
    b.push(AttentionBwd { qkv, out: attended, lse, dout: dattended, dqkv, batch: 2, heads: 4, dropout: None });
    let dx = push_head(&mut b, y, wte, targets);
    b.push(LayerNormBwd {
        x,
        weight: norm,
        mean,
        rstd,
        dy: dx,
        dx: attended,
        dweight: grad(norm),
        dbias: None,
        accumulate_dx: true,
        accumulate: false,
    });
    b.push(EmbeddingBwd { tokens, dout: attended, dwte: grad(wte), dwpe: grad(wpe), block: 48, accumulate: false });
    push_update(&mut b);
    b.build(&[]).0
}

fn grad(param: Tensor) -> Tensor {
    param.in_region(Region::Grads)
}

/// Loss and gradient of a quarter of the rows; the others get a constant gradient. Returns the gradient.
fn push_head(b: &mut ProgramBuilder, y: Tensor, wte: Tensor, targets: Tensor) -> Tensor {
    let [scratch, loss, dx] = [b.activation(ROWS, VOCAB), b.activation(1, ROWS), b.activation(ROWS, COLS)];
    for start in [0, ROWS / 8] {
        // Chunks of an eighth of the rows, so that the logits fit.
        let part = |tensor: Tensor| Tensor { offset: tensor.offset + start, cols: ROWS / 8, ..tensor };
        let rows = |tensor: Tensor| tensor.row_range(start, start + ROWS / 8);
        let scratch = rows(scratch);
        b.push(CrossEntropy {
            x: rows(y),
            weight: wte,
            targets: part(targets),
            scratch,
            loss: part(loss),
            grad_scale: Some(0.1),
        });
        b.push(HeadBwd { x: rows(y), weight: wte, scratch, dx: rows(dx), dweight: grad(wte), accumulate: start > 0 });
    }
    b.push(Fill { out: dx.row_range(ROWS / 4, ROWS), value: 0.5 });
    b.push(LossSum {
        loss: Tensor { cols: ROWS / 4, ..loss },
        out: Results::loss_tensor(),
        scale: 0.1,
        accumulate: false,
    });
    dx
}

fn push_update(b: &mut ProgramBuilder) {
    let flat = |region| Tensor::new(region, 0, 1, PARAMS);
    b.push(GradNorm { grads: flat(Region::Grads), results: Results::tensor(), grad_clip: 1.0, spike_threshold: 0.0 });
    b.push(AdamW {
        params: flat(Region::Params),
        grads: flat(Region::Grads),
        moment1: flat(Region::Moment1),
        moment2: flat(Region::Moment2),
        results: Results::tensor(),
        decay_runs: vec![
            DecayRun { end: 20_384, is_decayed: true },
            DecayRun { end: 20_432, is_decayed: false },
            DecayRun { end: PARAMS, is_decayed: true },
        ],
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    });
}

fn args(step: u64) -> RunArgs {
    RunArgs { seed: 1, step, update: step, lr: 1e-3, ..RunArgs::default() }
}

/// Loads the same parameters and tokens into every backend.
fn load(backend: &mut dyn Backend, program: &Program) {
    backend.prepare(program.sizes(), &[program]).unwrap();
    let key = Key::new(1, Purpose::Synthetic);
    let params: Vec<f32> = (0..PARAMS as u64).map(|i| 0.1 * key.normal_pair(i)[0] as f32).collect();
    backend.write(Region::Params, 0, &params).unwrap();
    let tokens: Vec<u32> = (0..2 * ROWS as u64).map(|i| key.fold(1).below(i, VOCAB as u64) as u32).collect();
    backend.write_tokens(0, &tokens).unwrap();
}

/// Parameters after two steps, and the results of the second.
fn two_steps(backend: &mut dyn Backend) -> (Vec<f32>, Results) {
    let program = step();
    load(backend, &program);
    for number in 1..=2 {
        backend.run(&program, &args(number), None).unwrap();
    }
    let results = backend.results().unwrap();
    let mut params = vec![0.0; PARAMS];
    backend.read(Region::Params, 0, &mut params).unwrap();
    (params, results)
}

#[test]
fn tensors_larger_than_a_binding_are_cut() {
    let Some(mut whole) = open(&Options::default()) else { return };
    let expected = two_steps(&mut whole);
    let reference = two_steps(&mut RefBackend::<f32>::new());
    let distance = |params: &[f32]| params.iter().zip(&reference.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance(&expected.0) < 1e-4, "{}", distance(&expected.0));
    // 24 KiB: a sequence fits; the token embedding, a weight, activations, gradients and moments are larger.
    let options = Options { max_binding_bytes: Some(24 << 10), ..Options::default() };
    let mut small = HeliosBackend::open(&options).unwrap();
    let program = step();
    assert!(small.dispatches_of(&program).unwrap() > whole.dispatches_of(&program).unwrap() + 20);
    let found = two_steps(&mut small);
    assert!(distance(&found.0) < 1e-4, "{}", distance(&found.0));
    assert!((found.1.loss - reference.1.loss).abs() < 1e-4);
    assert!((found.1.grad_norm - reference.1.grad_norm).abs() < 1e-3 * reference.1.grad_norm);
}

#[test]
fn an_operand_that_cannot_be_cut_is_an_error_before_anything_runs() {
    let options = Options { max_binding_bytes: Some(4 << 10), ..Options::default() };
    let Some(mut backend) = open(&options) else { return };
    let program = step();
    let error = backend.prepare(program.sizes(), &[&program]).unwrap_err();
    let BackendError::Unsupported { op, why, .. } = &error else { panic!("{error}") };
    assert!(!op.is_empty() && why.contains("binding"), "{error}");
}

#[test]
fn the_same_steps_have_the_same_bits() {
    let Some(mut first) = open(&Options::default()) else { return };
    let (params, results) = two_steps(&mut first);
    // Again on the same device, and on one that was opened again.
    for backend in [&mut first, &mut HeliosBackend::open(&Options::default()).unwrap()] {
        let (again, results_again) = two_steps(backend);
        assert!(params.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert_eq!(results, results_again);
    }
}

#[test]
fn results_come_in_the_order_in_which_they_were_asked_for() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let program = step();
    load(&mut backend, &program);
    let mut one_by_one = Vec::new();
    for number in 1..=4 {
        backend.run(&program, &args(number), None).unwrap();
        one_by_one.push(backend.results().unwrap());
    }
    load(&mut backend, &program);
    let ahead = backend.results_ahead() as u64;
    let mut found = Vec::new();
    for number in 1..=4 {
        backend.run(&program, &args(number), None).unwrap();
        backend.request_results().unwrap();
        if number > ahead {
            found.push(backend.collect_results().unwrap());
        }
    }
    while found.len() < 4 {
        found.push(backend.collect_results().unwrap());
    }
    assert_eq!(found, one_by_one);
    assert!(backend.collect_results().is_err());
    for _ in 0..=ahead {
        backend.request_results().unwrap();
    }
    assert!(matches!(backend.request_results(), Err(BackendError::InvalidProgram(_))));
}

#[test]
fn a_step_behind_one_that_was_not_applied_changes_nothing() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let program = step();
    load(&mut backend, &program);
    // A parameter that is not a number spoils the first step's gradient.
    backend.write(Region::Params, 20_384, &[f32::NAN]).unwrap();
    backend.run(&program, &args(1), None).unwrap();
    backend.request_results().unwrap();
    let mut before = vec![0.0; PARAMS];
    backend.read(Region::Params, 0, &mut before).unwrap();
    // With the parameter fixed a step would be applied; chained to the one before, it is not.
    backend.write(Region::Params, 20_384, &[1.0]).unwrap();
    backend.run(&program, &RunArgs { is_chained: true, ..args(2) }, None).unwrap();
    backend.request_results().unwrap();
    let [first, second] = [backend.collect_results().unwrap(), backend.collect_results().unwrap()];
    assert!(!first.is_applied && !first.grad_norm.is_finite(), "{first:?}");
    assert!(!second.is_applied && second.grad_norm.is_finite(), "{second:?}");
    let mut after = vec![0.0; PARAMS];
    backend.read(Region::Params, 0, &mut after).unwrap();
    before[20_384] = 1.0;
    assert_eq!(before, after);
    backend.run(&program, &args(2), None).unwrap();
    assert!(backend.results().unwrap().is_applied);
}

#[test]
fn a_step_is_one_submission_and_reads_nothing_back() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let program = step();
    load(&mut backend, &program);
    let before = backend.launches().unwrap();
    backend.run(&program, &args(1), None).unwrap();
    backend.run(&program, &args(2), None).unwrap();
    backend.request_results().unwrap();
    backend.collect_results().unwrap();
    let launches = backend.launches().unwrap() - before;
    assert_eq!(launches.submissions, 1);
    assert_eq!(launches.read_backs, 0);
    assert_eq!(launches.dispatches, 2 * backend.dispatches_of(&program).unwrap() as u64);
}

#[test]
fn a_lost_device_is_an_error_of_whatever_comes_next() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let program = step();
    load(&mut backend, &program);
    backend.run(&program, &args(1), None).unwrap();
    backend.results().unwrap();
    backend.destroy_device();
    let run = backend.run(&program, &args(2), None).and_then(|()| backend.results().map(|_| ()));
    assert!(matches!(run, Err(BackendError::DeviceFailed { .. })), "{run:?}");
    let read = backend.read(Region::Params, 0, &mut [0.0]);
    assert!(matches!(read, Err(BackendError::DeviceFailed { .. })), "{read:?}");
    assert!(backend.write(Region::Params, 0, &[0.0]).is_err());
    assert!(backend.prepare(program.sizes(), &[&program]).is_err());
}

#[test]
fn memory_that_is_not_there_is_an_error_with_its_size() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let mut sizes = RegionSizes::default();
    sizes.set(Region::Params, 1 << 44);
    let error = backend.prepare(&sizes, &[]).unwrap_err();
    assert!(matches!(error, BackendError::OutOfMemory { asked_bytes, .. } if asked_bytes >= 1 << 46), "{error}");
    // Without a prepared program everything is an error, not a crash.
    assert!(backend.run(&step(), &args(1), None).is_err());
    assert!(backend.read(Region::Params, 0, &mut [0.0]).is_err());
    assert!(backend.results().is_err());
}

#[test]
fn programs_that_were_not_prepared_run_where_they_fit() {
    let Some(mut backend) = open(&Options::default()) else { return };
    let program = step();
    load(&mut backend, &program);
    let other = Program::new(program.ops()[..2].to_vec(), *program.sizes()).unwrap();
    backend.run(&other, &args(1), None).unwrap();
    backend.run(&program, &args(1), None).unwrap();
    assert!(backend.results().unwrap().is_applied);
    let mut sizes = *program.sizes();
    sizes.set(Region::Activations, 1 << 28);
    let larger = Program::new(program.ops()[..2].to_vec(), sizes).unwrap();
    assert!(matches!(backend.run(&larger, &args(1), None), Err(BackendError::InvalidProgram(_))));
}

/// The training step of a model with these layers, width, heads and tokens in a sequence.
fn train_step([layers, dim, heads, block]: [usize; 4], activations16: bool) -> TrainStep {
    let config = ModelConfig {
        vocab: 2000,
        block,
        layers,
        dim,
        heads,
        ffn_dim: 4 * dim,
        feed_forward: FeedForward::Pointwise(Activation::Gelu),
        has_bias: false,
        is_tied: true,
        dropout: 0.0,
        layer_norm_eps: 1e-5,
    };
    let step = StepConfig {
        batch: 2,
        block,
        accum_steps: 1,
        recompute: false,
        grad_clip: 1.0,
        spike_threshold: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        activations16,
    };
    TrainStep::new(&config, &ParamLayout::new(&config), &step)
}

/// The driver is asked for the memory that the planning check predicts.
#[test]
fn memory_is_what_was_predicted() {
    for (shape, activations16) in [([2, 128, 4, 64], false), ([4, 256, 8, 128], false), ([4, 256, 8, 128], true)] {
        let Some(mut backend) = open(&Options::default()) else { return };
        let Some(before) = backend.driver_bytes() else {
            return println!("SKIPPED: the driver does not report its memory");
        };
        let train = train_step(shape, activations16);
        let program = train.program(0);
        let predicted = (program.sizes().total_bytes() + backend.scratch_bytes(&[program])) as f64;
        backend.prepare(program.sizes(), &[program]).unwrap();
        let taken = (backend.driver_bytes().unwrap() - before) as f64;
        assert!((taken - predicted).abs() < 0.05 * predicted, "{shape:?}: {predicted} predicted, {taken} taken");
    }
}

/// Entries in memory, which a test can change.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl BlobStore for MemoryStore {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(name).cloned()
    }
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}

/// A choice of kernels that cannot be read, or that this device cannot run, is made again with a warning.
#[test]
fn a_stale_choice_of_kernels_is_made_again() {
    if open(&Options::default()).is_none() {
        return;
    }
    let store = MemoryStore::default();
    let start = || HeliosBackend::open_tested(&Options::default(), Box::new(store.clone())).unwrap();
    let mut first = start();
    assert!(first.take_notes().iter().all(|note| !note.starts_with("warning")));
    let chosen = stored_kernels(first.device(), &store).expect("a choice is stored");
    let name = store.0.lock().unwrap().keys().find(|name| name.starts_with("helios kernels")).unwrap().clone();
    for stale in ["", "fast\n", "staged:8x8:32x32:64 staged:8x8:32x32:64 staged:8x8:32x32:64\ndirect:8x4:8x1\n"] {
        store.write(&name, stale.as_bytes()).unwrap();
        let notes = start().take_notes();
        assert!(notes.iter().any(|note| note.contains("kept choice of kernels")), "{stale:?}: {notes:?}");
        let again = stored_kernels(first.device(), &store).expect("a choice is stored");
        assert_eq!(again.matmul16, chosen.matmul16);
        let notes = start().take_notes();
        assert!(notes.iter().all(|note| !note.contains("kept choice of kernels")), "{notes:?}");
    }
}

//! The host's time for a step of W1: recording and submitting, without waiting. `cargo bench -p helios --bench
//! host_time`.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use alpha_nn::{FeedForward, ModelConfig, ParamLayout, StepConfig, TrainStep};
use alpha_tensor::{Backend, RunArgs, op::Activation};
use helios::{HeliosBackend, Options};

const STEPS: usize = 200;

fn main() {
    let config = ModelConfig {
        vocab: 2000,
        block: 64,
        layers: 2,
        dim: 128,
        heads: 4,
        ffn_dim: 512,
        feed_forward: FeedForward::Pointwise(Activation::Gelu),
        has_bias: false,
        is_tied: true,
        dropout: 0.0,
        layer_norm_eps: 1e-5,
    };
    let layout = ParamLayout::new(&config);
    let step = StepConfig {
        batch: 2,
        block: 64,
        accum_steps: 1,
        recompute: false,
        grad_clip: 1.0,
        spike_threshold: 0.0,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        activations16: false,
    };
    let train = TrainStep::new(&config, &layout, &step);
    let program = train.program(0);
    let mut backend = HeliosBackend::open(&Options::default()).expect("a device");
    backend.prepare(program.sizes(), &[program]).expect("it fits");
    let tokens = vec![1; 128];
    let mut times_us: Vec<f64> = (1..=STEPS as u64)
        .map(|number| {
            let start = Instant::now();
            backend.write_tokens(train.inputs.tokens.offset, &tokens).expect("prepared");
            backend.write_tokens(train.inputs.targets.offset, &tokens).expect("prepared");
            backend
                .run(program, &RunArgs { step: number, update: number, ..RunArgs::default() }, None)
                .expect("it runs");
            backend.request_results().expect("it runs");
            let time_us = start.elapsed().as_secs_f64() * 1e6;
            backend.collect_results().expect("it ran");
            time_us
        })
        .skip(STEPS / 10)
        .collect();
    times_us.sort_by(f64::total_cmp);
    let at = |share: f64| times_us[(share * (times_us.len() - 1) as f64) as usize];
    println!(
        "`{}`: {} dispatches a step; recording and submitting {:.0} µs (quartiles {:.0} to {:.0})",
        backend.device().name,
        backend.dispatches_of(program).expect("prepared"),
        at(0.5),
        at(0.25),
        at(0.75)
    );
}

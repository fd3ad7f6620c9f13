//! Speed of each matrix product of a step on the first device, by variant: `cargo bench -p helios --bench products`.
//!
//! Every product of W1 and of a 4 × 256 model is timed alone, by the device's clock, with each variant. The last column
//! is the speed of the variant that the backend suggests, as a share of the best.

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use alpha_tensor::{
    Backend, Op, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor, Timeline,
    op::{Linear, LinearBwdInput, LinearBwdWeight, Logits},
};
use helios::{HeliosBackend, Options, Variant};

const REPEATS: usize = 9;

fn variants() -> Vec<Variant> {
    let direct = |rows, vectors, width, height| Variant::Direct { rows, vectors, width, height };
    let staged = |rows, vectors, width, height, depth| Variant::Staged { rows, vectors, width, height, depth };
    vec![
        direct(4, 2, 8, 1),
        direct(8, 2, 8, 1),
        direct(8, 4, 8, 1),
        direct(12, 4, 8, 1),
        direct(16, 4, 8, 1),
        direct(8, 6, 8, 1),
        direct(8, 8, 8, 1),
        direct(8, 4, 8, 4),
        staged(4, 1, 16, 16, 16),
        staged(8, 2, 8, 8, 16),
    ]
}

/// Appends one product to a program.
type Build<'a> = Box<dyn Fn(&mut ProgramBuilder) -> Op + 'a>;

/// Median time of one product.
fn time_ms(options: &Options, build: &dyn Fn(&mut ProgramBuilder) -> Op) -> f64 {
    let mut backend = HeliosBackend::open(options).expect("a device");
    let mut sizes = RegionSizes::default();
    sizes.set(Region::Grads, 1 << 24);
    let mut builder = ProgramBuilder::new(sizes);
    let op = build(&mut builder);
    builder.push(op);
    let program = builder.build(&[]).0;
    backend.prepare(program.sizes(), &[&program]).expect("it fits");
    let mut timeline = Timeline::new(Instant::now(), 1, 1);
    let mut times: Vec<f64> = (0..=REPEATS)
        .map(|_| {
            backend.run(&program, &RunArgs::default(), Some(&mut timeline)).expect("it runs");
            let span = timeline.thread(0)[0];
            (span.end_ns - span.start_ns) as f64 / 1e6
        })
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    times[REPEATS / 2]
}

fn main() {
    for (model, r, c, vocab) in [("W1", 128, 128, 2000), ("4 x 256", 512, 256, 2000)] {
        let plain = |k: usize, n: usize| {
            move |b: &mut ProgramBuilder| {
                let [x, weight, out] = [b.activation(r, k), b.activation(k, n), b.activation(r, n)];
                Linear { x, weight, bias: None, activation: None, pre: None, residual: None, out }.into()
            }
        };
        let input = |k: usize, n: usize| {
            move |b: &mut ProgramBuilder| {
                let [dy, weight, dx] = [b.activation(r, n), b.activation(k, n), b.activation(r, k)];
                LinearBwdInput { dy, weight, activation: None, dx }.into()
            }
        };
        let weight = |k: usize, n: usize| {
            move |b: &mut ProgramBuilder| {
                let [x, dy, dweight] = [b.activation(r, k), b.activation(r, n), Tensor::new(Region::Grads, 0, k, n)];
                LinearBwdWeight { x, dy, dweight, dbias: None, accumulate: false }.into()
            }
        };
        let logits = move |b: &mut ProgramBuilder| {
            let [x, weight, out] = [b.activation(r, c), b.activation(vocab, c), b.activation(r, vocab)];
            Logits { x, weight, out }.into()
        };
        let products: Vec<(&str, usize, usize, Build<'_>)> = vec![
            ("linear", c, 3 * c, Box::new(plain(c, 3 * c))),
            ("linear", c, c, Box::new(plain(c, c))),
            ("linear", c, 4 * c, Box::new(plain(c, 4 * c))),
            ("linear", 4 * c, c, Box::new(plain(4 * c, c))),
            ("linear_bwd_input", c, 4 * c, Box::new(input(c, 4 * c))),
            ("linear_bwd_input", 4 * c, c, Box::new(input(4 * c, c))),
            ("linear_bwd_weight", c, 4 * c, Box::new(weight(c, 4 * c))),
            ("linear_bwd_weight", 4 * c, c, Box::new(weight(4 * c, c))),
            ("logits", c, vocab, Box::new(logits)),
        ];
        for (name, k, n, build) in products {
            let gflops = |options: &Options| 2.0 * (r * k * n) as f64 / time_ms(options, &*build) / 1e6;
            let each: Vec<f64> = variants()
                .into_iter()
                .map(|variant| gflops(&Options { matmul: Some(variant), ..Options::default() }))
                .collect();
            let chosen = gflops(&Options::default());
            let best = each.iter().copied().fold(chosen, f64::max);
            let each: Vec<String> = each.iter().map(|gflops| format!("{gflops:6.2}")).collect();
            println!(
                "{model:8} {name:18} {r}x{k}x{n:<6} {} | {chosen:6.2} GFLOP/s, {:3.0} %",
                each.join(" "),
                100.0 * chosen / best
            );
        }
    }
}

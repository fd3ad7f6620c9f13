//! Speed of the operations on shapes of real models, against the measured peaks.
//!
//! `cargo bench -p alpha-tensor -- [FILTER] [THREADS]`. Each line is the median of at least
//! seven runs; GFLOP/s and GB/s follow from the operation table.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use alpha_tensor::{
    Backend, Op, Program, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor,
    backend::Results,
    cpu::{CpuBackend, peaks},
    op::{
        Activation, AdamW, Attention, AttentionBwd, CrossEntropy, DecayRun, GradNorm, HeadBwd, LayerNorm, LayerNormBwd,
        Linear, LinearBwdInput, LinearBwdWeight,
    },
};

/// Shapes of a training step of `docs/performance.md`.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    rows: usize,
    width: usize,
    ffn_width: usize,
    vocab: usize,
    batch: usize,
    heads: usize,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "W1", rows: 128, width: 128, ffn_width: 512, vocab: 2000, batch: 2, heads: 4 },
    Workload { name: "W2", rows: 3072, width: 384, ffn_width: 1536, vocab: 96, batch: 12, heads: 6 },
    Workload { name: "W3", rows: 256, width: 768, ffn_width: 3072, vocab: 50257, batch: 4, heads: 12 },
];

/// Builds one-operation programs.
struct Case {
    builder: ProgramBuilder,
}

impl Case {
    fn new() -> Case {
        let mut sizes = RegionSizes::default();
        sizes.set(Region::Inputs, 4096);
        sizes.set(Region::Results, Results::LEN);
        Case { builder: ProgramBuilder::new(sizes) }
    }

    fn tensor(&mut self, rows: usize, cols: usize) -> Tensor {
        self.builder.activation(rows, cols)
    }

    fn program(mut self, op: impl Into<Op>) -> Program {
        self.builder.push(op);
        self.builder.build(&[]).0
    }
}

/// Names and programs.
type Cases = Vec<(String, Program)>;

fn cases() -> Cases {
    let mut cases = Vec::new();
    for workload in WORKLOADS {
        products(&mut cases, workload);
        attention(&mut cases, workload);
        layer_norm(&mut cases, workload);
        head(&mut cases, workload);
        optimizer(&mut cases, workload);
    }
    cases
}

/// The products of a layer.
fn products(cases: &mut Cases, workload: Workload) {
    let Workload { name, rows: r, width: c, ffn_width: f, .. } = workload;
    for (layer, k, n) in [("qkv", c, 3 * c), ("proj", c, c), ("fc", c, f), ("fc2", f, c)] {
        let mut case = Case::new();
        let (x, weight, out) = (case.tensor(r, k), case.tensor(k, n), case.tensor(r, n));
        let plain = Linear { x, weight, bias: None, activation: None, pre: None, residual: None, out };
        cases.push((format!("{name} {layer} linear"), case.program(plain)));
        let mut case = Case::new();
        let (dy, weight, dx) = (case.tensor(r, n), case.tensor(k, n), case.tensor(r, k));
        cases.push((
            format!("{name} {layer} linear_bwd_input"),
            case.program(LinearBwdInput { dy, weight, activation: None, dx }),
        ));
        let mut case = Case::new();
        let (x, dy, dweight) = (case.tensor(r, k), case.tensor(r, n), case.tensor(k, n));
        cases.push((
            format!("{name} {layer} linear_bwd_weight"),
            case.program(LinearBwdWeight { x, dy, dweight, dbias: None, accumulate: false }),
        ));
    }
    let mut case = Case::new();
    let (x, weight, pre, out) = (case.tensor(r, c), case.tensor(c, f), case.tensor(r, f), case.tensor(r, f));
    let op = Linear { x, weight, bias: None, activation: Some(Activation::Gelu), pre: Some(pre), residual: None, out };
    cases.push((format!("{name} fc+gelu linear"), case.program(op)));
}

/// Forward and backward.
fn attention(cases: &mut Cases, workload: Workload) {
    let Workload { name, rows: r, width: c, batch, heads, .. } = workload;
    let mut case = Case::new();
    let (qkv, out, lse) = (case.tensor(r, 3 * c), case.tensor(r, c), case.tensor(batch * heads, r / batch));
    cases.push((format!("{name} attention"), case.program(Attention { qkv, out, lse, batch, heads, dropout: None })));
    let mut case = Case::new();
    let (qkv, out, lse) = (case.tensor(r, 3 * c), case.tensor(r, c), case.tensor(batch * heads, r / batch));
    let (dout, dqkv) = (case.tensor(r, c), case.tensor(r, 3 * c));
    let op = AttentionBwd { qkv, out, lse, dout, dqkv, batch, heads, dropout: None };
    cases.push((format!("{name} attention_bwd"), case.program(op)));
}

/// Forward and backward.
fn layer_norm(cases: &mut Cases, workload: Workload) {
    let Workload { name, rows: r, width: c, .. } = workload;
    let mut case = Case::new();
    let (x, y, weight) = (case.tensor(r, c), case.tensor(r, c), case.tensor(1, c));
    let (mean, rstd) = (case.tensor(1, r), case.tensor(1, r));
    cases.push((
        format!("{name} layer_norm"),
        case.program(LayerNorm { x, weight, bias: None, y, mean, rstd, eps: 1e-5 }),
    ));
    let mut case = Case::new();
    let (x, dy, dx, weight) = (case.tensor(r, c), case.tensor(r, c), case.tensor(r, c), case.tensor(1, c));
    let (mean, rstd, dweight) = (case.tensor(1, r), case.tensor(1, r), case.tensor(1, c));
    let op =
        LayerNormBwd { x, weight, mean, rstd, dy, dx, dweight, dbias: None, accumulate_dx: true, accumulate: false };
    cases.push((format!("{name} layer_norm_bwd"), case.program(op)));
}

/// A chunk of the head, forward and backward.
fn head(cases: &mut Cases, workload: Workload) {
    let Workload { name, rows: r, width: c, vocab, .. } = workload;
    let chunk = r.min(128.max((8 << 20) / vocab));
    let mut case = Case::new();
    let (x, weight, scratch, loss) =
        (case.tensor(chunk, c), case.tensor(vocab, c), case.tensor(chunk, vocab), case.tensor(1, chunk));
    let targets = Tensor::new(Region::Inputs, 0, 1, chunk);
    let op = CrossEntropy { x, weight, targets, scratch, loss, grad_scale: Some(1.0) };
    cases.push((format!("{name} cross_entropy"), case.program(op)));
    let mut case = Case::new();
    let (x, weight, scratch) = (case.tensor(chunk, c), case.tensor(vocab, c), case.tensor(chunk, vocab));
    let (dx, dweight) = (case.tensor(chunk, c), case.tensor(vocab, c));
    let op = HeadBwd { x, weight, scratch, dx, dweight, accumulate: false };
    cases.push((format!("{name} head_bwd"), case.program(op)));
}

/// Norm and update of as many parameters as six layers and an embedding have.
fn optimizer(cases: &mut Cases, workload: Workload) {
    let Workload { name, width: c, vocab, .. } = workload;
    let n = vocab * c + 12 * c * c * 6;
    let mut case = Case::new();
    let grads = case.tensor(1, n);
    let op = GradNorm { grads, results: Results::tensor(), grad_clip: 1.0, spike_threshold: 0.0 };
    cases.push((format!("{name} grad_norm"), case.program(op)));
    let mut case = Case::new();
    let (params, grads, moment1, moment2) =
        (case.tensor(1, n), case.tensor(1, n), case.tensor(1, n), case.tensor(1, n));
    let op = AdamW {
        params,
        grads,
        moment1,
        moment2,
        results: Results::tensor(),
        decay_runs: vec![DecayRun { end: n, is_decayed: true }],
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    cases.push((format!("{name} adamw"), case.program(op)));
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let filter = args.first().map_or("", String::as_str);
    let threads = args.get(1).and_then(|arg| arg.parse().ok()).unwrap_or(2);
    let peak = peaks(threads).expect("peaks");
    println!("{threads} threads, peaks {:.0} GFLOP/s, {:.1} GB/s", peak.fma_gflops, peak.triad_gb_s);
    let mut backend = CpuBackend::new(threads).expect("backend");
    for (name, program) in cases().into_iter().filter(|(name, _)| name.contains(filter)) {
        backend.prepare(program.sizes(), &[&program]).expect("prepare");
        let n = program.sizes().get(Region::Activations);
        let block: Vec<f32> = (0..4096).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
        for offset in (0..n).step_by(block.len()) {
            backend.write(Region::Activations, offset, &block[..block.len().min(n - offset)]).expect("it is prepared");
        }
        backend.write(Region::Results, 0, &[1.0; Results::LEN]).expect("it is prepared");
        let args = RunArgs { update: 1, lr: 1e-4, ..RunArgs::default() };
        let (mut times, start) = (Vec::new(), Instant::now());
        while times.len() < 7 || start.elapsed().as_secs_f64() < 0.25 {
            let start = Instant::now();
            backend.run(&program, &args, None).expect("run");
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let gflops = program.counters().flops as f64 / median / 1e9;
        println!(
            "{name:32} {:9.3} ms {gflops:7.1} GFLOP/s {:4.0} %  {:6.1} GB/s",
            median * 1e3,
            100.0 * gflops / peak.fma_gflops,
            program.counters().bytes as f64 / median / 1e9
        );
    }
}

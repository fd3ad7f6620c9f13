//! A GPT's training step in Burn, on its wgpu backend: what `benches/peers/compare.py` measures beside alpha.
//!
//!     burn-peer LAYERS DIM HEADS BLOCK BATCH VOCAB SECONDS
//!
//! The model and the step are alpha's: layer norm before attention and before the two products with gelu (tanh), a tied
//! head, no biases, no dropout, mean cross-entropy, the gradient clipped to norm 1, AdamW (β 0.9 and 0.95, weight decay
//! 0.1). One difference in Burn's favour and one that it cannot avoid: the host waits once a block of steps and not once a
//! step, and Burn clips each tensor by itself. Tokens are random.
//!
//! Prints one JSON line: the median milliseconds a step over the timed blocks, the steps, and the last loss.

use std::time::{Duration, Instant};

use burn::{
    grad_clipping::GradientClippingConfig,
    module::{Initializer, Module},
    nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, loss::CrossEntropyLossConfig},
    optim::{AdamWConfig, GradientsParams},
    tensor::{
        Device, DeviceKind, Int, Tensor, TensorData, activation::gelu_approximate, module::attention,
        ops::AttentionModuleOptions,
    },
};

/// Steps between two waits of the host.
const BLOCK_STEPS: usize = 4;
/// Blocks before timing begins: Burn chooses its kernels in the first.
const WARM_UP_BLOCKS: usize = 3;
const MIN_BLOCKS: usize = 3;
const LR: f64 = 3e-4;

#[derive(Module, Debug)]
struct Layer {
    ln_1: LayerNorm,
    qkv: Linear,
    attn_proj: Linear,
    ln_2: LayerNorm,
    fc: Linear,
    mlp_proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Gpt {
    wte: Embedding,
    wpe: Embedding,
    layers: Vec<Layer>,
    ln_f: LayerNorm,
}

#[derive(Clone, Copy)]
struct Shape {
    layers: usize,
    dim: usize,
    heads: usize,
    block: usize,
    vocab: usize,
}

impl Layer {
    fn new(shape: Shape, device: &Device) -> Layer {
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs).with_bias(false).with_initializer(normal()).init(device)
        };
        let dim = shape.dim;
        Layer {
            ln_1: LayerNormConfig::new(dim).init(device),
            qkv: linear(dim, 3 * dim),
            attn_proj: linear(dim, dim),
            ln_2: LayerNormConfig::new(dim).init(device),
            fc: linear(dim, 4 * dim),
            mlp_proj: linear(4 * dim, dim),
            heads: shape.heads,
        }
    }

    /// `x [batch, time, dim]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, time, dim] = x.dims();
        let heads = self.qkv.forward(self.ln_1.forward(x.clone()));
        let part = |number: usize| {
            let columns = heads.clone().slice([0..batch, 0..time, number * dim..(number + 1) * dim]);
            columns.reshape([batch, time, self.heads, dim / self.heads]).swap_dims(1, 2)
        };
        let causal = AttentionModuleOptions { scale: None, softcap: None, is_causal: true };
        let attended = attention(part(0), part(1), part(2), None, None, causal);
        let x = x + self.attn_proj.forward(attended.swap_dims(1, 2).reshape([batch, time, dim]));
        let hidden = gelu_approximate(self.fc.forward(self.ln_2.forward(x.clone())));
        x + self.mlp_proj.forward(hidden)
    }
}

impl Gpt {
    fn new(shape: Shape, device: &Device) -> Gpt {
        let embedding =
            |count| EmbeddingConfig::new(count, shape.dim).with_initializer(normal()).init(device);
        Gpt {
            wte: embedding(shape.vocab),
            wpe: embedding(shape.block),
            layers: (0..shape.layers).map(|_| Layer::new(shape, device)).collect(),
            ln_f: LayerNormConfig::new(shape.dim).init(device),
        }
    }

    /// Mean cross-entropy of `inputs [batch, time]` against `targets [batch · time]`.
    fn loss(&self, inputs: Tensor<2, Int>, targets: Tensor<1, Int>, positions: Tensor<2, Int>) -> Tensor<1> {
        let [batch, time] = inputs.dims();
        let embedded = self.wte.forward(inputs) + self.wpe.forward(positions);
        let x = self.ln_f.forward(self.layers.iter().fold(embedded, |x, layer| layer.forward(x)));
        let dim = x.dims()[2];
        let logits = x.reshape([batch * time, dim]).matmul(self.wte.weight.val().transpose());
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets)
    }
}

fn normal() -> Initializer {
    Initializer::Normal { mean: 0.0, std: 0.02 }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [layers, dim, heads, block, batch, vocab, seconds] = numbers[..] else {
        eprintln!("usage: burn-peer LAYERS DIM HEADS BLOCK BATCH VOCAB SECONDS");
        std::process::exit(2);
    };
    let shape = Shape { layers, dim, heads, block, vocab };
    let device = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
    device.seed(1);
    let mut model = Gpt::new(shape, &device);
    let clipping = GradientClippingConfig::Norm(1.0);
    let config = AdamWConfig::new().with_beta_2(0.95).with_weight_decay(0.1).with_epsilon(1e-8);
    let mut optimizer = config.with_grad_clipping(Some(clipping)).init();
    let mut state = 1_u64;
    let mut tokens = |count: usize| -> Vec<i64> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as usize % vocab) as i64
        };
        (0..count).map(|_| next()).collect()
    };
    let positions = Tensor::<2, Int>::from_data(TensorData::new((0..block as i64).collect(), [1, block]), &device);

    let mut block_ms = Vec::new();
    let mut loss_value = f32::NAN;
    let limit = Duration::from_secs(seconds as u64);
    let mut timed_since = Instant::now();
    for number in 0.. {
        if number == WARM_UP_BLOCKS {
            timed_since = Instant::now();
        }
        if number >= WARM_UP_BLOCKS + MIN_BLOCKS && timed_since.elapsed() >= limit {
            break;
        }
        let start = Instant::now();
        for step in 0..BLOCK_STEPS {
            let inputs = Tensor::from_data(TensorData::new(tokens(batch * block), [batch, block]), &device);
            let targets = Tensor::from_data(TensorData::new(tokens(batch * block), [batch * block]), &device);
            let loss = model.loss(inputs, targets, positions.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(LR, model, gradients);
            if step + 1 == BLOCK_STEPS {
                loss_value = loss.into_scalar::<f32>();
            }
        }
        device.sync().expect("the device waits");
        if number >= WARM_UP_BLOCKS {
            block_ms.push(start.elapsed().as_secs_f64() * 1e3 / BLOCK_STEPS as f64);
        }
    }
    block_ms.sort_by(f64::total_cmp);
    println!(
        "{{\"ms\": {:.3}, \"steps\": {}, \"parameters\": {}, \"loss\": {loss_value:.4}}}",
        block_ms[block_ms.len() / 2],
        block_ms.len() * BLOCK_STEPS,
        model.num_params(),
    );
}

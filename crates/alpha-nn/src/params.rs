//! Parameters: their names, shapes, places in the flat regions, and initial values.

use alpha_tensor::{
    Region, Tensor,
    op::DecayRun,
    rng::{Key, Purpose},
    tensor::ALIGN_ELEMENTS,
};

use crate::config::{FeedForward, ModelConfig};

/// Initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
}

/// One named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Hugging Face GPT-2 name, `transformer.h.0.attn.c_attn.weight`.
    pub name: String,
    /// Its place in [`Region::Params`]; the same place in the gradient and moment regions.
    pub tensor: Tensor,
    /// Dimensions as a checkpoint has them: one for norms and biases, else two.
    pub dims: Vec<usize>,
    /// Initial value.
    pub init: Init,
}

impl Param {
    /// Weight decay applies to tensors of two dimensions, embeddings included (nanoGPT, llm.c).
    pub fn is_decayed(&self) -> bool {
        self.dims.len() == 2
    }
}

/// All parameters of a model, in checkpoint order.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamLayout {
    /// The parameters; their tensors are in order and do not overlap.
    pub params: Vec<Param>,
    /// Elements of the region, padding included.
    pub region_len: usize,
    /// Their tensors by role in the model.
    pub tensors: ParamTensors,
}

/// A weight and, where the model has biases, its bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightBias {
    /// The weight.
    pub weight: Tensor,
    /// The bias `[1, n]`.
    pub bias: Option<Tensor>,
}

/// Tensors of one transformer layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerTensors {
    /// Norm before attention `[1, c]`.
    pub ln_1: WeightBias,
    /// Query, key and value projection `[c, 3c]`.
    pub attn: WeightBias,
    /// Attention's output projection `[c, c]`.
    pub attn_proj: WeightBias,
    /// Norm before the feed-forward layer `[1, c]`.
    pub ln_2: WeightBias,
    /// Feed-forward input projection `[c, f]`; for swiglu `[c, 2f]`, gate then up.
    pub fc: WeightBias,
    /// Feed-forward output projection `[f, c]`.
    pub mlp_proj: WeightBias,
}

/// Each parameter's tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamTensors {
    /// Token embedding `[vocab, c]`.
    pub wte: Tensor,
    /// Position embedding `[block, c]`.
    pub wpe: Tensor,
    /// Layers.
    pub layers: Vec<LayerTensors>,
    /// Final norm `[1, c]`.
    pub ln_f: WeightBias,
    /// Head `[vocab, c]`: `wte` itself when tied.
    pub head: Tensor,
}

struct LayoutBuilder {
    params: Vec<Param>,
    len: usize,
    has_bias: bool,
}

impl LayoutBuilder {
    fn add(&mut self, name: String, dims: &[usize], init: Init) -> Tensor {
        let (rows, cols) = if let [rows, cols] = *dims { (rows, cols) } else { (1, dims[0]) };
        let tensor = Tensor::new(Region::Params, self.len, rows, cols);
        self.len = (self.len + tensor.len()).next_multiple_of(ALIGN_ELEMENTS);
        self.params.push(Param { name, tensor, dims: dims.to_vec(), init });
        tensor
    }

    fn norm(&mut self, prefix: &str, dim: usize) -> WeightBias {
        let weight = self.add(format!("{prefix}.weight"), &[dim], Init::Ones);
        let bias = self.has_bias.then(|| self.add(format!("{prefix}.bias"), &[dim], Init::Zeros));
        WeightBias { weight, bias }
    }

    fn linear(&mut self, prefix: &str, dims: [usize; 2], std: f64) -> WeightBias {
        let weight = self.add(format!("{prefix}.weight"), &dims, Init::Normal(std));
        let bias = self.has_bias.then(|| self.add(format!("{prefix}.bias"), &dims[1..], Init::Zeros));
        WeightBias { weight, bias }
    }
}

/// GPT-2's standard deviation for weights and embeddings.
const INIT_STD: f64 = 0.02;

impl ParamLayout {
    /// Lays out the parameters of a model. Initial values are GPT-2's: normal with standard
    /// deviation 0.02, projections into the residual stream scaled by `1/√(2·layers)`
    /// (Radford et al., 2019, section 2.3).
    pub fn new(config: &ModelConfig) -> ParamLayout {
        let (c, f) = (config.dim, config.ffn_dim);
        let mut builder = LayoutBuilder { params: Vec::new(), len: 0, has_bias: config.has_bias };
        let residual_std = INIT_STD / (2.0 * config.layers as f64).sqrt();
        let wte = builder.add("transformer.wte.weight".into(), &[config.vocab, c], Init::Normal(INIT_STD));
        let wpe = builder.add("transformer.wpe.weight".into(), &[config.block, c], Init::Normal(INIT_STD));
        let fc_dim = if config.feed_forward == FeedForward::Swiglu { 2 * f } else { f };
        let layers = (0..config.layers)
            .map(|layer| {
                let prefix = format!("transformer.h.{layer}");
                LayerTensors {
                    ln_1: builder.norm(&format!("{prefix}.ln_1"), c),
                    attn: builder.linear(&format!("{prefix}.attn.c_attn"), [c, 3 * c], INIT_STD),
                    attn_proj: builder.linear(&format!("{prefix}.attn.c_proj"), [c, c], residual_std),
                    ln_2: builder.norm(&format!("{prefix}.ln_2"), c),
                    fc: builder.linear(&format!("{prefix}.mlp.c_fc"), [c, fc_dim], INIT_STD),
                    mlp_proj: builder.linear(&format!("{prefix}.mlp.c_proj"), [f, c], residual_std),
                }
            })
            .collect();
        let ln_f = builder.norm("transformer.ln_f", c);
        let head = if config.is_tied {
            wte
        } else {
            builder.add("lm_head.weight".into(), &[config.vocab, c], Init::Normal(INIT_STD))
        };
        let tensors = ParamTensors { wte, wpe, layers, ln_f, head };
        ParamLayout { params: builder.params, region_len: builder.len, tensors }
    }

    /// Number of parameters, padding not counted.
    pub fn param_count(&self) -> usize {
        self.params.iter().map(|param| param.tensor.len()).sum()
    }

    /// The region as runs that are decayed or not, for the optimiser's single pass.
    pub fn decay_runs(&self) -> Vec<DecayRun> {
        let mut runs: Vec<DecayRun> = Vec::new();
        for param in &self.params {
            let end = (param.tensor.offset + param.tensor.len()).next_multiple_of(ALIGN_ELEMENTS);
            match runs.last_mut() {
                Some(run) if run.is_decayed == param.is_decayed() => run.end = end,
                _ => runs.push(DecayRun { end, is_decayed: param.is_decayed() }),
            }
        }
        runs
    }

    /// The parameter whose place holds element `offset` of the region.
    pub fn param_at(&self, offset: usize) -> Option<&Param> {
        self.params
            .iter()
            .find(|param| (param.tensor.offset..param.tensor.offset + param.tensor.len()).contains(&offset))
    }
}

/// Initial values of parameter number `index`, elements `start..start + out.len()`: a function
/// of seed, parameter and element alone. `start` must be even.
pub fn fill_initial(param: &Param, index: usize, seed: u64, start: usize, out: &mut [f32]) {
    debug_assert!(start.is_multiple_of(2));
    match param.init {
        Init::Zeros => out.fill(0.0),
        Init::Ones => out.fill(1.0),
        Init::Normal(std) => {
            let key = Key::new(seed, Purpose::Init).fold(index as u64);
            for (pair, values) in out.chunks_mut(2).enumerate() {
                let normal = key.normal_pair((start / 2 + pair) as u64);
                for (value, normal) in values.iter_mut().zip(normal) {
                    *value = (normal * std) as f32;
                }
            }
        }
    }
}

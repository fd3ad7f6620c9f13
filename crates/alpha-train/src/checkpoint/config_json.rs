//! The shape of a model as Hugging Face's `config.json` for GPT-2.
//!
//! Stock GPT-2 has no swiglu; a model that has it gets `"model_type": "alpha_gpt"` and a
//! sentence that says so. A model without biases is written with all biases zero, which stock
//! GPT-2 opens, and with `"alpha_bias": false`, by which it is recognised here.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use alpha_data::python_json;
use alpha_nn::{FeedForward, ModelConfig};
use alpha_tensor::op::Activation;
use serde::Serialize;
use serde_json::Value;

use super::weights;
use crate::{error::TrainError, files};

/// Name of the file.
pub const FILE_NAME: &str = "config.json";

const STOCK_MODEL_TYPE: &str = "gpt2";
const OWN_MODEL_TYPE: &str = "alpha_gpt";
const OWN_NOTE: &str = "not stock GPT-2: the feed-forward layer is swiglu; mlp.c_fc.weight is [n_embd, 2*n_inner], \
                        gate then up, and mlp.c_proj reads silu(gate)*up";

/// The file's keys, in the order in which they are written.
#[derive(Serialize)]
struct Gpt2Config<'a> {
    model_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha_note: Option<&'a str>,
    architectures: [&'a str; 1],
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_positions: usize,
    n_ctx: usize,
    vocab_size: usize,
    n_inner: Option<usize>,
    activation_function: &'a str,
    layer_norm_epsilon: f32,
    tie_word_embeddings: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha_bias: Option<bool>,
    attn_pdrop: f32,
    embd_pdrop: f32,
    resid_pdrop: f32,
    initializer_range: f32,
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    dtype: &'a str,
    torch_dtype: &'a str,
}

/// Writes `config.json`.
pub fn write_config(out: &mut dyn Write, config: &ModelConfig, end_of_text: Option<u32>) -> io::Result<()> {
    let (activation_function, is_stock) = match config.feed_forward {
        FeedForward::Pointwise(Activation::Gelu) => ("gelu_new", true),
        FeedForward::Pointwise(Activation::Silu) => ("silu", true),
        FeedForward::Pointwise(Activation::Relu) => ("relu", true),
        FeedForward::Swiglu => ("swiglu", false),
    };
    let file = Gpt2Config {
        model_type: if is_stock { STOCK_MODEL_TYPE } else { OWN_MODEL_TYPE },
        alpha_note: (!is_stock).then_some(OWN_NOTE),
        architectures: [if is_stock { "GPT2LMHeadModel" } else { "AlphaGPTLMHeadModel" }],
        n_layer: config.layers,
        n_embd: config.dim,
        n_head: config.heads,
        n_positions: config.block,
        n_ctx: config.block,
        vocab_size: config.vocab,
        n_inner: (config.ffn_dim != 4 * config.dim).then_some(config.ffn_dim),
        activation_function,
        layer_norm_epsilon: config.layer_norm_eps,
        tie_word_embeddings: config.is_tied,
        alpha_bias: (!config.has_bias).then_some(false),
        attn_pdrop: config.dropout,
        embd_pdrop: config.dropout,
        resid_pdrop: config.dropout,
        initializer_range: 0.02,
        bos_token_id: end_of_text,
        eos_token_id: end_of_text,
        dtype: "float32",
        torch_dtype: "float32",
    };
    files::write_json(out, &file)
}

/// Reads `config.json` of a folder. Dropout is `resid_pdrop`; a caller that trains on decides
/// for itself.
pub fn read_config(dir: &Path) -> Result<ModelConfig, TrainError> {
    // A run's folder has a file of this name too.
    let has_weights = [weights::FILE_NAME, weights::INDEX_NAME].iter().any(|name| dir.join(name).exists());
    if let Some(newest) = super::newest(dir)?.filter(|_| !has_weights) {
        return Err(TrainError::RunFolder { path: dir.into(), newest: newest.path });
    }
    let path = dir.join(FILE_NAME);
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => TrainError::MissingFile {
            path: path.clone(),
            hint: "give a folder in Hugging Face layout: `config.json` and `model.safetensors`",
        },
        _ => TrainError::io("read", &path, source),
    })?;
    let value = python_json(&bytes).map_err(|error| TrainError::broken(&path, error))?;
    if !value.is_object() {
        return Err(TrainError::broken(&path, "expected a JSON object"));
    }
    let config = Keys { path: &path, value: &value }.model_config()?;
    config.validate().map_err(|source| TrainError::ImpossibleModel { path, source })?;
    Ok(config)
}

/// Sizes beyond these are a broken file, not a model: no product of two of them overflows.
const MAX_LAYERS: u64 = 10_000;
const MAX_SIZE: u64 = 1 << 28;

/// Keys by which GPT-2 implementations compute something else, and the values that are computed here.
const FIXED_KEYS: [(&str, bool); 3] =
    [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("add_cross_attention", false)];

struct Keys<'a> {
    path: &'a Path,
    value: &'a Value,
}

impl Keys<'_> {
    fn model_config(&self) -> Result<ModelConfig, TrainError> {
        let is_own = match self.get("model_type").map(Value::as_str) {
            None | Some(Some(STOCK_MODEL_TYPE)) => false,
            Some(Some(OWN_MODEL_TYPE)) => true,
            Some(_) => {
                let computed = format!("`{STOCK_MODEL_TYPE}` and `{OWN_MODEL_TYPE}`");
                return Err(self.not_computed("model_type", &computed));
            }
        };
        for (key, expected) in FIXED_KEYS {
            if self.bool(key, expected)? != expected {
                return Err(self.not_computed(key, &format!("`{expected}`")));
            }
        }
        let feed_forward = self.feed_forward(is_own)?;
        let dim = self.size("n_embd", MAX_SIZE)?;
        Ok(ModelConfig {
            layers: self.size("n_layer", MAX_LAYERS)?,
            dim,
            heads: self.size("n_head", MAX_SIZE)?,
            block: self.size(if self.get("n_positions").is_some() { "n_positions" } else { "n_ctx" }, MAX_SIZE)?,
            vocab: self.size("vocab_size", MAX_SIZE)?,
            ffn_dim: if self.get("n_inner").is_some() { self.size("n_inner", MAX_SIZE)? } else { 4 * dim },
            feed_forward,
            is_tied: self.bool("tie_word_embeddings", true)?,
            has_bias: self.bool("alpha_bias", true)?,
            dropout: self.number("resid_pdrop", 0.0, 0.0..1.0)?,
            layer_norm_eps: self.number("layer_norm_epsilon", 1e-5, 0.0..1.0)?,
        })
    }

    fn feed_forward(&self, is_own: bool) -> Result<FeedForward, TrainError> {
        let key = "activation_function";
        Ok(match self.get(key).map(Value::as_str) {
            None | Some(Some("gelu_new" | "gelu_pytorch_tanh")) => FeedForward::Pointwise(Activation::Gelu),
            Some(Some("silu" | "swish")) => FeedForward::Pointwise(Activation::Silu),
            Some(Some("relu")) => FeedForward::Pointwise(Activation::Relu),
            Some(Some("swiglu")) if is_own => FeedForward::Swiglu,
            Some(_) => return Err(self.not_computed(key, "`gelu_new`, `silu` and `relu`")),
        })
    }

    /// A key's value; `null` counts as missing.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &'static str, expected: &str) -> TrainError {
        let found = self.get(key).map_or("missing".into(), |value| format!("`{value}`"));
        TrainError::ConfigKey { path: self.path.into(), key, found, expected: expected.into() }
    }

    /// The file may well be right: it is alpha that lacks the function.
    fn not_computed(&self, key: &'static str, computed: &str) -> TrainError {
        let found = self.get(key).map_or("missing".into(), |value| format!("`{value}`"));
        TrainError::NotComputed { path: self.path.into(), key, found, computed: computed.into() }
    }

    fn size(&self, key: &'static str, max: u64) -> Result<usize, TrainError> {
        let size = self.get(key).and_then(Value::as_u64).filter(|size| (1..=max).contains(size));
        size.map(|size| size as usize).ok_or_else(|| self.error(key, &format!("a whole number from 1 to {max}")))
    }

    fn bool(&self, key: &'static str, default: bool) -> Result<bool, TrainError> {
        self.get(key).map_or(Some(default), Value::as_bool).ok_or_else(|| self.error(key, "`true` or `false`"))
    }

    fn number(&self, key: &'static str, default: f64, range: std::ops::Range<f64>) -> Result<f32, TrainError> {
        let number = self.get(key).map_or(Some(default), Value::as_f64).filter(|number| range.contains(number));
        let expected = || self.error(key, &format!("a number from {} to below {}", range.start, range.end));
        number.map(|number| number as f32).ok_or_else(expected)
    }
}

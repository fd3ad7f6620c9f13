//! The shape of a model.

use alpha_tensor::op::Activation;

/// Activation of the feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// One projection, then a pointwise activation.
    Pointwise(Activation),
    /// Two projections, one gating the other.
    Swiglu,
}

impl FeedForward {
    /// Parses the names of the command line: `gelu`, `silu`, `relu`, `swiglu`.
    pub fn from_name(name: &str) -> Option<FeedForward> {
        Some(match name {
            "gelu" => FeedForward::Pointwise(Activation::Gelu),
            "silu" => FeedForward::Pointwise(Activation::Silu),
            "relu" => FeedForward::Pointwise(Activation::Relu),
            "swiglu" => FeedForward::Swiglu,
            _ => return None,
        })
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FeedForward::Pointwise(Activation::Gelu) => "gelu",
            FeedForward::Pointwise(Activation::Silu) => "silu",
            FeedForward::Pointwise(Activation::Relu) => "relu",
            FeedForward::Swiglu => "swiglu",
        }
    }

    /// The width of the hidden layer where none is given: 4·dim, for swiglu 8/3·dim rounded
    /// up to a multiple of 64.
    pub fn default_ffn_dim(self, dim: usize) -> usize {
        match self {
            FeedForward::Pointwise(_) => 4 * dim,
            FeedForward::Swiglu => (8 * dim).div_ceil(3).next_multiple_of(64),
        }
    }
}

/// Shape of a GPT-2-layout decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Attention heads; divides `dim`.
    pub heads: usize,
    /// Context length, also the number of learned positions.
    pub block: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Width of the feed-forward layer.
    pub ffn_dim: usize,
    /// Its activation.
    pub feed_forward: FeedForward,
    /// Head shares the token embedding's weight.
    pub is_tied: bool,
    /// Linear layers and norms have biases.
    pub has_bias: bool,
    /// Dropout on embeddings, attention probabilities and residual branches.
    pub dropout: f32,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f32,
}

/// Largest number of layers.
const MAX_LAYERS: usize = 10_000;
/// Largest number of elements of a parameter, or of one sequence's activation.
const MAX_TENSOR_ELEMENTS: usize = u32::MAX as usize;

/// Why a [`ModelConfig`] is impossible.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// A size is zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// Heads do not divide the width.
    #[error("`dim` {dim} is not divisible by `heads` {heads}")]
    HeadsDoNotDivideDim {
        /// Width.
        dim: usize,
        /// Heads.
        heads: usize,
    },
    /// A tensor of the model, or the number of its layers, is beyond what can be addressed.
    #[error("{what} is too large: {found}, at most {limit}")]
    TooLarge {
        /// Layers, or two sizes whose product is a tensor's.
        what: &'static str,
        /// As given.
        found: String,
        /// Layers or elements.
        limit: u64,
    },
    /// Dropout outside `[0, 1)`.
    #[error("`dropout` {0} is outside [0, 1)")]
    Dropout(f32),
}

impl ModelConfig {
    /// Checks that the shape is possible.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (name, value) in [
            ("layers", self.layers),
            ("dim", self.dim),
            ("heads", self.heads),
            ("block", self.block),
            ("vocab", self.vocab),
            ("ffnDim", self.ffn_dim),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        if !self.dim.is_multiple_of(self.heads) {
            return Err(ConfigError::HeadsDoNotDivideDim { dim: self.dim, heads: self.heads });
        }
        if self.layers > MAX_LAYERS {
            let found = self.layers.to_string();
            return Err(ConfigError::TooLarge { what: "`layers`", found, limit: MAX_LAYERS as u64 });
        }
        for (what, rows, cols) in [
            ("`vocab` by `dim`", self.vocab, self.dim),
            ("three times `dim` by `dim`", self.dim.saturating_mul(3), self.dim),
            ("twice `ffnDim` by `dim`", self.ffn_dim.saturating_mul(2), self.dim),
            ("`block` by three times `dim`", self.block, self.dim.saturating_mul(3)),
            ("`block` by twice `ffnDim`", self.block, self.ffn_dim.saturating_mul(2)),
            ("`block` by `heads`", self.block, self.heads),
        ] {
            if rows.checked_mul(cols).is_none_or(|elements| elements > MAX_TENSOR_ELEMENTS) {
                let found = format!("{rows} by {cols}");
                return Err(ConfigError::TooLarge { what, found, limit: MAX_TENSOR_ELEMENTS as u64 });
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ConfigError::Dropout(self.dropout));
        }
        Ok(())
    }
}

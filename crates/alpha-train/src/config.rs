//! The resolved configuration of a training run.
//!
//! Every field is one flag of `alpha train`, under the flag's name, in the order of the
//! reference. The run folder's `config.json` holds this struct, and the file can be
//! given back as `--config`. Resolved means: presets applied, defaults that depend on other
//! flags computed, combinations checked. Only what needs the data is still open (vocabulary,
//! name of the run folder).

pub mod backend;

use std::{fmt, path::PathBuf, str::FromStr};

use alpha_nn::{FeedForward, ModelConfig};
use helios::Variant;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enum whose values have the same names in flags, files and messages.
macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// All names, in the order of the definition.
            pub const NAMES: &[&str] = &[$($text),*];

            /// The name in flags, files and messages.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<$name, UnknownName> {
                match text {
                    $($text => Ok($name::$variant),)*
                    _ => Err(UnknownName { found: text.to_owned(), known: $name::NAMES }),
                }
            }
        }
    };
}

/// A name that none of an enum's values has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownName {
    /// What was given.
    pub found: String,
    /// The names that are known.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not one of {}", self.found, self.known.join(", "))
    }
}

impl std::error::Error for UnknownName {}

named_enum! {
    /// What runs the operations.
    Backend {
        /// A GPU if there is one, else `cpu`. Does not occur in a resolved configuration.
        Auto = "auto",
        /// SIMD and threads.
        Cpu = "cpu",
        /// The plain reference.
        CpuRef = "cpu_ref",
        /// The GPU.
        Helios = "helios",
    }
}

named_enum! {
    /// The optimiser.
    Optim {
        /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
        AdamW = "adamw",
    }
}

named_enum! {
    /// The learning rate after warm-up.
    Schedule {
        /// From `lr` to `lrMin` at the last step along half a cosine.
        Cosine = "cosine",
        /// `lr` throughout.
        Constant = "constant",
    }
}

named_enum! {
    /// What happens when loss or gradient norm is not finite.
    OnNonfinite {
        /// The run ends, after the batch has been saved.
        Stop = "stop",
        /// The update is left out and counted.
        Skip = "skip",
    }
}

named_enum! {
    /// The number format of a step.
    Dtype {
        /// 32-bit.
        F32 = "f32",
        /// 16-bit with the exponent of f32.
        Bf16 = "bf16",
        /// 16-bit IEEE.
        F16 = "f16",
    }
}

named_enum! {
    /// The width of a token in shards that have no header.
    TokenDtype {
        /// Two bytes, little-endian.
        U16 = "u16",
        /// Four bytes, little-endian.
        U32 = "u32",
    }
}

impl From<TokenDtype> for alpha_data::TokenDtype {
    fn from(dtype: TokenDtype) -> alpha_data::TokenDtype {
        match dtype {
            TokenDtype::U16 => alpha_data::TokenDtype::U16,
            TokenDtype::U32 => alpha_data::TokenDtype::U32,
        }
    }
}

/// Where a resumed run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At the newest checkpoint in the run folder, at step 1 if there is none.
    Auto,
    /// At this checkpoint.
    From(PathBuf),
}

/// What `alpha train` does, completely. Field names in files are the flags' camelCase names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainConfig {
    /// Training data: a file, a folder or a glob.
    pub data: String,
    /// Validation data; without it a part of `data`.
    pub val_data: Option<String>,
    /// The preset that was applied.
    pub domain: Option<String>,
    /// What runs the operations; never [`Backend::Auto`].
    pub backend: Backend,
    /// CPU threads.
    pub threads: usize,
    /// GPU by number or name.
    pub device: Option<String>,
    /// The kernel of matrix products on a GPU; none: the quickest by measurement.
    #[serde(default, with = "variant_name")]
    pub matmul: Option<Variant>,
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Micro-batches in a step.
    pub accum_steps: usize,
    /// Context length.
    pub block: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Dropout probability, in `[0, 1)`.
    pub dropout: f64,
    /// Activation of the feed-forward layer.
    #[serde(with = "feed_forward_name")]
    pub activation: FeedForward,
    /// Width of the feed-forward layer.
    pub ffn_dim: usize,
    /// Head shares the token embedding's weight.
    pub tie: bool,
    /// Linear layers and norms have biases.
    pub bias: bool,
    /// `char`, `byte`, `word`, `bpe`, `bpe-4k` … or the path of a `tokenizer.json`; none: `bpe`
    /// for text, no tokenizer for tokens.
    pub tokenizer: Option<String>,
    /// Vocabulary of data that is tokens already.
    pub vocab_size: Option<usize>,
    /// Where the tokenizer is loaded from or saved to, instead of the cache.
    pub tokenizer_artifacts: Option<PathBuf>,
    /// The optimiser.
    pub optim: Optim,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Learning rate at the start of warm-up and at the end of the schedule.
    pub lr_min: f64,
    /// Steps of warm-up; negative means none, and zero does not occur (see [`TrainConfig::warmup_steps`]).
    pub warmup_iters: i64,
    /// The learning rate after warm-up.
    pub schedule: Schedule,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 is off.
    pub grad_clip: f64,
    /// Steps between evaluations and checkpoints; 0 is never.
    pub eval_interval: u64,
    /// Batches in an evaluation.
    pub eval_iters: usize,
    /// Steps between samples; 0 is never.
    pub sample_interval: u64,
    /// Sample after the last step.
    pub post_samples: bool,
    /// The prompts of samples.
    pub sample_prompts: Vec<String>,
    /// Gradient norm above which an update is left out; 0 is off.
    pub spike_threshold: f64,
    /// What happens when loss or gradient norm is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Seed of every random stream.
    pub seed: u64,
    /// Steps between step lines.
    pub log_every: u64,
    /// Time every operation and write the trace files.
    pub trace: bool,
    /// The number format of a step.
    pub dtype: Dtype,
    /// The width of tokens in shards without header.
    pub token_dtype: Option<TokenDtype>,
    /// llm.c's data order.
    pub packed: bool,
    /// Activation recomputation.
    pub checkpoint: bool,
    /// Where to go on. A property of the process, not of the run: not written to files.
    #[serde(skip)]
    pub resume: Option<Resume>,
    /// A folder in Hugging Face layout whose weights the run begins with.
    pub init: Option<PathBuf>,
    /// How many of the newest checkpoints are kept.
    pub keep_checkpoints: usize,
    /// Report to a remote service.
    pub remote: bool,
    /// The run folder; `None` is `runs/<runId>`.
    pub run_dir: Option<PathBuf>,
    /// Warnings of the planning check are fatal.
    pub strict_planning: bool,
    /// Begin although less memory is free than the run is predicted to take. A property of the process: not written to files.
    #[serde(skip)]
    pub ignore_memory_check: bool,
    /// Resume although the data is not what it was. A property of the process: not written to files.
    #[serde(skip)]
    pub allow_data_change: bool,
}

/// Settings that decide which numbers a step computes. A resumed run keeps them.
const KEPT_AT_RESUME: &[&str] = &[
    "accumSteps",
    "activation",
    "backend",
    "batch",
    "beta1",
    "beta2",
    "bias",
    "block",
    "dim",
    "dropout",
    "dtype",
    "eps",
    "ffnDim",
    "heads",
    "layers",
    "lr",
    "lrMin",
    "optim",
    "packed",
    "schedule",
    "seed",
    "tie",
    "warmupIters",
    "weightDecay",
];

impl TrainConfig {
    /// The settings that a resumed run keeps, as `config.json` has them.
    pub fn kept_settings(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut settings)) => {
                settings.retain(|key, _| KEPT_AT_RESUME.contains(&key.as_str()));
                settings
            }
            _ => unreachable!("a struct of plain values is a JSON object"),
        }
    }

    /// Steps of warm-up, 0 for none.
    pub fn warmup_steps(&self) -> u64 {
        u64::try_from(self.warmup_iters).unwrap_or(0)
    }

    /// Tokens a step trains on.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.accum_steps * self.block
    }

    /// The model's shape, with GPT-2's epsilon in its norms.
    pub fn model(&self, vocab: usize) -> ModelConfig {
        ModelConfig {
            layers: self.layers,
            dim: self.dim,
            heads: self.heads,
            block: self.block,
            vocab,
            ffn_dim: self.ffn_dim,
            feed_forward: self.activation,
            is_tied: self.tie,
            has_bias: self.bias,
            dropout: self.dropout as f32,
            layer_norm_eps: 1e-5,
        }
    }
}

/// [`Variant`] by its name.
mod variant_name {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Variant};
    use serde::de::Error as _;

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Variant>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|variant| variant.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Variant>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        name.map(|name| name.parse().map_err(D::Error::custom)).transpose()
    }
}

/// [`FeedForward`] by its name.
mod feed_forward_name {
    use super::{Deserialize, Deserializer, FeedForward, Serializer};
    use serde::de::Error as _;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &FeedForward, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FeedForward, D::Error> {
        let name = String::deserialize(deserializer)?;
        FeedForward::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("`{name}` is not one of gelu, silu, relu, swiglu")))
    }
}

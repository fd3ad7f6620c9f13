//! The flags of `alpha train`, in the order of the reference.
//!
//! `Option` means that the default depends on other flags; `resolve` computes it.

use std::path::PathBuf;

use alpha_train::config::{Backend, Dtype, OnNonfinite, Optim, Schedule, TokenDtype};
use clap::{ArgAction, Args};
use helios::Variant;

use super::value::{count, named, number, path, size, steps, whole};

/// Names that `--activation` takes.
pub(crate) const ACTIVATIONS: &[&str] = &["gelu", "silu", "relu", "swiglu"];

/// Names that `--domain` takes: presets.
pub(crate) const DOMAINS: &[&str] = &["abc", "chords", "novels", "concordance", "chat", "fine_corpus"];

/// The shape of a model, for every command that creates one.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase", next_help_heading = "Model")]
pub(crate) struct ShapeFlags {
    /// Context length T
    #[arg(long, value_name = "N", value_parser = size, default_value = "256")]
    pub(crate) block: usize,
    /// Transformer layers
    #[arg(long, value_name = "N", value_parser = size, default_value = "6")]
    pub(crate) layers: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "N", value_parser = size, default_value = "256")]
    pub(crate) dim: usize,
    /// Attention heads; must divide `--dim`
    #[arg(long, value_name = "N", value_parser = size, default_value = "8")]
    pub(crate) heads: usize,
    /// Dropout probability, at least 0 and below 1
    #[arg(long, value_name = "P", value_parser = number, default_value = "0")]
    pub(crate) dropout: f64,
    /// Activation of the feed-forward layer; gelu is the tanh form
    #[arg(long, value_name = "NAME", value_parser = named::<String>(ACTIVATIONS), default_value = "gelu")]
    pub(crate) activation: String,
    /// Width of the feed-forward layer [default: 4·dim; swiglu: ceil(8/3·dim/64)·64]
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) ffn_dim: Option<usize>,
    /// Head shares the token embedding's weight
    #[arg(long, action = ArgAction::Set, default_value = "true")]
    pub(crate) tie: bool,
    /// Biases on linear layers and norms
    #[arg(long, action = ArgAction::Set, default_value = "true")]
    pub(crate) bias: bool,
}

/// Where operations run, for every command that runs some.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase", next_help_heading = "Where it runs")]
pub(crate) struct BackendFlags {
    /// auto: a real GPU if there is one, else cpu; `cpu_ref` is the plain reference
    #[arg(long, value_name = "NAME", value_parser = named::<Backend>(Backend::NAMES), default_value = "auto")]
    pub(crate) backend: Backend,
    /// CPU threads [default: all]
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) threads: Option<usize>,
    /// GPU by number or name [default: a discrete one, else the first]
    #[arg(long, value_name = "GPU")]
    pub(crate) device: Option<String>,
    /// Kernel of matrix products on a GPU, as `alpha devices` names it [default: the quickest when measured]
    #[arg(long, value_name = "KERNEL")]
    pub(crate) matmul: Option<Variant>,
}

/// The flags of `alpha train`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(rename_all = "camelCase")]
pub(crate) struct TrainFlags {
    /// Text, jsonl (`{"text": …}`) or token shards: a file, a folder or a glob (required)
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub(crate) data: Option<String>,
    /// Validation data [default: the last 10 % of the data]
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub(crate) val_data: Option<String>,
    /// char, byte, word, bpe (2000), bpe-4k/8k/16k/32k/64k, or a `tokenizer.json` [default: bpe]
    #[arg(long, value_name = "KIND", help_heading = "Data")]
    pub(crate) tokenizer: Option<String>,
    /// Load the tokenizer from this file, or build it and save it there [default: the cache]
    #[arg(long, value_name = "FILE", value_parser = path, help_heading = "Data")]
    pub(crate) tokenizer_artifacts: Option<PathBuf>,
    /// Vocabulary of data that is tokens already [default: the shard format's]
    #[arg(long, value_name = "N", value_parser = size, help_heading = "Data")]
    pub(crate) vocab_size: Option<usize>,
    /// Width of tokens in shards without header
    #[arg(long, value_name = "TYPE", value_parser = named::<TokenDtype>(TokenDtype::NAMES), help_heading = "Data")]
    pub(crate) token_dtype: Option<TokenDtype>,
    /// llm.c's order: in sequence from the first token, not at random
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Data")]
    pub(crate) packed: bool,

    #[command(flatten)]
    pub(crate) shape: ShapeFlags,

    /// Optimiser steps
    #[arg(long, visible_alias = "iters", value_name = "N", value_parser = steps, default_value = "1000",
          help_heading = "Training")]
    pub(crate) steps: u64,
    /// Sequences in a micro-batch
    #[arg(long, value_name = "N", value_parser = size, default_value = "64", help_heading = "Training")]
    pub(crate) batch: usize,
    /// Micro-batches in a step
    #[arg(long, value_name = "N", value_parser = size, default_value = "1", help_heading = "Training")]
    pub(crate) accum_steps: usize,
    /// Seed of every random stream
    #[arg(long, value_name = "N", value_parser = count, default_value = "42", help_heading = "Training")]
    pub(crate) seed: u64,
    /// Number format of a step
    #[arg(long, value_name = "TYPE", value_parser = named::<Dtype>(Dtype::NAMES), default_value = "f32",
          help_heading = "Training")]
    pub(crate) dtype: Dtype,
    /// Alias of `--dtype=f16`
    #[arg(long, action = ArgAction::Set, default_value = "false", hide = true)]
    pub(crate) fp16: bool,
    /// Compute activations again in backward instead of keeping them
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Training")]
    pub(crate) checkpoint: bool,

    /// Optimiser
    #[arg(long, value_name = "NAME", value_parser = named::<Optim>(Optim::NAMES), default_value = "adamw",
          help_heading = "Optimiser")]
    pub(crate) optim: Optim,
    /// Learning rate after warm-up
    #[arg(long, value_name = "X", value_parser = number, default_value = "3e-4", help_heading = "Optimiser")]
    pub(crate) lr: f64,
    /// Learning rate at the start of warm-up and the end of the schedule [default: lr/10]
    #[arg(long, value_name = "X", value_parser = number, help_heading = "Optimiser")]
    pub(crate) lr_min: Option<f64>,
    /// Steps of warm-up; 0: the lesser of 2000 and steps/5; negative: none
    #[arg(long, value_name = "N", value_parser = whole, default_value = "0", help_heading = "Optimiser")]
    pub(crate) warmup_iters: i64,
    /// Learning rate after warm-up: down to lrMin, or as it is
    #[arg(long, value_name = "NAME", value_parser = named::<Schedule>(Schedule::NAMES), default_value = "cosine",
          help_heading = "Optimiser")]
    pub(crate) schedule: Schedule,
    /// Decay of the first moment
    #[arg(long, value_name = "X", value_parser = number, default_value = "0.9", help_heading = "Optimiser")]
    pub(crate) beta1: f64,
    /// Decay of the second moment
    #[arg(long, value_name = "X", value_parser = number, default_value = "0.95", help_heading = "Optimiser")]
    pub(crate) beta2: f64,
    /// Added to the root of the second moment
    #[arg(long, value_name = "X", value_parser = number, default_value = "1e-8", help_heading = "Optimiser")]
    pub(crate) eps: f64,
    /// Decoupled weight decay on tensors of two dimensions
    #[arg(long, value_name = "X", value_parser = number, default_value = "0.1", help_heading = "Optimiser")]
    pub(crate) weight_decay: f64,
    /// Largest gradient norm; 0: any
    #[arg(long, value_name = "X", value_parser = number, default_value = "1", help_heading = "Optimiser")]
    pub(crate) grad_clip: f64,
    /// Leave the update out when the gradient norm exceeds this; 0: never
    #[arg(long, value_name = "X", value_parser = number, default_value = "0", help_heading = "Optimiser")]
    pub(crate) spike_threshold: f64,
    /// When loss or gradient norm is not finite: end the run, or leave the update out
    #[arg(long, value_name = "NAME", value_parser = named::<OnNonfinite>(OnNonfinite::NAMES), default_value = "stop",
          help_heading = "Optimiser")]
    pub(crate) on_nonfinite: OnNonfinite,

    /// Steps between evaluations, each with a checkpoint; 0: none
    #[arg(long, value_name = "N", value_parser = count, default_value = "100", help_heading = "Evaluation and samples")]
    pub(crate) eval_interval: u64,
    /// Batches in an evaluation
    #[arg(long, value_name = "N", value_parser = size, default_value = "10", help_heading = "Evaluation and samples")]
    pub(crate) eval_iters: usize,
    /// Steps between samples; 0: none
    #[arg(long, value_name = "N", value_parser = count, default_value = "100", help_heading = "Evaluation and samples")]
    pub(crate) sample_interval: u64,
    /// Sample after the last step
    #[arg(long, action = ArgAction::Set, default_value = "true", help_heading = "Evaluation and samples")]
    pub(crate) post_samples: bool,
    /// Text that samples begin with; once for each [default: the domain's, or three built-in]
    #[arg(long, value_name = "TEXT", action = ArgAction::Append, allow_hyphen_values = true,
          help_heading = "Evaluation and samples")]
    pub(crate) sample_prompts: Vec<String>,

    /// Run folder [default: a new one in `runs`]
    #[arg(long, value_name = "DIR", value_parser = path, help_heading = "Run folder")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Continue from a checkpoint, or `auto`: from the newest in `--runDir`
    #[arg(long, value_name = "DIR", help_heading = "Run folder")]
    pub(crate) resume: Option<String>,
    /// Begin with a folder in Hugging Face layout: its shape and weights; `--block` may be less
    #[arg(long, value_name = "DIR", value_parser = path, help_heading = "Run folder")]
    pub(crate) init: Option<PathBuf>,
    /// Newest checkpoints kept; the best by validation loss always is
    #[arg(long, value_name = "N", value_parser = size, default_value = "3", help_heading = "Run folder")]
    pub(crate) keep_checkpoints: usize,
    /// Steps between step lines
    #[arg(long, value_name = "N", value_parser = steps, default_value = "1", help_heading = "Run folder")]
    pub(crate) log_every: u64,
    /// Time every operation; adds trace lines, `trace.json` and `kernels.json`
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Run folder")]
    pub(crate) trace: bool,
    /// Report to `ALPHA_REMOTE_URL`; does not exist yet
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Run folder")]
    pub(crate) remote: bool,

    #[command(flatten)]
    pub(crate) backend: BackendFlags,

    /// Flags from a file, TOML or flat JSON; typed flags win over it
    #[arg(long, value_name = "FILE", value_parser = path, help_heading = "Presets and checks")]
    pub(crate) config: Option<PathBuf>,
    /// A preset: abc, chords, novels, concordance, chat, `fine_corpus`
    #[arg(long, value_name = "NAME", value_parser = named::<String>(DOMAINS), hide_possible_values = true,
          help_heading = "Presets and checks")]
    pub(crate) domain: Option<String>,
    /// Make warnings of the planning check fatal
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Presets and checks")]
    pub(crate) strict_planning: bool,
    /// Begin although less memory is free than the run is predicted to take
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Presets and checks")]
    pub(crate) ignore_memory_check: bool,
    /// With `--resume`: go on although the data is not what the run began with
    #[arg(long, action = ArgAction::Set, default_value = "false", help_heading = "Presets and checks")]
    pub(crate) allow_data_change: bool,
}

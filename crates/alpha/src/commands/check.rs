//! `alpha check`: gradients against finite differences and the reference, on this machine,
//! for a model of this shape.

use std::{fmt::Write, path::PathBuf};

use alpha_nn::{FeedForward, ModelConfig};
use alpha_train::{checkpoint, inspect::gradcheck, trainer};
use clap::Args;

use super::model::{choose_backend, open_backend};
use crate::{
    exit::Failure,
    flags::{
        train::{BackendFlags, ShapeFlags},
        value::{count, path, size},
    },
    output,
    resolve::in_range,
};

/// The flags of `alpha check`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct Flags {
    /// Check a model with this folder's shape and weights instead of random ones
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Sequences in the batch
    #[arg(long, value_name = "N", value_parser = size, default_value = "2")]
    pub(crate) batch: usize,
    /// Vocabulary
    #[arg(long, value_name = "N", value_parser = size, default_value = "96")]
    pub(crate) vocab_size: usize,
    /// Seed of weights and tokens
    #[arg(long, value_name = "N", value_parser = count, default_value = "42")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) shape: ShapeFlags,
    #[command(flatten)]
    pub(crate) backend: BackendFlags,
}

/// Checks the flags and the gradients.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    if !flags.shape.dim.is_multiple_of(flags.shape.heads) {
        return Err(Failure::usage(format!(
            "`--dim={}` is not divisible by `--heads={}`",
            flags.shape.dim, flags.shape.heads
        ))
        .hint("`--heads=1` divides every width"));
    }
    in_range("dropout", flags.shape.dropout, 0.0..1.0, "at least 0 and below 1")?;
    let choice = choose_backend(&flags.backend)?;
    let config = match &flags.checkpoint {
        Some(folder) => checkpoint::read_config(folder)?,
        None => random_model(flags),
    };
    let mut backend = open_backend(&choice)?;
    let checks = gradcheck::check(&mut *backend, &config, flags.batch, flags.seed, |backend, layout| {
        if let Some(folder) = &flags.checkpoint {
            checkpoint::load_finite_params(folder, layout, backend)
        } else {
            trainer::initialise(layout, flags.seed, backend)
        }
    })?;
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  {:>10}  {:>10}\n", "gradient", choice.backend.name(), "slope");
    for check in &checks {
        let verdict = if check.is_ok() { "" } else { "  FAILED" };
        let _ = writeln!(
            text,
            "{:width$}  {:10.1e}  {:10.1e}{verdict}",
            check.name, check.backend_error, check.slope_error
        );
    }
    output::print(&text)?;
    let failed = checks.iter().filter(|check| !check.is_ok()).count();
    if failed > 0 {
        return Err(Failure::failed(format!(
            "{failed} of {} gradients are off (allowed: {:e} against the reference, {:e} for slopes)",
            checks.len(),
            gradcheck::BACKEND_TOLERANCE,
            gradcheck::SLOPE_TOLERANCE
        )));
    }
    output::note(&format!("{} gradients agree with the f64 reference and with finite differences", checks.len()));
    Ok(())
}

fn random_model(flags: &Flags) -> ModelConfig {
    let shape = &flags.shape;
    let feed_forward = FeedForward::from_name(&shape.activation).expect("the parser takes only known names");
    ModelConfig {
        layers: shape.layers,
        dim: shape.dim,
        heads: shape.heads,
        block: shape.block,
        vocab: flags.vocab_size,
        ffn_dim: shape.ffn_dim.unwrap_or_else(|| feed_forward.default_ffn_dim(shape.dim)),
        feed_forward,
        is_tied: shape.tie,
        has_bias: shape.bias,
        dropout: shape.dropout as f32,
        layer_norm_eps: 1e-5,
    }
}

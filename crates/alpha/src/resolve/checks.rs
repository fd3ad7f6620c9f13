//! Checks of flags that need nothing else. Every message names the flag, the value and
//! the values that are possible.

use std::ops::RangeBounds;

use alpha_data::Kind;
use alpha_train::config::{Backend, Dtype};

use crate::{exit::Failure, flags::train::TrainFlags};

/// Checks ranges and combinations.
pub(crate) fn check(flags: &TrainFlags) -> Result<(), Failure> {
    if flags.data.as_ref().is_none_or(String::is_empty) {
        return Err(Failure::usage("`--data` is missing")
            .hint("name what to train on, a file, a folder or a glob: `--data=data/abc-small.txt`"));
    }
    if flags.remote {
        return Err(Failure::usage("`--remote=true`: remote reporting does not exist yet")
            .hint("leave `--remote` out; each step is a row in the run folder's `metrics.jsonl`"));
    }
    if let Some(tokenizer) = &flags.tokenizer {
        tokenizer.parse::<Kind>()?;
    }
    shape(flags)?;
    in_range("lr", flags.lr, 0.0.., "at least 0")?;
    if let Some(lr_min) = flags.lr_min {
        in_range("lrMin", lr_min, 0.0.., "at least 0")?;
        if lr_min > flags.lr {
            return Err(Failure::usage(format!("`--lrMin={lr_min}` is above `--lr={}`", flags.lr))
                .hint("the rate rises from lrMin to lr and falls back: give lrMin at most lr"));
        }
    }
    in_range("beta1", flags.beta1, 0.0..1.0, "at least 0 and below 1")?;
    in_range("beta2", flags.beta2, 0.0..1.0, "at least 0 and below 1")?;
    in_range("eps", flags.eps, f64::from(f32::MIN_POSITIVE).., "above 0")?;
    in_range("weightDecay", flags.weight_decay, 0.0.., "at least 0")?;
    in_range("gradClip", flags.grad_clip, 0.0.., "at least 0, which is off")?;
    in_range("spikeThreshold", flags.spike_threshold, 0.0.., "at least 0, which is off")?;
    if flags.eval_iters > MAX_EVAL_ITERS {
        return Err(Failure::usage(format!("`--evalIters={}` is too large", flags.eval_iters))
            .hint(format!("at most {MAX_EVAL_ITERS}; `alpha eval` goes over a whole set")));
    }
    Ok(())
}

/// Checks that the backend has the number format, and that 16-bit kernels can take the shape's rows.
pub(crate) fn dtype(flags: &TrainFlags, backend: Backend) -> Result<(), Failure> {
    let dtype = flags.dtype;
    if dtype == Dtype::F32 {
        return Ok(());
    }
    if backend != Backend::Helios {
        return Err(Failure::usage(format!("`--dtype={dtype}`: `{backend}` has neither bf16 nor f16 yet"))
            .hint("run with `--dtype=f32`, or on a GPU with `--backend=helios`"));
    }
    let shape = &flags.shape;
    let head_dim = shape.dim / shape.heads;
    if !head_dim.is_multiple_of(GROUP_16) {
        return Err(Failure::usage(format!(
            "`--dtype={dtype}` with `--dim={}` and `--heads={}`: heads have {head_dim} columns",
            shape.dim, shape.heads
        ))
        .hint(format!("in 16 bits they must be a multiple of {GROUP_16}")));
    }
    if let Some(ffn_dim) = shape.ffn_dim.filter(|ffn_dim| !ffn_dim.is_multiple_of(GROUP_16)) {
        return Err(Failure::usage(format!("`--dtype={dtype}` with `--ffnDim={ffn_dim}`"))
            .hint(format!("in 16 bits it must be a multiple of {GROUP_16}")));
    }
    Ok(())
}

/// Numbers of 16 bits that a kernel reads at a time.
const GROUP_16: usize = 4;

/// Checks that a number is finite and in a range, in single precision too. `words` describes the range.
pub(crate) fn in_range(name: &str, value: f64, range: impl RangeBounds<f64>, words: &str) -> Result<(), Failure> {
    if !value.is_finite() {
        return Err(Failure::usage(format!("`--{name}={value}` is not finite")).hint(format!("a number {words}")));
    }
    if !(value as f32).is_finite() {
        return Err(Failure::usage(format!("`--{name}={value:e}` is not finite in single precision"))
            .hint(format!("a number {words}, and at most {:e}", f32::MAX)));
    }
    if !range.contains(&value) {
        return Err(Failure::usage(format!("`--{name}={value}` is out of range")).hint(format!("a number {words}")));
    }
    let rounded = f64::from(value as f32);
    if rounded == 0.0 && value != 0.0 {
        return Err(Failure::usage(format!("`--{name}={value:e}` is 0 in single precision"))
            .hint(format!("a number {words}; the smallest above 0 is {:e}", f32::from_bits(1))));
    }
    if !range.contains(&rounded) {
        return Err(Failure::usage(format!("`--{name}={value}` is {rounded} in single precision"))
            .hint(format!("a number {words} after rounding")));
    }
    Ok(())
}

/// Batches that an evaluation may have.
const MAX_EVAL_ITERS: usize = 1_000_000;

/// Elements that a tensor may have: positions in it are 32-bit numbers in some kernels.
pub(crate) const MAX_ELEMENTS: usize = u32::MAX as usize;

fn shape(flags: &TrainFlags) -> Result<(), Failure> {
    let shape = &flags.shape;
    if !shape.dim.is_multiple_of(shape.heads) {
        return Err(Failure::usage(format!("`--dim={}` is not divisible by `--heads={}`", shape.dim, shape.heads))
            .hint(heads_hint(shape.dim, shape.heads)));
    }
    in_range("dropout", shape.dropout, 0.0..1.0, "at least 0 and below 1")?;
    let fits = |factors: &[usize]| {
        factors
            .iter()
            .try_fold(1usize, |product, &factor| product.checked_mul(factor))
            .is_some_and(|n| n <= MAX_ELEMENTS)
    };
    let ffn_dim = shape.ffn_dim.unwrap_or(shape.dim.saturating_mul(4));
    for (names, factors) in [
        ("--batch × --accumSteps × --block", [flags.batch, flags.accum_steps, shape.block]),
        ("--batch × --block × --dim", [flags.batch, shape.block, shape.dim]),
        ("--batch × --block × --heads", [flags.batch, shape.block, shape.heads]),
        ("--batch × --block × --ffnDim", [flags.batch, shape.block, ffn_dim]),
        ("--dim × --dim × 3", [shape.dim, shape.dim, 3]),
        ("--dim × --ffnDim × 2", [shape.dim, ffn_dim, 2]),
        ("--block × --dim × --layers", [shape.block, shape.dim, shape.layers]),
    ] {
        if !fits(&factors) {
            let [a, b, c] = factors;
            return Err(Failure::usage(format!("`{names}` = {a} × {b} × {c} is too large"))
                .hint(format!("keep the product at or below {MAX_ELEMENTS}")));
        }
    }
    if flags.vocab_size.is_some_and(|vocab| !fits(&[vocab, shape.dim])) {
        return Err(Failure::usage(format!(
            "`--vocabSize × --dim` = {} × {} is too large",
            flags.vocab_size.unwrap_or_default(),
            shape.dim
        ))
        .hint(format!("keep the product at or below {MAX_ELEMENTS}")));
    }
    Ok(())
}

/// The nearest numbers of heads that divide the width.
fn heads_hint(dim: usize, heads: usize) -> String {
    let below = (1..=heads.min(dim)).rev().find(|&heads| dim.is_multiple_of(heads));
    let above = (heads..=dim.min(heads.saturating_mul(8))).find(|&heads| dim.is_multiple_of(heads));
    match (below, above) {
        (Some(below), Some(above)) => format!("`--heads={below}` and `--heads={above}` divide it"),
        (Some(only), None) | (None, Some(only)) => format!("`--heads={only}` divides it"),
        (None, None) => "`--heads=1` divides every width".to_owned(),
    }
}

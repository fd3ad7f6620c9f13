//! From flags to a [`TrainConfig`]: typed flag > `--config` file > stored configuration of a
//! resumed run > `--domain` preset > default, then what depends on other flags, then checks.
//!
//! With `--init`, the folder's shape replaces preset and default: a shape flag that was given
//! must agree with it. With `--resume`, flags that were given must equal those that are stored.

mod backend;
mod checks;
mod stored;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use alpha_nn::{FeedForward, ModelConfig};
use alpha_train::{
    config::{Dtype, Resume, TrainConfig, backend::BackendChoice},
    files,
};
use serde_json::{Map, Value};

pub(crate) use self::{
    backend::choose_backend,
    checks::{MAX_ELEMENTS, in_range},
};
use crate::{
    config_file, domains,
    exit::Failure,
    flags::{layer::Layer, train::TrainFlags},
};

/// A run folder's `config.json`: flags by name, beside records of the run.
pub(crate) type Stored = Map<String, Value>;

/// Functions by which folders are read.
#[derive(Clone, Copy)]
pub(crate) struct Folders {
    /// The stored configuration of a run folder; `None` where it has no checkpoint to resume from.
    pub(crate) stored_config: fn(run_dir: &Path) -> Result<Option<Stored>, Failure>,
    /// The shape of a folder in Hugging Face layout.
    pub(crate) init_shape: fn(init: &Path) -> Result<ModelConfig, Failure>,
}

/// A configuration, and notes on it.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The configuration.
    pub(crate) config: TrainConfig,
    /// Lines for stderr.
    pub(crate) notes: Vec<String>,
}

/// Resolves what was typed.
pub(crate) fn resolve(typed: &Layer, folders: Folders) -> Result<Resolved, Failure> {
    let given = match typed.get("config") {
        Some(file) => config_file::read(Path::new(file))?.under(typed),
        None => typed.clone(),
    };
    let resume = resume(&given)?;
    let stored = match &resume {
        Some(resume) => stored_config(resume, &given, folders)?,
        None => None,
    };
    let stored_layer = stored.as_ref().map(stored::layer).transpose()?.unwrap_or_default();
    let below = stored_layer.under(&given);
    let preset = below.get("domain").map(domains::preset).unwrap_or_default();
    let mut flags = preset.under(&below).parse()?;

    let mut notes = Vec::new();
    if flags.fp16 {
        notes.push("note: `--fp16=true` is an alias of `--dtype=f16`".to_owned());
        flags.dtype = Dtype::F16;
    }
    if let (Some(init), None) = (flags.init.clone(), &stored) {
        let shape = (folders.init_shape)(&init)?;
        take_shape(&mut flags, &given, &shape, &init)?;
    }
    let mut chosen = None;
    if let Some(stored) = &stored {
        // 0 stands for the warm-up that the run began with: its number of steps may have been another.
        if flags.warmup_iters == 0 {
            flags.warmup_iters = stored.get("warmupIters").and_then(Value::as_i64).unwrap_or(0);
        }
        // Before the checks of combinations: the user did not type the stored values.
        let (choice, _) = chosen.insert(choose_backend(&flags.backend, flags.dtype)?);
        stored::check_equal(&configuration(flags.clone(), None, choice), stored, &given)?;
    }
    if let (Some(Resume::Auto), None) = (&resume, &stored) {
        let dir = flags.run_dir.as_deref().unwrap_or(Path::new("")).display();
        notes.push(format!("resume: no checkpoint in `{dir}`, starting at step 1"));
    }
    checks::check(&flags).map_err(|failure| with_notes(failure, &mut notes))?;
    let (choice, notes_of_choice) = match chosen {
        Some(chosen) => chosen,
        None => choose_backend(&flags.backend, flags.dtype)?,
    };
    checks::dtype(&flags, choice.backend).map_err(|failure| with_notes(failure, &mut notes))?;
    notes.extend(notes_of_choice);
    Ok(Resolved { config: configuration(flags, resume, &choice), notes })
}

/// A failure, after the notes that would have come before it.
fn with_notes(failure: Failure, notes: &mut Vec<String>) -> Failure {
    notes.drain(..).for_each(|note| crate::output::note(&note));
    failure
}

fn resume(given: &Layer) -> Result<Option<Resume>, Failure> {
    match given.get("resume") {
        None => Ok(None),
        Some("") => Err(Failure::usage("`--resume` is empty").hint("`--resume=auto`, or the folder of a checkpoint")),
        Some("auto") if !given.has("runDir") => Err(Failure::usage("`--resume=auto` without `--runDir`")
            .hint("name the run folder whose newest checkpoint is to be resumed: `--runDir=DIR`")),
        Some("auto") => Ok(Some(Resume::Auto)),
        Some(checkpoint) => Ok(Some(Resume::From(PathBuf::from(checkpoint)))),
    }
}

/// The configuration stored by the run that is resumed.
fn stored_config(resume: &Resume, given: &Layer, folders: Folders) -> Result<Option<Stored>, Failure> {
    match resume {
        Resume::Auto => (folders.stored_config)(Path::new(given.get("runDir").unwrap_or_default())),
        Resume::From(checkpoint) => {
            let run_dir = files::parent(checkpoint);
            let stored = (folders.stored_config)(run_dir)?;
            let missing = || {
                let [checkpoint, run_dir] = [checkpoint.display(), run_dir.display()];
                Failure::failed(format!("`--resume={checkpoint}`: no run with checkpoints in `{run_dir}`"))
                    .hint("`--resume` takes a folder `checkpoint-<step>` inside a run folder, or `auto`")
            };
            stored.ok_or_else(missing).map(Some)
        }
    }
}

/// Takes the shape of `init`, unless a flag that was given says otherwise.
fn take_shape(flags: &mut TrainFlags, given: &Layer, shape: &ModelConfig, init: &Path) -> Result<(), Failure> {
    let differs = |name: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
        Failure::usage(format!("`--{name}={found}`, but `{}` has {expected}", init.display()))
            .hint(format!("leave `--{name}` out: `--init` brings its own shape"))
    };
    macro_rules! take {
        ($name:literal, $flag:expr, $value:expr) => {{
            let value = $value;
            if given.has($name) && $flag != value {
                return Err(differs($name, &$flag, &value));
            }
            $flag = value;
        }};
    }
    if !given.has("tokenizer") {
        flags.tokenizer = None; // the weights do not belong to a preset's tokenizer
    }
    take!("layers", flags.shape.layers, shape.layers);
    take!("dim", flags.shape.dim, shape.dim);
    take!("heads", flags.shape.heads, shape.heads);
    take!("activation", flags.shape.activation, shape.feed_forward.name().to_owned());
    take!("tie", flags.shape.tie, shape.is_tied);
    take!("bias", flags.shape.bias, shape.has_bias);
    if let Some(ffn_dim) = flags.shape.ffn_dim.filter(|&ffn_dim| given.has("ffnDim") && ffn_dim != shape.ffn_dim) {
        return Err(differs("ffnDim", &ffn_dim, &shape.ffn_dim));
    }
    flags.shape.ffn_dim = Some(shape.ffn_dim);
    if let Some(vocab) = flags.vocab_size.filter(|&vocab| vocab != shape.vocab) {
        return Err(differs("vocabSize", &vocab, &shape.vocab));
    }
    if !given.has("block") {
        flags.shape.block = shape.block;
    } else if flags.shape.block > shape.block {
        return Err(Failure::usage(format!(
            "`--block={}`, but `{}` has {} positions",
            flags.shape.block,
            init.display(),
            shape.block
        ))
        .hint(format!("`--block={}` or less", shape.block)));
    }
    Ok(())
}

fn configuration(flags: TrainFlags, resume: Option<Resume>, choice: &BackendChoice) -> TrainConfig {
    let shape = flags.shape;
    let activation = FeedForward::from_name(&shape.activation).expect("the parser takes only known names");
    let run_dir = match &resume {
        Some(Resume::From(checkpoint)) => flags.run_dir.or_else(|| Some(files::parent(checkpoint).to_owned())),
        _ => flags.run_dir,
    };
    let sample_prompts =
        if flags.sample_prompts.is_empty() { domains::prompts(flags.domain.as_deref()) } else { flags.sample_prompts };
    TrainConfig {
        data: flags.data.unwrap_or_default(),
        val_data: flags.val_data,
        domain: flags.domain,
        backend: choice.backend,
        threads: choice.threads,
        device: choice.device.clone(),
        matmul: choice.matmul,
        steps: flags.steps,
        batch: flags.batch,
        accum_steps: flags.accum_steps,
        block: shape.block,
        layers: shape.layers,
        dim: shape.dim,
        heads: shape.heads,
        dropout: shape.dropout,
        activation,
        ffn_dim: shape.ffn_dim.unwrap_or_else(|| activation.default_ffn_dim(shape.dim)),
        tie: shape.tie,
        bias: shape.bias,
        tokenizer: flags.tokenizer,
        vocab_size: flags.vocab_size,
        tokenizer_artifacts: flags.tokenizer_artifacts,
        optim: flags.optim,
        lr: flags.lr,
        lr_min: flags.lr_min.unwrap_or(flags.lr / 10.0),
        warmup_iters: warmup_iters(flags.warmup_iters, flags.steps),
        schedule: flags.schedule,
        beta1: flags.beta1,
        beta2: flags.beta2,
        eps: flags.eps,
        weight_decay: flags.weight_decay,
        grad_clip: flags.grad_clip,
        eval_interval: flags.eval_interval,
        eval_iters: flags.eval_iters,
        sample_interval: flags.sample_interval,
        post_samples: flags.post_samples,
        sample_prompts,
        spike_threshold: flags.spike_threshold,
        on_nonfinite: flags.on_nonfinite,
        seed: flags.seed,
        log_every: flags.log_every,
        trace: flags.trace,
        dtype: choice.dtype,
        token_dtype: flags.token_dtype,
        packed: flags.packed,
        checkpoint: flags.checkpoint,
        resume,
        init: flags.init,
        keep_checkpoints: flags.keep_checkpoints,
        remote: flags.remote,
        run_dir,
        strict_planning: flags.strict_planning,
        ignore_memory_check: flags.ignore_memory_check,
        allow_data_change: flags.allow_data_change,
    }
}

/// Steps of warm-up, -1 for none. A resumed run has the number that it began with.
fn warmup_iters(asked: i64, steps: u64) -> i64 {
    match asked {
        0 => match 2000.min(steps / 5) as i64 {
            0 => -1,
            warmup => warmup,
        },
        ..0 => -1,
        _ => asked,
    }
}

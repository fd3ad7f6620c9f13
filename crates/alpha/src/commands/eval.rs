//! `alpha eval`: loss, perplexity and bits per byte of a model on data.

use std::path::{Path, PathBuf};

use alpha_data::{Cache, DataOptions, Dataset, Kind, TokenReader, TokenStream, Tokenizer, Windows, Work};
use alpha_train::{
    TrainError, checkpoint,
    config::TokenDtype,
    evaluate::{EvaluateOptions, evaluate_stream},
};
use clap::Args;

use super::model::{Model, choose_backend, open_backend};
use crate::{
    exit::Failure,
    flags::{
        train::BackendFlags,
        value::{count, named, path, size},
    },
    output,
    progress::Progress,
    resolve::MAX_ELEMENTS,
};

/// Names that `--split` takes.
pub(crate) const SPLITS: &[&str] = &["all", "train", "val"];

/// The flags of `alpha eval`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct Flags {
    /// Folder of the model: a checkpoint, or any in Hugging Face layout
    #[arg(long, value_name = "DIR", value_parser = path)]
    pub(crate) checkpoint: PathBuf,
    /// Text, jsonl or token shards: a file, a folder or a glob
    #[arg(long, value_name = "PATH")]
    pub(crate) data: String,
    /// All of the data, or one side of the split that `alpha train` makes
    #[arg(long, value_name = "PART", value_parser = named::<String>(SPLITS), default_value = "all")]
    pub(crate) split: String,
    /// A fixed, seeded part of about this many tokens [default: everything]
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) max_tokens: Option<usize>,
    /// Width of tokens in shards without header
    #[arg(long, value_name = "TYPE", value_parser = named::<TokenDtype>(TokenDtype::NAMES))]
    pub(crate) token_dtype: Option<TokenDtype>,
    /// Sequences in a batch
    #[arg(long, value_name = "N", value_parser = size, default_value = "8")]
    pub(crate) batch: usize,
    /// Seed of the part
    #[arg(long, value_name = "N", value_parser = count, default_value = "1")]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long, action = clap::ArgAction::Set, default_value = "false")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) backend: BackendFlags,
}

/// Checks the flags and evaluates.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    if flags.data.is_empty() {
        return Err(Failure::usage("`--data` is empty").hint("name a file, a folder or a glob"));
    }
    let choice = choose_backend(&flags.backend)?;
    let model = Model::open(&flags.checkpoint)?;
    let cache = Cache::from_environment();
    let progress = Progress::new(0);
    progress.watch();
    let work = Work { cache: &cache, threads: choice.threads, progress: &progress };
    let mut warnings = Vec::new();
    let stream = open_data(flags, &model, &work, &mut warnings)?;
    for warning in warnings {
        progress.note(&format!("warning: {warning}"));
    }
    let row = model.config.block.saturating_mul(model.config.ffn_dim.max(3 * model.config.dim));
    if flags.batch.saturating_mul(row) > MAX_ELEMENTS {
        return Err(Failure::usage(format!("`--batch={}` is too large for this model", flags.batch))
            .hint(format!("at most {}", (MAX_ELEMENTS / row).max(1))));
    }
    let mut backend = open_backend(&choice)?;
    let part = flags.max_tokens.map(|max_tokens| (max_tokens, flags.seed));
    let Model { config, layout, tokenizer } = &model;
    let options = EvaluateOptions { config, layout, batch: flags.batch, part, progress: &progress };
    let (evaluation, windows) = evaluate_stream(&mut *backend, &stream, options, |backend| {
        checkpoint::load_finite_params(&flags.checkpoint, layout, backend)
    })?;
    if !evaluation.loss.is_finite() {
        return Err(TrainError::NonfiniteLoss { loss: evaluation.loss }.into());
    }
    let bits_per_byte = match tokenizer {
        Some(tokenizer) => {
            let bytes = predicted_bytes(tokenizer, &stream, config.block, &windows)?;
            Some(evaluation.loss / std::f64::consts::LN_2 * evaluation.tokens as f64 / bytes as f64)
        }
        None => None,
    };
    progress.finish();
    let (loss, perplexity, tokens) = (evaluation.loss, evaluation.loss.exp(), evaluation.tokens);
    let text = if flags.json {
        let object = serde_json::json!({
            "loss": loss, "perplexity": perplexity, "bitsPerByte": bits_per_byte, "tokens": tokens,
        });
        format!("{object}\n")
    } else {
        let bits = bits_per_byte.map_or("unknown (no tokenizer)".to_owned(), |bits| format!("{bits:.4}"));
        format!("loss={loss:.4} perplexity={perplexity:.3} bits_per_byte={bits} tokens={tokens}\n")
    };
    output::print(&text)?;
    Ok(())
}

/// The tokens that are evaluated: all of the data, or a side of the split.
fn open_data(
    flags: &Flags,
    model: &Model,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<TokenStream, Failure> {
    let token_dtype = flags.token_dtype.map(Into::into);
    let tokenizer = model.tokenizer.as_ref();
    if flags.split == "all" {
        let reader = TokenReader { token_dtype, tokenizer, vocab: model.config.vocab };
        return Ok(reader.open(&flags.data, work, warnings)?);
    }
    let options = DataOptions {
        data: flags.data.clone(),
        token_dtype,
        tokenizer: tokenizer.map(|_| Kind::File(flags.checkpoint.join("tokenizer.json"))),
        model_vocab: Some(model.config.vocab),
        block: model.config.block,
        ..DataOptions::default()
    };
    let data = Dataset::open(&options, work)?;
    warnings.extend(data.warnings);
    check_split(&flags.checkpoint, &data.identity.data, data.train.len())?;
    Ok(if flags.split == "val" { data.val } else { data.train })
}

/// Refuses a split whose validation part may have been trained on: a run with `--valData` trains on all of its data.
fn check_split(checkpoint: &Path, data: &str, train_tokens: u64) -> Result<(), Failure> {
    // Models of other programs, and checkpoints of earlier versions, know nothing of data.
    if !checkpoint::has_training_state(checkpoint) {
        return Ok(());
    }
    let Some(began) = checkpoint::read_training_state(checkpoint)?.data else { return Ok(()) };
    if began.identity.data != data || began.train_tokens == train_tokens {
        return Ok(());
    }
    let (trained, split) = (began.train_tokens, train_tokens);
    let all = format!("the run that made it trained on {trained} tokens of this data, and the split has {split}");
    Err(Failure::failed(format!("`--split`: {all}"))
        .hint("the run held nothing back: evaluate its `--valData` with `--split=all`"))
}

/// Bytes of text that the predicted tokens of these windows decode to.
fn predicted_bytes(tokenizer: &Tokenizer, stream: &TokenStream, block: usize, windows: &[u64]) -> Result<u64, Failure> {
    let all = Windows::new(stream, block)?;
    let (mut tokens, mut targets) = (vec![0; block], vec![0; block]);
    let mut bytes = 0;
    for &window in windows {
        let predicted = all.fill(window, &mut tokens, &mut targets)?;
        bytes += tokenizer.text_bytes(&tokens[..1], &targets[..predicted])?;
    }
    Ok(bytes)
}

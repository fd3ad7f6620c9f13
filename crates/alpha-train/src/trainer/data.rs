//! The data of a run: opened, and compared with what a resumed run began with.

use std::{
    env,
    path::{Path, PathBuf},
};

use alpha_data::{BatchShape, Cache, DataOptions, Dataset, EvalLoader, TrainLoader, ValSource, Work, is_there};

use super::origin::Origin;
use crate::{
    TrainError,
    checkpoint::DataRecord,
    config::{Resume, TrainConfig},
    evaluate::Validator,
    host::Host,
    run_dir,
};

/// Data that is there and is the run's.
pub(super) struct RunData {
    pub(super) dataset: Dataset,
    /// What a checkpoint says of it.
    pub(super) record: DataRecord,
    /// Whether a resumed run validates on other data than before.
    pub(super) is_other_validation: bool,
    /// Files and folders that the run reads.
    pub(super) in_use: Vec<PathBuf>,
}

impl RunData {
    /// Opens the data of a run, and checks it and the tokenizer against what the run begins with.
    pub(super) fn open(
        config: &TrainConfig,
        origin: &Origin<'_>,
        model_vocab: Option<usize>,
        host: &mut Host<'_>,
    ) -> Result<RunData, TrainError> {
        let cache = Cache::from_environment();
        let work = Work { cache: &cache, threads: config.threads, progress: host.progress };
        let began_in = origin.data.as_ref().map(|record| record.folder.as_path());
        let options = options(config, origin, model_vocab, began_in)?;
        let dataset = Dataset::open(&options, &work)?;
        for warning in &dataset.warnings {
            host.sink.note(&format!("warning: {warning}"));
        }
        let in_use = [in_use(config), dataset.files.clone()].concat();
        run_dir::check_is_read_elsewhere(&origin.run_path, &in_use)?;
        origin.check_tokenizer(dataset.tokenizer.as_ref())?;
        let record = record(&dataset, began_in.filter(|_| options.data != config.data))?;
        let is_other_validation = match &origin.data {
            Some(began_with) => check(began_with, &record, config.allow_data_change, host)?,
            None => false,
        };
        Ok(RunData { dataset, record, is_other_validation, in_use })
    }
}

/// What a run reads beside its data.
fn in_use(config: &TrainConfig) -> Vec<PathBuf> {
    // The name of a kind of tokenizer is taken for that of a file here, which does not exist.
    let tokenizer = config.tokenizer.as_ref().map(PathBuf::from);
    let resumed = match &config.resume {
        Some(Resume::From(folder)) => Some(folder.clone()),
        _ => None,
    };
    [config.init.clone(), tokenizer, config.tokenizer_artifacts.clone(), resumed].into_iter().flatten().collect()
}

/// The data flags, as the data crate takes them. A relative path that leads nowhere counts from the folder that the run
/// `began_in`.
fn options(
    config: &TrainConfig,
    origin: &Origin<'_>,
    model_vocab: Option<usize>,
    began_in: Option<&Path>,
) -> Result<DataOptions, TrainError> {
    let located = |data: &String| {
        let there = began_in.map(|folder| folder.join(data)).and_then(|path| path.to_str().map(str::to_owned));
        there.filter(|there| !is_there(data) && is_there(there)).unwrap_or_else(|| data.clone())
    };
    let lacks_tokenizer = origin.weights().filter(|folder| !folder.join("tokenizer.json").exists());
    Ok(DataOptions {
        data: located(&config.data),
        val_data: config.val_data.as_ref().map(located),
        token_dtype: config.token_dtype.map(Into::into),
        tokenizer: origin.tokenizer()?,
        tokenizer_artifacts: config.tokenizer_artifacts.clone(),
        vocab_size: config.vocab_size,
        model_vocab,
        lacks_tokenizer: lacks_tokenizer.map(Path::to_path_buf),
        block: config.block,
        packed: config.packed,
    })
}

/// What a checkpoint says of data that was found from `folder`, or from the current one.
fn record(data: &Dataset, folder: Option<&Path>) -> Result<DataRecord, TrainError> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => env::current_dir().map_err(|source| TrainError::io("read", ".".as_ref(), source))?,
    };
    Ok(DataRecord { identity: data.identity.clone(), train_tokens: data.train.len(), folder })
}

/// Compares the data that a run began with and the data that is there now. Training data must be the same unless a change
/// `is_allowed`; validation data may differ: returns whether it does.
fn check(began: &DataRecord, now: &DataRecord, is_allowed: bool, host: &mut Host<'_>) -> Result<bool, TrainError> {
    let what = if began.identity.data != now.identity.data {
        format!(
            "`--data` holds other content ({}, {} tokens to train on; it was {}, {} tokens)",
            short(&now.identity.data),
            now.train_tokens,
            short(&began.identity.data),
            began.train_tokens
        )
    } else if began.train_tokens != now.train_tokens {
        format!(
            "now {} of its tokens are trained on, and {} were before: with `--valData` no part of `--data` is held out",
            now.train_tokens, began.train_tokens
        )
    } else {
        let is_other = began.identity.val_data != now.identity.val_data;
        if is_other {
            host.sink
                .note("note: the validation data is not what it was: the best validation loss counts from here on");
        }
        return Ok(is_other);
    };
    if !is_allowed {
        return Err(TrainError::DataChanged { what });
    }
    host.sink.note(&format!("warning: the data is not what it was when the run began: {what}"));
    Ok(true)
}

/// Enough of a hash to tell two apart.
fn short(hash: &str) -> &str {
    &hash[..hash.len().min(12)]
}

/// The batches of a run.
pub(super) struct Loaders {
    pub(super) train: TrainLoader,
    pub(super) validator: Option<Validator>,
}

impl Loaders {
    pub(super) fn new(config: &TrainConfig, data: &Dataset, host: &mut Host<'_>) -> Result<Loaders, TrainError> {
        let shape = BatchShape { batch: config.batch, block: config.block };
        let read_at_a_time = if config.packed { shape.tokens() } else { shape.block } as u64 + 1;
        if let Some(warning) = data.train.too_short(read_at_a_time) {
            host.sink.note(&format!("warning: {warning}"));
        }
        let train = if config.packed {
            TrainLoader::packed(&data.train, shape, config.accum_steps as u32)?
        } else {
            TrainLoader::random(&data.train, shape, config.seed)?
        };
        let batches = config.eval_iters as u32;
        let validator = match data.val_source {
            _ if config.eval_interval == 0 || config.eval_iters == 0 => None,
            ValSource::Training => {
                let wanted = (config.eval_iters * shape.tokens()) as u64;
                let is_short = data.val.len() < wanted;
                host.sink.note(&format!(
                    "no `--valData` with `--packed`: evaluations read the first {} tokens of the training data{}",
                    data.val.len().min(wanted),
                    if is_short { ", which is all of it, repeatedly" } else { "" }
                ));
                Some(EvalLoader::packed(&data.val, shape, batches)?)
            }
            ValSource::Given | ValSource::Split => Some(EvalLoader::random(&data.val, shape, batches, config.seed)?),
        };
        Ok(Loaders { train, validator: validator.map(Validator::new) })
    }
}

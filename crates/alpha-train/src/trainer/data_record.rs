//! Whether a resumed run goes on with the data that it began with.

use std::{env, path::Path};

use alpha_data::Dataset;

use crate::{TrainError, checkpoint::DataRecord, host::Host};

/// What is kept of a run's data, which was found from `folder`, or from the current one.
pub(super) fn of(data: &Dataset, folder: Option<&Path>) -> Result<DataRecord, TrainError> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => env::current_dir().map_err(|source| TrainError::io("read", ".".as_ref(), source))?,
    };
    Ok(DataRecord { identity: data.identity.clone(), train_tokens: data.train.len(), folder })
}

/// Compares what a run began with and what is there. Returns whether it validates on other data, which is allowed; `began` is
/// what counts for what is trained on, unless a change `is_allowed`.
///
/// # Errors
/// [`TrainError::DataChanged`].
pub(super) fn check(
    began: &DataRecord,
    now: &DataRecord,
    is_allowed: bool,
    host: &mut Host<'_>,
) -> Result<bool, TrainError> {
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

//! Known trainers.

use super::Draft;
use crate::{LoopError, git::Repository};

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    std::iter::empty()
}

pub(super) fn describe(_repository: &Repository, _preset: Option<&str>) -> Result<Option<Draft>, LoopError> {
    Ok(None)
}

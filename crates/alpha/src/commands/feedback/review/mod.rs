//! The commands that look back: at claims, at the commits that made them, and at benchmarks.

pub(super) mod audit;
pub(super) mod bisect;
pub(super) mod history;
pub(super) mod import;
pub(super) mod record_benchmark;
pub(super) mod verify;

use super::{Context, Done, Versioned};

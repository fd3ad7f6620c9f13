//! One file for each command: its flags, its checks, and the call into the engine.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod datagen;
pub(crate) mod devices;
pub(crate) mod eval;
#[cfg(target_os = "linux")]
pub(crate) mod feedback;
#[cfg(not(target_os = "linux"))]
#[path = "no_feedback.rs"]
pub(crate) mod feedback;
mod model;
pub(crate) mod sample;
pub(crate) mod tokenizer;
pub(crate) mod train;

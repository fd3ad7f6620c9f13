//! Compares the speed of two commands so that the answer can be trusted.

pub mod arm;
pub mod draws;
pub mod error;
pub mod files;
pub mod folder_content;
pub mod pair;
pub mod process;
pub mod progress;
pub mod stats;
pub mod verdict;

pub use self::{arm::Arm, error::LoopError, progress::Watch};

//! What is asked of claims again: recomputed from their rows, measured, held against the best.

pub mod weakened;
pub mod recompute;
pub mod measure;
pub mod reference;
pub mod verify;
pub mod audit;
pub mod bisect;

//! Claims are checked again: recomputed from their rows, measured again, compared with the best accepted.

pub mod weakened;
pub mod recompute;
pub mod measure;
pub mod reference;
pub mod verify;
pub mod audit;
pub mod bisect;

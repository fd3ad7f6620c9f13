//! A model looked at without changing it: text from it, its gradients checked, and the first of its tensors that went bad.

pub mod gradcheck;
pub mod nonfinite;
pub mod sampler;

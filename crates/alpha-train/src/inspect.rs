//! What can be seen of a model without changing it: its text, whether its gradients are right, and its first bad tensor.

pub mod gradcheck;
pub mod nonfinite;
pub mod sampler;

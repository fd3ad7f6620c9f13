//! The operations of `alpha-tensor` on a GPU, through wgpu: Vulkan, Metal, DX12.
//!
//! [`HeliosBackend`] lowers each operation of a program into a few dispatches (`kernels/`), compiles their kernels,
//! binds them to windows of the regions, and stores the result as a plan (`recording.rs`). Running the program records
//! the plan and does not wait. The host waits only when it reads, or writes much.
//!
//! Nothing here falls back: if a device cannot do something, opening it or [`alpha_tensor::Backend::prepare`] is an
//! error.
//!
//! This crate knows nothing of models or of a run's files.

mod format16;
mod kernels;
mod device;
mod recording;
mod backend;
mod open;
mod peaks;
#[cfg(test)]
mod shader_tests;

pub use self::{
    backend::HeliosBackend,
    device::{
        DeviceChoice, DeviceInfo, DeviceKind, HeliosError, Options,
        cache::{BlobStore, StoreError},
        devices, find,
    },
    format16::Format16,
    kernels::{Variant, VariantError},
    open::tuning::{Kernels, stored_kernels},
    peaks::{DevicePeaks, peaks},
};

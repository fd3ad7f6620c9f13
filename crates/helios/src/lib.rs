//! The operations of `alpha-tensor` on a GPU, through wgpu: Vulkan, Metal, DX12.
//!
//! What happens to a program: [`HeliosBackend`] lowers each operation into a few dispatches (`kernels/`, one file for each
//! family, as in the CPU backends, beside the WGSL that it uses), makes their pipelines (`pipelines.rs`), binds
//! them to windows of the regions (`memory.rs`), and keeps the result as a plan (`recording.rs`). Running the program
//! records the plan and waits for nothing; the host waits only where it reads.
//!
//! Nothing here falls back: what a device cannot do is an error of [`alpha_tensor::Backend::prepare`] or of opening it.
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

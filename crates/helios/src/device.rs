//! Which devices there are, choosing one, and opening it.

mod error;
mod info;
mod choice;
mod gpu;
pub(crate) mod cache;
pub(crate) mod profile;

pub use self::{
    choice::{DeviceChoice, find},
    error::HeliosError,
    gpu::Options,
    info::{DeviceInfo, DeviceKind, devices},
};
pub(crate) use self::{gpu::Gpu, info::IMMEDIATE_BYTES};

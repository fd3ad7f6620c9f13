//! What is kept from one start to the next for a device and its driver: compiled kernels, and that the self-test passed.
//! Where and how bytes are kept is the caller's; a name is a key, and an entry that does not fit is made again.

use alpha_tensor::BackendError;

use crate::{
    device::{DeviceInfo, Gpu},
    format16::Format16,
    kernels,
};

/// Keeps small entries by name. An entry comes back whole or not at all.
pub trait Keep {
    /// The bytes of an entry.
    fn read(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps an entry; the user sees the error's text as a warning.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;
}

/// Why an entry could not be kept.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Everything on which an entry depends, as a name: the device, its driver, and every kernel's source.
pub(crate) fn name(info: &DeviceInfo, what: &str) -> String {
    format!("helios {what}\n{}\n{}", info.fingerprint(), kernels::SOURCES.concat())
}

/// What the choice of kernels is kept as. Its number is another one where there are other candidates.
pub(crate) fn tuning(format: Option<Format16>) -> &'static str {
    match format {
        None => "kernels 2",
        Some(Format16::F16) => "kernels 2 f16",
        Some(Format16::Bf16) => "kernels 2 bf16",
    }
}

/// What the self-test's entry holds.
pub(crate) const PASSED: &[u8] = b"passed";

/// What the driver's cache is kept as.
pub(crate) const PIPELINES: &str = "pipelines";

/// The driver's cache of compiled kernels, filled from an earlier start where it is of the same driver.
pub(crate) fn pipeline_cache(gpu: &Gpu, keep: Option<&dyn Keep>) -> Option<wgpu::PipelineCache> {
    if !gpu.has(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let data = keep.and_then(|keep| keep.read(&name(&gpu.info, PIPELINES)));
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("helios"), data: data.as_deref(), fallback: true };
    // SAFETY: the data come from `PipelineCache::get_data` for this device and driver: both are in the entry's name, and an
    // entry comes back as it was written or not at all.
    Some(unsafe { gpu.device.create_pipeline_cache(&descriptor) })
}

/// A failure of the device while it was tested.
pub(crate) fn cannot_run(error: &BackendError) -> String {
    format!("its self-test could not run: {error}")
}

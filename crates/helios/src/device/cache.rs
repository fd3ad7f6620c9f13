//! What stays from one start to the next for a device and its driver: compiled kernels, the choice of kernels, and that
//! the self-test passed. The caller decides where the bytes lie. An entry that does not fit is made again.

use crate::{
    device::{DeviceInfo, Gpu},
    format16::Format16,
    kernels,
};

/// Stores small entries by name. An entry comes back whole or not at all.
pub trait BlobStore {
    /// The bytes of an entry.
    fn read(&self, name: &str) -> Option<Vec<u8>>;

    /// Stores an entry; the user sees the error's text as a warning.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;
}

/// Why an entry could not be stored.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// The name of an entry: what it holds, and all that it depends on, which is the device, its driver and every kernel's
/// source.
pub(crate) fn name(info: &DeviceInfo, what: &str) -> String {
    format!("helios {what}\n{}\n{}", info.fingerprint(), kernels::SOURCES.concat())
}

/// The choice of kernels. The number changes when the candidates do.
pub(crate) fn tuning(format: Option<Format16>) -> &'static str {
    match format {
        None => "kernels 2",
        Some(Format16::F16) => "kernels 2 f16",
        Some(Format16::Bf16) => "kernels 2 bf16",
    }
}

/// The content of the self-test's entry.
pub(crate) const PASSED: &[u8] = b"passed";

/// The driver's cache of compiled kernels.
pub(crate) const PIPELINES: &str = "pipelines";

/// The driver's cache of compiled kernels, filled from an earlier start with the same driver.
pub(crate) fn pipeline_cache(gpu: &Gpu, store: Option<&dyn BlobStore>) -> Option<wgpu::PipelineCache> {
    if !gpu.has(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let data = store.and_then(|store| store.read(&name(&gpu.info, PIPELINES)));
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("helios"), data: data.as_deref(), fallback: true };
    // SAFETY: the data come from `PipelineCache::get_data` for this device and driver: both are in the entry's name,
    // and an entry comes back as it was written or not at all.
    Some(unsafe { gpu.device.create_pipeline_cache(&descriptor) })
}

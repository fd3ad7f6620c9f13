//! The backend that a configuration names.

use alpha_data::Cache;
use alpha_tensor::{Backend, cpu::CpuBackend, cpu_ref::RefBackend};
use helios::{BlobStore, DeviceChoice, Format16, HeliosBackend, Options, StoreError, Variant};

use crate::{TrainError, config};

/// Where operations run, after `auto` was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendChoice {
    /// Never `auto`.
    pub backend: config::Backend,
    /// CPU threads.
    pub threads: usize,
    /// A GPU's number or a part of its name.
    pub device: Option<String>,
    /// The kernel of matrix products on a GPU; none: the quickest by measurement.
    pub matmul: Option<Variant>,
    /// The number format of a step's activations; only a GPU has a choice.
    pub dtype: config::Dtype,
}

impl BackendChoice {
    /// Where a run's operations run.
    pub fn of(config: &config::TrainConfig) -> BackendChoice {
        let config::TrainConfig { backend, threads, matmul, dtype, .. } = *config;
        BackendChoice { backend, threads, device: config.device.clone(), matmul, dtype }
    }
}

/// Makes a backend.
pub fn make_backend(choice: &BackendChoice) -> Result<Box<dyn Backend>, TrainError> {
    match choice.backend {
        config::Backend::CpuRef => Ok(Box::new(RefBackend::<f32>::default())),
        config::Backend::Auto | config::Backend::Cpu => Ok(Box::new(CpuBackend::new(choice.threads)?)),
        config::Backend::Helios => {
            let format16 = match choice.dtype {
                config::Dtype::F32 => None,
                config::Dtype::F16 => Some(Format16::F16),
                config::Dtype::Bf16 => Some(Format16::Bf16),
            };
            let device = choice.device.clone().map_or(DeviceChoice::Best, DeviceChoice::Named);
            let options = Options { choice: device, format16, matmul: choice.matmul, ..Options::default() };
            Ok(Box::new(HeliosBackend::open_tested(&options, Box::new(DeviceCache::from_environment()))?))
        }
    }
}

/// Keeps entries of devices in the folder in which data are cached.
pub struct DeviceCache(Cache);

impl DeviceCache {
    /// In the user's cache folder.
    pub fn from_environment() -> DeviceCache {
        DeviceCache(Cache::from_environment())
    }
}

impl BlobStore for DeviceCache {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.0.read_entry(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(self.0.write_entry(name, bytes)?)
    }
}

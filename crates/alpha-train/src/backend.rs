//! The backend that a configuration names.

use alpha_data::Cache;
use alpha_tensor::{Backend, cpu::CpuBackend, cpu_ref::RefBackend};
use helios::{DeviceChoice, Format16, HeliosBackend, Keep, Options};

use crate::{TrainError, config};

/// Makes a backend. `auto` is decided before: here it is the CPU. `device` is a GPU's number or a part of its name; `dtype`
/// what a step's activations are kept in, which only a GPU can choose.
pub fn make_backend(
    backend: config::Backend,
    threads: usize,
    device: Option<&str>,
    dtype: config::Dtype,
) -> Result<Box<dyn Backend>, TrainError> {
    match backend {
        config::Backend::CpuRef => Ok(Box::new(RefBackend::<f32>::default())),
        config::Backend::Auto | config::Backend::Cpu => Ok(Box::new(CpuBackend::new(threads)?)),
        config::Backend::Helios => {
            let choice = device.map_or(DeviceChoice::Best, |device| DeviceChoice::Named(device.to_owned()));
            let format16 = match dtype {
                config::Dtype::F32 => None,
                config::Dtype::F16 => Some(Format16::F16),
                config::Dtype::Bf16 => Some(Format16::Bf16),
            };
            let options = Options { choice, format16, ..Options::default() };
            Ok(Box::new(HeliosBackend::open_tested(&options, Box::new(InCache(Cache::from_environment())))?))
        }
    }
}

/// What a device keeps goes where data are cached.
struct InCache(Cache);

impl Keep for InCache {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.0.read_entry(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.0.write_entry(name, bytes)
    }
}

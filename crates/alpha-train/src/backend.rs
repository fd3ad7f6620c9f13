//! The backend that a configuration names.

use alpha_data::Cache;
use alpha_tensor::{Backend, cpu::CpuBackend, cpu_ref::RefBackend};
use helios::{DeviceChoice, HeliosBackend, Keep, Options};

use crate::{TrainError, config};

/// Makes a backend. `auto` is decided before: here it is the CPU. `device` is a GPU's number or a part of its name.
pub fn make_backend(
    backend: config::Backend,
    threads: usize,
    device: Option<&str>,
) -> Result<Box<dyn Backend>, TrainError> {
    match backend {
        config::Backend::CpuRef => Ok(Box::new(RefBackend::<f32>::default())),
        config::Backend::Auto | config::Backend::Cpu => Ok(Box::new(CpuBackend::new(threads)?)),
        config::Backend::Helios => {
            let choice = device.map_or(DeviceChoice::Best, |device| DeviceChoice::Named(device.to_owned()));
            let options = Options { choice, ..Options::default() };
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

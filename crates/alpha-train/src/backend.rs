//! The backend that a configuration names.

use alpha_tensor::{Backend, cpu::CpuBackend, cpu_ref::RefBackend};
use helios::{DeviceChoice, HeliosBackend, Options};

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
            Ok(Box::new(HeliosBackend::open(&Options { choice, ..Options::default() })?))
        }
    }
}

/// What is to be said about a backend's device before anything runs; nothing of the processor itself.
pub fn device_note(backend: &dyn Backend) -> Option<String> {
    let memory = backend.device_memory()?;
    let software = if memory.is_host { ": A SOFTWARE DEVICE, NOT A GPU; `--backend=cpu` is faster" } else { "" };
    Some(format!("backend: {} on `{}`{software}", backend.name(), memory.device))
}

//! An open device.
//!
//! Errors of the driver do not end the process. wgpu reports them to a callback; [`Gpu::check_fault`] returns the first
//! one, and every entry into the backend calls it.

use std::sync::{Arc, Mutex, PoisonError};

use alpha_tensor::BackendError;

use super::{
    DeviceChoice, DeviceInfo, DeviceKind, HeliosError,
    choice::choose,
    info::{MATRICES, REQUIRED, adapters, describe},
};
use crate::{format16::Format16, kernels::Variant};

/// Used if the device has them.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::PIPELINE_CACHE);

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The device.
    pub choice: DeviceChoice,
    /// Keep the shaders' bounds checks: slower, for tests of the kernels.
    pub checked: bool,
    /// The most bytes of a binding, if less than the device allows: for tests that cut tensors.
    pub max_binding_bytes: Option<u64>,
    /// Use the kernels of this kind of device: for tests of kernels that no software device would choose.
    pub kernels_for: Option<DeviceKind>,
    /// The variant of all matrix products, instead of the measured or suggested ones.
    pub matmul: Option<Variant>,
    /// The format of 16-bit activations. `None` if all programs are in f32.
    pub format16: Option<Format16>,
}

/// An open device.
pub(crate) struct Gpu {
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    pub(crate) checked: bool,
    fault: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    pub(crate) fn open(options: &Options) -> Result<Gpu, HeliosError> {
        let adapters = adapters();
        let found: Vec<DeviceInfo> =
            adapters.iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect();
        let index = choose(&found, &options.choice)?;
        let (adapter, info) = (&adapters[index], found[index].clone());
        info.can_run()?;
        let limits = adapter.limits();
        let mut required_features = REQUIRED | (adapter.features() & WANTED);
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.format16 == Some(Format16::F16) && info.matrix_size.is_some() {
            required_features |= MATRICES;
            // SAFETY: cooperative matrices are the only experimental feature that the kernels use, as naga's validation
            // allows them; the self-test checks what they compute on this device before anything else runs.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("helios"),
            required_features,
            required_limits: limits.clone(),
            experimental_features,
            // There are few buffers, one for each region. Large blocks for the small ones would be mostly empty.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| info.lacking(format!("it cannot be opened: {error}")))?;
        let fault = Arc::new(Mutex::new(None));
        let record = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = fault.clone();
            move |message: String| {
                fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
            }
        };
        let (on_error, on_loss) = (record(&fault), record(&fault));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| on_error(error.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            on_loss(format!("the device was lost ({reason:?}): {message}"));
        });
        Ok(Gpu { info, device, queue, limits, checked: options.checked, fault })
    }

    /// A buffer of the device, zeroed.
    pub(crate) fn buffer(&self, label: &'static str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.device.create_buffer(&descriptor)
    }

    /// The first error since the device was opened. It stays: a lost device stays lost.
    pub(crate) fn check_fault(&self) -> Result<(), BackendError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map_or(Ok(()), |why| Err(self.failed(why.clone())))
    }

    pub(crate) fn failed(&self, why: String) -> BackendError {
        BackendError::DeviceFailed { device: self.info.name.clone(), why }
    }

    /// Whether workgroups run one after another on the processor. No memory is nearer than its caches then.
    pub(crate) fn is_software(&self) -> bool {
        self.info.kind == DeviceKind::Software
    }

    /// Rows and columns of the cooperative matrices that the device was opened with.
    pub(crate) fn matrix_size(&self) -> Option<u32> {
        self.info.matrix_size.filter(|_| self.has(MATRICES))
    }

    pub(crate) fn has(&self, feature: wgpu::Features) -> bool {
        self.device.features().contains(feature)
    }
}

//! Which devices there are, choosing one, and opening it.
//!
//! Errors of the driver do not end the process: wgpu reports them beside the calls, into [`Gpu::take_fault`], which every
//! entry into the backend asks.

pub(crate) mod cache;
pub(crate) mod profile;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use alpha_tensor::BackendError;

use crate::{
    format16::Format16,
    kernels::{Variant, VariantError},
};

/// The APIs that are looked for. Not OpenGL: its compute is slower and lacks what the kernels need.
const APIS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// Without these no kernel runs.
const REQUIRED: wgpu::Features = wgpu::Features::IMMEDIATES;
/// Used where there.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::PIPELINE_CACHE);

/// What cooperative matrices of f16 need: their kernels count subgroups.
const MATRICES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// Bytes of parameters that a dispatch may carry: what Vulkan guarantees.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;
/// Storage buffers that a kernel binds at most.
const STORAGE_BUFFERS: u32 = 8;
/// Workgroup memory that the largest kernel takes.
const WORKGROUP_BYTES: u32 = 16 << 10;
/// Invocations of the largest workgroup.
const INVOCATIONS: u32 = 256;

/// Why there is no device to run on. What to do about it is [`HeliosError::hint`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HeliosError {
    /// Nothing at all.
    #[error("no GPU found: looked for Vulkan, Metal and DX12 devices")]
    NoDevice,
    /// A number or name that fits none.
    #[error("no device `{asked}` among: {found}")]
    NoSuchDevice {
        /// What was asked for.
        asked: String,
        /// What there is.
        found: String,
    },
    /// A name that fits several.
    #[error("`{asked}` fits several devices: {found}")]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Those that fit.
        found: String,
    },
    /// A kernel that was asked for by its name.
    #[error("`--matmul={pinned}` cannot run on `{device}`: {why}")]
    Pinned {
        /// The kernel.
        pinned: Variant,
        /// The device.
        device: String,
        /// What is missing.
        why: VariantError,
    },
    /// It does not compute what the reference does.
    #[error("`{device}` failed its self-test: {why}")]
    SelfTest {
        /// Its name.
        device: String,
        /// Its driver.
        driver: String,
        /// Which operation, and by how much.
        why: String,
    },
    /// The device or its driver lacks something.
    #[error("`{device}` cannot run the kernels: {why}")]
    Lacks {
        /// Its name.
        device: String,
        /// Its driver.
        driver: String,
        /// What is missing.
        why: String,
    },
}

impl HeliosError {
    /// What the user can do.
    pub fn hint(&self) -> String {
        let other_driver = |driver: &str| {
            format!("update the driver ({driver}), choose another `--device`, or run with `--backend=cpu`")
        };
        match self {
            HeliosError::NoDevice => {
                "install the driver of your card; on Debian `apt-get install mesa-vulkan-drivers` has \
                                      those for AMD and Intel, and a slow one without any GPU; or run with \
                                      `--backend=cpu`"
                    .to_owned()
            }
            HeliosError::NoSuchDevice { .. } => {
                "`alpha devices` lists them; give a number or a part of one name".to_owned()
            }
            HeliosError::Ambiguous { .. } => "give the number".to_owned(),
            HeliosError::Pinned { .. } => "leave `--matmul` out, or give a smaller one".to_owned(),
            HeliosError::SelfTest { driver, .. } => format!("{}; please report it", other_driver(driver)),
            HeliosError::Lacks { driver, .. } => other_driver(driver),
        }
    }
}

/// What sort of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A card of its own.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// Lent to a virtual machine.
    Virtual,
    /// The processor itself, in software: for tests.
    Software,
    /// The driver does not say.
    Unknown,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceKind::Discrete => "discrete",
            DeviceKind::Integrated => "integrated",
            DeviceKind::Virtual => "virtual",
            DeviceKind::Software => "software",
            DeviceKind::Unknown => "unknown",
        })
    }
}

/// A device that the system lists.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Its number for `--device`.
    pub index: usize,
    /// As the driver calls it.
    pub name: String,
    /// What sort.
    pub kind: DeviceKind,
    /// `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// Driver and version.
    pub driver: String,
    /// Smallest and largest subgroup.
    pub subgroup: (u32, u32),
    /// What the kernels would use of it.
    pub features: Vec<&'static str>,
    /// Rows and columns of its cooperative matrices of f16 with sums in f32: 16, 8, or it has none.
    pub matrix_size: Option<u32>,
    /// Bytes that one operand can have.
    pub max_binding_bytes: u64,
    /// Bytes that one buffer can have.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Bytes of memory, where the driver says.
    pub memory_bytes: Option<u64>,
    /// What is missing for the kernels to run on it.
    pub lacks: Option<String>,
}

impl DeviceInfo {
    /// What tells one device and driver from another, for caches and records.
    pub fn fingerprint(&self) -> String {
        format!("{} | {} | {}", self.name, self.api, self.driver)
    }

    pub(crate) fn lacking(&self, why: String) -> HeliosError {
        HeliosError::Lacks { device: self.name.clone(), driver: self.driver.clone(), why }
    }

    /// Whether the kernels can run on it.
    fn can_run(&self) -> Result<(), HeliosError> {
        self.lacks.as_ref().map_or(Ok(()), |why| Err(self.lacking(why.clone())))
    }
}

/// Which device is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A discrete GPU, else an integrated one, else any; a software device last.
    Best,
    /// By number, or by a part of its name, whatever the case.
    Named(String),
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which one.
    pub choice: DeviceChoice,
    /// Keep the shaders' bounds checks: slower, for tests of the kernels themselves.
    pub checked: bool,
    /// Bytes that one binding may have, where less than the device allows: for tests of how larger tensors are cut.
    pub max_binding_bytes: Option<u64>,
    /// Kernels for this kind of device instead of its own: for tests of those that no software device would choose.
    pub kernels_for: Option<DeviceKind>,
    /// How all matrix products are made, where not as measured or the device's kind suggests.
    pub matmul: Option<Variant>,
    /// What 16-bit activations are; none where all programs are in f32.
    pub format16: Option<Format16>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            choice: DeviceChoice::Best,
            checked: false,
            max_binding_bytes: None,
            kernels_for: None,
            matmul: None,
            format16: None,
        }
    }
}

fn adapters() -> Vec<wgpu::Adapter> {
    let descriptor =
        wgpu::InstanceDescriptor { backends: APIS, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(APIS))
}

/// Every device of the system, in the order of their numbers.
pub fn devices() -> Vec<DeviceInfo> {
    adapters().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

/// The device that a choice means, unopened.
pub fn find(choice: &DeviceChoice) -> Result<DeviceInfo, HeliosError> {
    let found = devices();
    let info = found[choose(&found, choice)?].clone();
    info.can_run().map(|()| info.clone())
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> DeviceInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let known = [
        ("f16", wgpu::Features::SHADER_F16),
        ("subgroups", wgpu::Features::SUBGROUP),
        ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
    ];
    DeviceInfo {
        index,
        name: info.name,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
            wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other => DeviceKind::Unknown,
        },
        api: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        subgroup: (info.subgroup_min_size, info.subgroup_max_size),
        matrix_size: matrix_size(adapter),
        features: known.iter().filter(|(_, feature)| features.contains(*feature)).map(|(name, _)| *name).collect(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        memory_bytes: memory_bytes(adapter),
        lacks: lacks(features, &limits),
    }
}

/// The device's own memory. Only Vulkan is asked: the largest heap that is local to the device.
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are used within this call, while the adapter lives, and nothing is destroyed.
    unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        let properties = instance.get_physical_device_memory_properties(vulkan.raw_physical_device());
        let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
        // Bit 0 is `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
        heaps.filter(|heap| heap.flags.as_raw() & 1 == 1).map(|heap| heap.size).max()
    }
}

/// The largest cooperative matrices that the kernels can use.
fn matrix_size(adapter: &wgpu::Adapter) -> Option<u32> {
    if !adapter.features().contains(MATRICES) {
        return None;
    }
    let all = adapter.cooperative_matrix_properties();
    let has = |size: u32| {
        all.iter().any(|matrix| {
            [matrix.m_size, matrix.n_size, matrix.k_size] == [size; 3]
                && matrix.ab_type == wgpu::CooperativeScalarType::F16
                && matrix.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    [16, 8].into_iter().find(|&size| has(size))
}

/// The first thing that the kernels need and this device does not have.
fn lacks(features: wgpu::Features, limits: &wgpu::Limits) -> Option<String> {
    if !features.contains(REQUIRED) {
        return Some("it has no immediate data (push constants)".to_owned());
    }
    let needed = [
        ("bytes of immediate data", limits.max_immediate_size, IMMEDIATE_BYTES),
        ("storage buffers a kernel", limits.max_storage_buffers_per_shader_stage, STORAGE_BUFFERS),
        ("bytes of workgroup memory", limits.max_compute_workgroup_storage_size, WORKGROUP_BYTES),
        ("invocations a workgroup", limits.max_compute_invocations_per_workgroup, INVOCATIONS),
    ];
    let missing = needed.iter().find(|(_, has, needed)| has < needed);
    missing.map(|(what, has, needed)| format!("it has {has} {what}, {needed} are needed"))
}

/// The place of the chosen device in the list.
fn choose(found: &[DeviceInfo], choice: &DeviceChoice) -> Result<usize, HeliosError> {
    let names = |devices: &[&DeviceInfo]| {
        let named = devices.iter().map(|device| format!("{} `{}`", device.index, device.name));
        named.collect::<Vec<_>>().join(", ")
    };
    if found.is_empty() {
        return Err(HeliosError::NoDevice);
    }
    match choice {
        DeviceChoice::Best => {
            let rank = |device: &DeviceInfo| match device.kind {
                _ if device.lacks.is_some() => 5,
                DeviceKind::Discrete => 0,
                DeviceKind::Integrated => 1,
                DeviceKind::Virtual => 2,
                DeviceKind::Unknown => 3,
                DeviceKind::Software => 4,
            };
            Ok(found.iter().min_by_key(|device| (rank(device), device.index)).map_or(0, |device| device.index))
        }
        DeviceChoice::Named(asked) if asked.trim().is_empty() => {
            Err(HeliosError::NoSuchDevice { asked: asked.clone(), found: names(&found.iter().collect::<Vec<_>>()) })
        }
        DeviceChoice::Named(asked) => {
            if let Ok(index) = asked.parse::<usize>() {
                let all: Vec<&DeviceInfo> = found.iter().collect();
                let missing = || HeliosError::NoSuchDevice { asked: asked.clone(), found: names(&all) };
                return found.get(index).map(|device| device.index).ok_or_else(missing);
            }
            let part = asked.to_lowercase();
            let fitting: Vec<&DeviceInfo> =
                found.iter().filter(|device| device.name.to_lowercase().contains(&part)).collect();
            match fitting[..] {
                [device] => Ok(device.index),
                [] => Err(HeliosError::NoSuchDevice {
                    asked: asked.clone(),
                    found: names(&found.iter().collect::<Vec<_>>()),
                }),
                _ => Err(HeliosError::Ambiguous { asked: asked.clone(), found: names(&fitting) }),
            }
        }
    }
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
            // SAFETY: of what is experimental the kernels use cooperative matrices alone, as naga's validation allows them;
            // the self-test checks what they compute on this device before anything else runs.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("helios"),
            required_features,
            required_limits: limits.clone(),
            experimental_features,
            // A region is a buffer, and there are few: blocks of many megabytes for the small ones would be mostly empty.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| info.lacking(format!("it cannot be opened: {error}")))?;
        let fault = Arc::new(Mutex::new(None));
        let keep = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = fault.clone();
            move |message: String| {
                fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
            }
        };
        let (on_error, on_loss) = (keep(&fault), keep(&fault));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| on_error(error.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            on_loss(format!("the device was lost ({reason:?}): {message}"));
        });
        Ok(Gpu { info, device, queue, limits, checked: options.checked, fault })
    }

    /// What went wrong since the device was opened, if anything did. It stays: a lost device stays lost.
    pub(crate) fn take_fault(&self) -> Result<(), BackendError> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map_or(Ok(()), |why| Err(self.failed(why.clone())))
    }

    pub(crate) fn failed(&self, why: String) -> BackendError {
        BackendError::DeviceFailed { device: self.info.name.clone(), why }
    }

    /// Whether workgroups run one after the other on the processor: no memory is nearer than its caches.
    pub(crate) fn is_software(&self) -> bool {
        self.info.kind == DeviceKind::Software
    }

    /// Cooperative matrices that the device was opened with.
    pub(crate) fn matrix_size(&self) -> Option<u32> {
        self.info.matrix_size.filter(|_| self.has(MATRICES))
    }

    pub(crate) fn has(&self, feature: wgpu::Features) -> bool {
        self.device.features().contains(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: usize, name: &str, kind: DeviceKind) -> DeviceInfo {
        DeviceInfo {
            index,
            name: name.into(),
            kind,
            api: "vulkan".into(),
            driver: "test 1".into(),
            subgroup: (32, 32),
            features: Vec::new(),
            matrix_size: None,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: 1 << 15,
            memory_bytes: None,
            lacks: None,
        }
    }

    fn three() -> Vec<DeviceInfo> {
        vec![
            device(0, "llvmpipe", DeviceKind::Software),
            device(1, "Intel Iris", DeviceKind::Integrated),
            device(2, "Intel Arc", DeviceKind::Discrete),
        ]
    }

    #[test]
    fn a_card_comes_before_the_processor_and_software_last() {
        let mut found = three();
        assert_eq!(choose(&found, &DeviceChoice::Best), Ok(2));
        found[2].lacks = Some("everything".into());
        assert_eq!(choose(&found, &DeviceChoice::Best), Ok(1));
        assert_eq!(choose(&found[..1], &DeviceChoice::Best), Ok(0));
    }

    #[test]
    fn numbers_and_parts_of_names_choose() {
        let found = three();
        let named = |text: &str| choose(&found, &DeviceChoice::Named(text.into()));
        assert_eq!(named("1"), Ok(1));
        assert_eq!(named("ARC"), Ok(2));
        assert!(matches!(named("intel"), Err(HeliosError::Ambiguous { .. })));
        assert!(matches!(named("3"), Err(HeliosError::NoSuchDevice { .. })));
        assert!(matches!(named("radeon"), Err(HeliosError::NoSuchDevice { .. })));
        assert_eq!(choose(&[], &DeviceChoice::Best), Err(HeliosError::NoDevice));
    }

    #[test]
    fn what_is_missing_is_named() {
        let limits = wgpu::Limits {
            max_immediate_size: IMMEDIATE_BYTES,
            max_compute_workgroup_storage_size: WORKGROUP_BYTES,
            ..wgpu::Limits::default()
        };
        assert_eq!(lacks(REQUIRED, &limits), None);
        assert!(lacks(wgpu::Features::empty(), &limits).is_some_and(|why| why.contains("immediate")));
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..limits.clone() };
        assert_eq!(lacks(REQUIRED, &few), Some("it has 4 storage buffers a kernel, 8 are needed".into()));
        let small = wgpu::Limits { max_compute_workgroup_storage_size: 1 << 10, ..limits };
        assert!(lacks(REQUIRED, &small).is_some_and(|why| why.contains("workgroup memory")));
    }
}

//! The devices of a system, and what the kernels need of one.

use std::fmt;

use super::HeliosError;

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A card.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// A device of a virtual machine.
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
    /// Its kind.
    pub kind: DeviceKind,
    /// `vulkan`, `metal`, `dx12`.
    pub api: String,
    /// Driver and version.
    pub driver: String,
    /// Smallest and largest subgroup.
    pub subgroup: (u32, u32),
    /// Its features that the kernels can use.
    pub features: Vec<&'static str>,
    /// Rows and columns of its cooperative matrices of f16 with sums in f32: 16 or 8.
    pub matrix_size: Option<u32>,
    /// The most bytes of an operand.
    pub max_binding_bytes: u64,
    /// The most bytes of a buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Bytes of memory, if the driver says.
    pub memory_bytes: Option<u64>,
    /// The first thing that the kernels need and it does not have.
    pub lacks: Option<String>,
}

impl DeviceInfo {
    /// A text that differs between devices and drivers, for caches and records.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{} | {} | {}", self.name, self.api, self.driver)
    }

    pub(crate) fn lacking(&self, why: String) -> HeliosError {
        HeliosError::Lacks { device: self.name.clone(), driver: self.driver.clone(), why }
    }

    /// Whether the kernels can run on it.
    pub(super) fn can_run(&self) -> Result<(), HeliosError> {
        self.lacks.as_ref().map_or(Ok(()), |why| Err(self.lacking(why.clone())))
    }
}

/// The APIs whose devices are used. OpenGL is not: its compute is slower and lacks features that the kernels need.
const APIS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// No kernel runs without these.
pub(super) const REQUIRED: wgpu::Features = wgpu::Features::IMMEDIATES;

/// The features that kernels on cooperative matrices of f16 need. They count subgroups.
pub(super) const MATRICES: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// The most bytes of parameters that a dispatch can have; Vulkan guarantees them.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;
/// The most storage buffers that a kernel binds.
const STORAGE_BUFFERS: u32 = 8;
/// Workgroup memory of the largest kernel.
const WORKGROUP_BYTES: u32 = 16 << 10;
/// Invocations in the largest workgroup.
const INVOCATIONS: u32 = 256;

pub(super) fn adapters() -> Vec<wgpu::Adapter> {
    let descriptor =
        wgpu::InstanceDescriptor { backends: APIS, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(APIS))
}

/// Every device of the system, in the order of their numbers.
pub fn devices() -> Vec<DeviceInfo> {
    adapters().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

pub(super) fn describe(index: usize, adapter: &wgpu::Adapter) -> DeviceInfo {
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

/// The device's own memory: the largest heap that is local to it. Only Vulkan is asked.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_limit_is_named() {
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

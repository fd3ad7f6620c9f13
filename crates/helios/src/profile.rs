//! What kernels depend on, on a device.

use crate::{
    device::{DeviceKind, Gpu, Options},
    format16::Format16,
    kernels::{Profile, Variant},
};

/// One workgroup is one vector of the processor: barriers cost nothing there.
const SOFTWARE_MATMUL: Variant = Variant::Direct { rows: 8, vectors: 4, width: 8, height: 1 };
const CARD_MATMUL: Variant = Variant::Staged { rows: 4, vectors: 1, width: 16, height: 16, depth: 16 };

impl Profile {
    /// The kernels that the device's kind suggests.
    pub(crate) fn of(gpu: &Gpu, options: &Options) -> Profile {
        let binding = gpu.limits.max_storage_buffer_binding_size.min(options.max_binding_bytes.unwrap_or(u64::MAX));
        // A window begins before its operand and ends behind it.
        let slack = 2 * u64::from(gpu.limits.min_storage_buffer_offset_alignment);
        let is_software = options.kernels_for.unwrap_or(gpu.info.kind) == DeviceKind::Software;
        let matmul = options.matmul.unwrap_or(if is_software { SOFTWARE_MATMUL } else { CARD_MATMUL });
        let format16 = options.format16.unwrap_or(Format16::F16);
        let (reduce_width, attention_width, parts) = if is_software { (8, 8, 16) } else { (128, 64, 256) };
        Profile {
            reduce_width,
            attention_width,
            parts,
            matmul: [matmul; 3],
            matmul16: [coop_matmul(gpu).unwrap_or(matmul); 3],
            format16,
            max_binding_len: (binding.saturating_sub(slack) / 4) as usize,
        }
    }
}

/// The largest tile of matrices that the device's workgroup memory holds, where the device was opened with matrices.
fn coop_matmul(gpu: &Gpu) -> Option<Variant> {
    let size = gpu.info.matrix_size.filter(|_| gpu.has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX))?;
    let subgroup = [gpu.info.subgroup.0, gpu.info.subgroup.1];
    let variant = |matrices: u32| Variant::Coop { size, matrices: [matrices; 2], waves: [2, 2], depth: 32, subgroup };
    [4, 2].map(variant).into_iter().find(|variant| {
        variant.workgroup_bytes() <= gpu.limits.max_compute_workgroup_storage_size
            && variant.threads() <= gpu.limits.max_compute_invocations_per_workgroup
    })
}

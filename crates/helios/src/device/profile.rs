//! The [`Profile`] that a device's kind suggests, and the variants to choose from.

use crate::{
    device::{DeviceKind, Gpu, HeliosError, Options},
    format16::Format16,
    kernels::{Profile, Variant, VariantError},
};

impl Profile {
    /// The profile that the device's kind suggests, with the variant that the options pin.
    pub(crate) fn of(gpu: &Gpu, options: &Options) -> Result<Profile, HeliosError> {
        let binding = gpu.limits.max_storage_buffer_binding_size.min(options.max_binding_bytes.unwrap_or(u64::MAX));
        // A window begins before its operand and ends after it.
        let slack = 2 * u64::from(gpu.limits.min_storage_buffer_offset_alignment);
        let is_software = options.kernels_for.unwrap_or(gpu.info.kind) == DeviceKind::Software;
        let variants = [false, true].map(|has_16_bits| candidates(gpu, is_software, has_16_bits)[0]);
        let format16 = options.format16.unwrap_or(Format16::F16);
        let max_binding_len = (binding.saturating_sub(slack) / 4) as usize;
        let mut profile = Profile::for_kind(is_software, variants, format16, max_binding_len);
        if let Some(pinned) = options.matmul {
            let pinned = on_device(pinned, gpu);
            fits(pinned, gpu).map_err(|why| HeliosError::Pinned { pinned, device: gpu.info.name.clone(), why })?;
            profile.matmul16 = [pinned; 3];
            // Matrices are only for 16-bit operands.
            if !matches!(pinned, Variant::Coop { .. }) {
                profile.matmul = [pinned; 3];
            }
        }
        Ok(profile)
    }

    /// Products in f32 and with 16-bit operands by these variants; the rest as the kind of device suggests. In software
    /// one workgroup is one vector of the processor: its barriers cost nothing, and starting it costs more than a
    /// vector of `AdamW`.
    pub(crate) fn for_kind(
        is_software: bool,
        [matmul, matmul16]: [Variant; 2],
        format16: Format16,
        max_binding_len: usize,
    ) -> Profile {
        let (matmul, matmul16) = ([matmul; 3], [matmul16; 3]);
        let (reduce_width, attention_width, flat_vectors, parts) =
            if is_software { (8, 8, 16, 16) } else { (128, 64, 4, 256) };
        Profile { reduce_width, attention_width, flat_vectors, parts, matmul, matmul16, format16, max_binding_len }
    }
}

/// The variants to choose from, for products in f32 or with 16-bit operands. The device's kind suggests the first.
pub(crate) fn candidates(gpu: &Gpu, is_software: bool, has_16_bits: bool) -> Vec<Variant> {
    let matrix_size = gpu.matrix_size().filter(|_| has_16_bits);
    let all = all_candidates(is_software, matrix_size, subgroup(gpu));
    let fitting: Vec<Variant> = all.into_iter().filter(|&variant| fits(variant, gpu).is_ok()).collect();
    // Every device that can be opened can run this one.
    if fitting.is_empty() { vec![SMALLEST] } else { fitting }
}

/// Fits every device.
pub(crate) const SMALLEST: Variant = Variant::Direct { rows: 4, vectors: 1, width: 8, height: 8 };

/// The variants of a kind of device. A card that has matrices always uses them for 16-bit operands. A software device
/// never does: they are slow there. Results with and without matrices differ in bits, so no measurement may choose.
pub(crate) fn all_candidates(is_software: bool, matrix_size: Option<u32>, subgroup: [u32; 2]) -> Vec<Variant> {
    let direct = |rows, vectors, width, height| Variant::Direct { rows, vectors, width, height };
    let staged = |rows, vectors, width, height, depth| Variant::Staged { rows, vectors, width, height, depth };
    if is_software {
        return vec![direct(8, 4, 8, 1), direct(12, 4, 8, 1), direct(8, 2, 8, 1)];
    }
    if let Some(size) = matrix_size {
        let coop = |matrices| Variant::Coop { size, matrices, waves: [2, 2], depth: 32, subgroup };
        return vec![coop([4, 4]), coop([4, 2]), coop([2, 2])];
    }
    vec![staged(4, 1, 16, 16, 16), staged(8, 1, 16, 16, 16), staged(8, 2, 16, 16, 8), staged(8, 2, 8, 8, 16)]
}

/// The variant with the device's subgroups, which its name does not have.
pub(crate) fn on_device(variant: Variant, gpu: &Gpu) -> Variant {
    match variant {
        Variant::Coop { size, matrices, waves, depth, .. } => {
            Variant::Coop { size, matrices, waves, depth, subgroup: subgroup(gpu) }
        }
        other => other,
    }
}

fn subgroup(gpu: &Gpu) -> [u32; 2] {
    [gpu.info.subgroup.0.max(1), gpu.info.subgroup.1.max(1)]
}

/// Whether the device can run the variant.
pub(crate) fn fits(variant: Variant, gpu: &Gpu) -> Result<(), VariantError> {
    let limits = &gpu.limits;
    for (what, needed, limit) in [
        ("invocations a workgroup", variant.threads(), limits.max_compute_invocations_per_workgroup),
        ("bytes of workgroup memory", variant.workgroup_bytes(), limits.max_compute_workgroup_storage_size),
    ] {
        if needed > u64::from(limit) {
            return Err(VariantError::Limit { what, needed, limit });
        }
    }
    match variant {
        Variant::Coop { size, .. } if gpu.matrix_size() != Some(size) => {
            Err(VariantError::Matrices { size, device_size: gpu.info.matrix_size })
        }
        _ => Ok(()),
    }
}

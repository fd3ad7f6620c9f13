//! What kernels depend on, on a device: what its kind suggests, and what may be chosen instead.

use crate::{
    device::{DeviceKind, Gpu, HeliosError, Options},
    format16::Format16,
    kernels::{Profile, Variant},
    tuning::to_text,
};

impl Profile {
    /// The kernels that the device's kind suggests, and products as the options pin them.
    pub(crate) fn of(gpu: &Gpu, options: &Options) -> Result<Profile, HeliosError> {
        let binding = gpu.limits.max_storage_buffer_binding_size.min(options.max_binding_bytes.unwrap_or(u64::MAX));
        // A window begins before its operand and ends behind it.
        let slack = 2 * u64::from(gpu.limits.min_storage_buffer_offset_alignment);
        let is_software = options.kernels_for.unwrap_or(gpu.info.kind) == DeviceKind::Software;
        // One workgroup is one vector of the processor there: barriers cost nothing.
        // To start one costs more than a vector of AdamW.
        let (reduce_width, attention_width, flat_vectors, parts) =
            if is_software { (8, 8, 16, 16) } else { (128, 64, 4, 256) };
        let [plain, sixteen] = [false, true].map(|has_16_bits| candidates(gpu, is_software, has_16_bits)[0]);
        let mut profile = Profile {
            reduce_width,
            attention_width,
            flat_vectors,
            parts,
            matmul: [plain; 3],
            matmul16: [sixteen; 3],
            format16: options.format16.unwrap_or(Format16::F16),
            max_binding_len: (binding.saturating_sub(slack) / 4) as usize,
        };
        if let Some(pinned) = options.matmul {
            let pinned = on_device(pinned, gpu);
            fits(pinned, gpu).map_err(|why| gpu.info.lacking(format!("`{pinned}`: {why}")))?;
            profile.matmul16 = [pinned; 3];
            // Matrices are for 16-bit operands.
            if !matches!(pinned, Variant::Coop { .. }) {
                profile.matmul = [pinned; 3];
            }
        }
        Ok(profile)
    }

    /// What a passed self-test is kept as: which kernels it ran.
    pub(crate) fn self_test_name(&self, format: Option<Format16>) -> String {
        format!("self-test {format:?} {}", to_text(self))
    }
}

/// The variants to choose from, for products in f32 or with 16-bit operands; the first is what the device's kind suggests.
pub(crate) fn candidates(gpu: &Gpu, is_software: bool, has_16_bits: bool) -> Vec<Variant> {
    let direct = |rows, vectors, width, height| Variant::Direct { rows, vectors, width, height };
    let staged = |rows, vectors, width, height, depth| Variant::Staged { rows, vectors, width, height, depth };
    let plain = if is_software {
        vec![direct(8, 4, 8, 1), direct(12, 4, 8, 1), direct(8, 2, 8, 1)]
    } else {
        vec![staged(4, 1, 16, 16, 16), staged(8, 1, 16, 16, 16), staged(8, 2, 16, 16, 8), staged(8, 2, 8, 8, 16)]
    };
    let matrices = |m, n| gpu.matrix_size().map(|size| on_device(coop(size, [m, n]), gpu));
    let coop: Vec<Variant> = if has_16_bits {
        [matrices(4, 4), matrices(4, 2), matrices(2, 2)].into_iter().flatten().collect()
    } else {
        Vec::new()
    };
    // Matrices are what a card has fast, and what a driver in software has slow.
    let all = if is_software { [plain, coop].concat() } else { [coop, plain].concat() };
    let fitting: Vec<Variant> = all.into_iter().filter(|&variant| fits(variant, gpu).is_ok()).collect();
    // Every device that can be opened has room for this one.
    if fitting.is_empty() { vec![direct(4, 1, 8, 8)] } else { fitting }
}

fn coop(size: u32, matrices: [u32; 2]) -> Variant {
    Variant::Coop { size, matrices, waves: [2, 2], depth: 32, subgroup: [0; 2] }
}

/// The variant as this device runs it: its name does not say how large subgroups are.
pub(crate) fn on_device(variant: Variant, gpu: &Gpu) -> Variant {
    match variant {
        Variant::Coop { size, matrices, waves, depth, .. } => {
            let subgroup = [gpu.info.subgroup.0.max(1), gpu.info.subgroup.1.max(1)];
            Variant::Coop { size, matrices, waves, depth, subgroup }
        }
        other => other,
    }
}

/// Whether the device can run it; the error says what it lacks.
pub(crate) fn fits(variant: Variant, gpu: &Gpu) -> Result<(), String> {
    let limits = &gpu.limits;
    for (what, needed, has) in [
        ("invocations a workgroup", variant.threads(), limits.max_compute_invocations_per_workgroup),
        ("bytes of workgroup memory", variant.workgroup_bytes(), limits.max_compute_workgroup_storage_size),
    ] {
        if needed > has {
            return Err(format!("it needs {needed} {what}, the device has {has}"));
        }
    }
    match variant {
        Variant::Coop { size, .. } if gpu.matrix_size() != Some(size) => {
            Err(format!("it needs cooperative matrices of {size} × {size} f16 and `--dtype=f16`"))
        }
        _ => Ok(()),
    }
}

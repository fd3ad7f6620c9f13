//! Which kernels products get on a device: measured at its first use, and kept.
//!
//! The three sorts of product (A·B, A·Bᵀ, Aᵀ·B) are timed alone, each candidate in turn, and the quickest taken. The one that
//! the device's kind suggests stays unless another is clearly quicker: what is chosen between changes no
//! bit: variants in f32 add alike, and so do those on matrices.

use std::time::Instant;

use alpha_tensor::{
    Backend, BackendError, Program, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor,
    op::{Linear, LinearBwdInput, LinearBwdWeight},
};

use crate::{
    backend::HeliosBackend,
    device::DeviceInfo,
    format16::Format16,
    kept::{self, Keep},
    kernels::{Profile, Variant},
    profile::{candidates, fits, on_device},
};

/// How much quicker another variant must be than the one that the device's kind suggests.
const CLEARLY: f64 = 0.9;
/// Time that one measurement takes at least, so that waiting and the clock do not count.
const MEASURED_MS: f64 = 4.0;
const ROUNDS: usize = 3;

/// Rows, k and columns of the products that are timed.
const SOFTWARE_SHAPE: [usize; 3] = [128, 256, 256];
const CARD_SHAPE: [usize; 3] = [2048, 768, 2048];

/// The kernels of products that were chosen for a device at an earlier start: A·B, A·Bᵀ, Aᵀ·B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// In f32.
    pub matmul: [Variant; 3],
    /// With 16-bit operands: `--dtype=f16` where it was measured, else bf16.
    pub matmul16: Option<[Variant; 3]>,
}

/// What was chosen for a device, if it has run before with this version.
pub fn kept_kernels(info: &DeviceInfo, keep: &dyn Keep) -> Option<Kernels> {
    let read = |format| {
        let text = keep.read(&kept::name(info, kept::tuning(format)))?;
        let line = |line: &str| -> Option<[Variant; 3]> {
            line.split(' ').map(|name| name.parse().ok()).collect::<Option<Vec<_>>>()?.try_into().ok()
        };
        let text = String::from_utf8(text).ok()?;
        let mut lines = text.lines().map(line);
        Some([lines.next()??, lines.next()??])
    };
    let sixteen = [Format16::F16, Format16::Bf16].into_iter().find_map(|format| read(Some(format)));
    let matmul = read(None).or(sixteen)?[0];
    Some(Kernels { matmul, matmul16: sixteen.map(|[_, matmul16]| matmul16) })
}

/// The variants of a profile, as a kept entry: one line for products in f32, one for those with 16-bit operands.
pub(crate) fn to_text(profile: &Profile) -> String {
    let line = |variants: [Variant; 3]| variants.map(|variant| variant.to_string()).join(" ");
    format!("{}\n{}\n", line(profile.matmul), line(profile.matmul16))
}

/// Takes the variants of a kept entry, if it is one and the device can run them.
pub(crate) fn from_text(backend: &HeliosBackend, text: &[u8]) -> Option<[[Variant; 3]; 2]> {
    let line = |line: &str| -> Option<[Variant; 3]> {
        let variants = line.split(' ').map(|name| {
            let variant = on_device(name.parse().ok()?, backend.gpu());
            fits(variant, backend.gpu()).is_ok().then_some(variant)
        });
        variants.collect::<Option<Vec<_>>>()?.try_into().ok()
    };
    let mut lines = std::str::from_utf8(text).ok()?.lines().map(line);
    Some([lines.next()??, lines.next()??])
}

/// Measures and sets the variants of the backend's profile.
pub(crate) fn tune(backend: &mut HeliosBackend) -> Result<(), BackendError> {
    let is_software = backend.gpu().is_software();
    let formats = if backend.format16().is_some() { &[false, true][..] } else { &[false] };
    for &has_16_bits in formats {
        let candidates = candidates(backend.gpu(), is_software, has_16_bits);
        for sort in 0..3 {
            let program = product(sort, has_16_bits, if is_software { SOFTWARE_SHAPE } else { CARD_SHAPE });
            let mut best: Option<(Variant, f64)> = None;
            for &variant in &candidates {
                backend.set_variant(sort, has_16_bits, variant);
                let ms = match time_ms(backend, &program) {
                    Ok(ms) => ms,
                    // What the driver cannot compile is not a candidate; the suggested one must run.
                    Err(error) if variant == candidates[0] => return Err(error),
                    Err(error) => {
                        backend.note(format!("warning: the kernel `{variant}` is passed over on this device: {error}"));
                        continue;
                    }
                };
                // After the first, which is what the kind suggests, others must be clearly quicker than it.
                let is_better = best
                    .is_none_or(|(chosen, best_ms)| ms < best_ms * if chosen == candidates[0] { CLEARLY } else { 1.0 });
                if is_better {
                    best = Some((variant, ms));
                }
            }
            if let Some((variant, _)) = best {
                backend.set_variant(sort, has_16_bits, variant);
            }
        }
    }
    Ok(())
}

/// A program of one product: 0 is A·B, 1 is A·Bᵀ, 2 is Aᵀ·B.
fn product(sort: usize, has_16_bits: bool, [rows, k, n]: [usize; 3]) -> Program {
    let mut sizes = RegionSizes::default();
    sizes.set(Region::Params, k * n);
    sizes.set(Region::Grads, k * n);
    let mut b = ProgramBuilder::new(sizes);
    let wide = if has_16_bits { ProgramBuilder::activation16 } else { ProgramBuilder::activation };
    let (x, y) = (wide(&mut b, rows, k), wide(&mut b, rows, n));
    let weight = Tensor::new(Region::Params, 0, k, n);
    match sort {
        0 => b.push(Linear { x, weight, bias: None, activation: None, pre: None, residual: None, out: y }),
        1 => b.push(LinearBwdInput { dy: y, weight, activation: None, dx: x }),
        _ => {
            let dweight = weight.in_region(Region::Grads);
            b.push(LinearBwdWeight { x, dy: y, dweight, dbias: None, accumulate: false });
        }
    }
    b.build(&[]).0
}

/// The shortest time of one run, waiting shared by many.
fn time_ms(backend: &mut HeliosBackend, program: &Program) -> Result<f64, BackendError> {
    backend.prepare(program.sizes(), &[program])?;
    let mut run = |repeats: usize| -> Result<f64, BackendError> {
        let start = Instant::now();
        for _ in 0..repeats {
            backend.run(program, &RunArgs::default(), None)?;
        }
        backend.finish()?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / repeats as f64)
    };
    run(1)?; // compiles what the driver has left for the first use
    let repeats = (MEASURED_MS / run(1)?.max(1e-3)).ceil().clamp(1.0, 200.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(run(repeats)?);
    }
    Ok(best)
}

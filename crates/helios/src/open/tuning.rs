//! Which kernels products get on a device: measured at its first use, and stored.
//!
//! The three forms of product (A·B, A·Bᵀ, Aᵀ·B) are timed alone, each candidate in turn. The fastest is taken, but the
//! one that the device's kind suggests stays unless another is clearly faster. The choice changes no bit: all variants
//! in f32 add in the same order, and so do all on matrices.

use std::time::Instant;

use alpha_tensor::{
    Backend, BackendError, Program, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor,
    op::{Linear, LinearBwdInput, LinearBwdWeight},
};

use crate::{
    backend::HeliosBackend,
    device::{
        DeviceInfo, Gpu,
        cache::{self, BlobStore},
        profile::{candidates, fits, on_device},
    },
    format16::Format16,
    kernels::{Profile, Variant},
};

/// A variant replaces the suggested one if it takes less than this share of its time.
const SWITCH_RATIO: f64 = 0.9;
/// A measurement takes at least this time, so that waiting and the clock do not count.
const MEASURED_MS: f64 = 4.0;
const ROUNDS: usize = 3;

/// Rows, k and columns of the products that are timed.
const SOFTWARE_SHAPE: [usize; 3] = [128, 256, 256];
const CARD_SHAPE: [usize; 3] = [2048, 768, 2048];

/// The variants of products that an earlier start chose for a device: A·B, A·Bᵀ, Aᵀ·B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// In f32.
    pub matmul: [Variant; 3],
    /// With 16-bit operands: those of `--dtype=f16` if it was measured, else of bf16.
    pub matmul16: Option<[Variant; 3]>,
}

/// The variants that were chosen for a device, if it has run with this version before.
pub fn stored_kernels(info: &DeviceInfo, store: &dyn BlobStore) -> Option<Kernels> {
    let read = |format| parse(&store.read(&cache::name(info, cache::tuning(format)))?, Some);
    let sixteen = [Format16::F16, Format16::Bf16].into_iter().find_map(|format| read(Some(format)));
    let matmul = read(None).or(sixteen)?[0];
    Some(Kernels { matmul, matmul16: sixteen.map(|[_, matmul16]| matmul16) })
}

/// The variants of a profile as a stored entry: one line for products in f32, one for those with 16-bit operands.
pub(crate) fn to_text(profile: &Profile) -> String {
    let line = |variants: [Variant; 3]| variants.map(|variant| variant.to_string()).join(" ");
    format!("{}\n{}\n", line(profile.matmul), line(profile.matmul16))
}

/// The variants of a stored entry, if it is one and the device can run them.
pub(crate) fn from_text(gpu: &Gpu, text: &[u8]) -> Option<[[Variant; 3]; 2]> {
    parse(text, |variant| Some(on_device(variant, gpu)).filter(|&variant| fits(variant, gpu).is_ok()))
}

fn parse(text: &[u8], checked: impl Fn(Variant) -> Option<Variant>) -> Option<[[Variant; 3]; 2]> {
    let variants = |line: &str| -> Option<[Variant; 3]> {
        let variants = line.split(' ').map(|name| checked(name.parse().ok()?));
        variants.collect::<Option<Vec<_>>>()?.try_into().ok()
    };
    let mut lines = str::from_utf8(text).ok()?.lines().map(variants);
    Some([lines.next()??, lines.next()??])
}

/// Measures the variants and sets the backend's profile.
pub(crate) fn tune(backend: &mut HeliosBackend) -> Result<(), BackendError> {
    let is_software = backend.gpu.is_software();
    let formats = if backend.format16.is_some() { &[false, true][..] } else { &[false] };
    for &has_16_bits in formats {
        let candidates = candidates(&backend.gpu, is_software, has_16_bits);
        for form in 0..3 {
            let program = product(form, has_16_bits, if is_software { SOFTWARE_SHAPE } else { CARD_SHAPE });
            let mut fastest: Option<(Variant, f64)> = None;
            for &variant in &candidates {
                set_variant(&mut backend.profile, form, has_16_bits, variant);
                let ms = match time_ms(backend, &program) {
                    Ok(ms) => ms,
                    // A variant that the driver cannot compile is not a candidate; the suggested one must run.
                    Err(error) if variant == candidates[0] => return Err(error),
                    Err(error) => {
                        backend
                            .notes
                            .push(format!("warning: the kernel `{variant}` is passed over on this device: {error}"));
                        continue;
                    }
                };
                let is_faster = fastest.is_none_or(|(chosen, fastest_ms)| {
                    ms < fastest_ms * if chosen == candidates[0] { SWITCH_RATIO } else { 1.0 }
                });
                if is_faster {
                    fastest = Some((variant, ms));
                }
            }
            if let Some((variant, _)) = fastest {
                set_variant(&mut backend.profile, form, has_16_bits, variant);
            }
        }
    }
    Ok(())
}

/// Uses a variant for products of one form in all programs that are prepared later.
fn set_variant(profile: &mut Profile, form: usize, has_16_bits: bool, variant: Variant) {
    let variants = if has_16_bits { &mut profile.matmul16 } else { &mut profile.matmul };
    variants[form] = variant;
}

/// A program of one product. Form 0 is A·B, 1 is A·Bᵀ, 2 is Aᵀ·B.
fn product(form: usize, has_16_bits: bool, [rows, k, n]: [usize; 3]) -> Program {
    let mut sizes = RegionSizes::default();
    sizes.set(Region::Params, k * n);
    sizes.set(Region::Grads, k * n);
    let mut b = ProgramBuilder::new(sizes);
    let activation = if has_16_bits { ProgramBuilder::activation16 } else { ProgramBuilder::activation };
    let (x, y) = (activation(&mut b, rows, k), activation(&mut b, rows, n));
    let weight = Tensor::new(Region::Params, 0, k, n);
    match form {
        0 => b.push(Linear { x, weight, bias: None, activation: None, pre: None, residual: None, out: y }),
        1 => b.push(LinearBwdInput { dy: y, weight, activation: None, dx: x }),
        _ => {
            let dweight = weight.in_region(Region::Grads);
            b.push(LinearBwdWeight { x, dy: y, dweight, dbias: None, accumulate: false });
        }
    }
    b.build(&[]).0
}

/// The shortest time of one run. Many runs share a wait.
fn time_ms(backend: &mut HeliosBackend, program: &Program) -> Result<f64, BackendError> {
    backend.prepare(program.sizes(), &[program])?;
    let mut run = |repeats: usize| -> Result<f64, BackendError> {
        let start = Instant::now();
        for _ in 0..repeats {
            backend.run(program, &RunArgs::default(), None)?;
        }
        backend.wait_idle()?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / repeats as f64)
    };
    run(1)?; // the driver may compile at the first use
    let repeats = (MEASURED_MS / run(1)?.max(1e-3)).ceil().clamp(1.0, 200.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(run(repeats)?);
    }
    Ok(best)
}

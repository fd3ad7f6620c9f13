//! The roofline's two numbers, measured: the most that a device computes and moves.

use std::time::Instant;

use alpha_tensor::{BackendError, Region, RegionSizes, RunArgs};

use crate::{
    device::{Gpu, HeliosError, Options},
    kernels::{
        GRID, Lowering, Operand, Params, Profile, folded,
        shader::{Shader, ShaderBuilder},
    },
    recording::{Plan, memory::Memory, pipelines::Pipelines},
};

/// Measured peaks of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DevicePeaks {
    /// f32 multiply-adds, two operations each.
    pub fma_gflops: f64,
    /// `a = b + s·c` over memory larger than caches, three passes.
    pub triad_gb_s: f64,
}

/// Bytes of each of the triad's three operands, unless a binding has less: more than the caches of cards hold.
const TRIAD_BYTES: u64 = 256 << 20;
const SOFTWARE_TRIAD_BYTES: u64 = 64 << 20;
/// Invocations of the multiply-adds, and iterations of each.
const FMA_INVOCATIONS: usize = 1 << 20;
const SOFTWARE_FMA_INVOCATIONS: usize = 1 << 14;
const FMA_ITERATIONS: usize = 512;
const FLOPS_PER_ITERATION: usize = 8 * 4 * 2;
/// The fastest round counts: anything else on the machine only makes a round slower.
const ROUNDS: usize = 5;
const WORKGROUP: u32 = 64;

/// Opens the device and measures it, which takes about a second.
pub fn peaks(options: &Options) -> Result<DevicePeaks, HeliosError> {
    let gpu = Gpu::open(options)?;
    let profile = Profile::of(&gpu, options)?;
    measure(&gpu, &profile).map_err(|error| gpu.info.lacking(format!("its peaks cannot be measured: {error}")))
}

fn measure(gpu: &Gpu, profile: &Profile) -> Result<DevicePeaks, BackendError> {
    let (invocations, max_bytes) = if gpu.is_software() {
        (SOFTWARE_FMA_INVOCATIONS, SOFTWARE_TRIAD_BYTES)
    } else {
        (FMA_INVOCATIONS, TRIAD_BYTES)
    };
    let vectors = (max_bytes.min(profile.max_binding_len as u64 * 4) / 16) as usize;
    let mut sizes = RegionSizes::default();
    let operands = [Region::Params, Region::Grads, Region::Activations];
    for region in operands {
        sizes.set(region, 4 * vectors.max(invocations));
    }
    let memory = Memory::allocate(gpu, &sizes, 0)?;
    let time_s = |entry, len: usize| -> Result<f64, BackendError> {
        let tensor = |region| Operand::from(alpha_tensor::Tensor::new(region, 0, 1, 4 * len));
        let params = Params::fixed([len as u32, FMA_ITERATIONS as u32, 0.999f32.to_bits()]);
        let mut lowering = Lowering { profile, dispatches: Vec::new(), scratch_len: 0 };
        let groups = folded(len.div_ceil(WORKGROUP as usize));
        lowering
            .push(shader(entry), operands.map(tensor).into(), params, groups)
            .map_err(|error| BackendError::InvalidProgram(error.to_string()))?;
        let mut plan = Plan::new(gpu, vec![lowering], vec![0], &memory, &mut Pipelines::new(None))?;
        let mut best = f64::INFINITY;
        for _ in 0..=ROUNDS {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            plan.record(&mut pass, &RunArgs::default(), 0..1);
            drop(pass);
            let start = Instant::now();
            gpu.queue.submit([encoder.finish()]);
            let waited = gpu.device.poll(wgpu::PollType::wait_indefinitely());
            waited.map_err(|error| gpu.failed(error.to_string()))?;
            gpu.check_fault()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let fma_s = time_s("FMA", invocations)?;
    let triad_s = time_s("TRIAD", vectors)?;
    Ok(DevicePeaks {
        fma_gflops: (invocations * FMA_ITERATIONS * FLOPS_PER_ITERATION) as f64 / fma_s / 1e9,
        triad_gb_s: (3 * 16 * vectors) as f64 / triad_s / 1e9,
    })
}

pub(crate) fn shader(entry: &str) -> Shader {
    ShaderBuilder::new("peaks", 3)
        .number("WG", WORKGROUP)
        .entry(&["FMA", "TRIAD"], entry)
        .part(GRID)
        .part(include_str!("kernels/peaks.wgsl"))
        .build()
}

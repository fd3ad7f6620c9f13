//! `alpha devices`: what this machine computes with, and how fast it can at best.

use std::{fs, num::NonZero, thread::available_parallelism};

use alpha_tensor::{
    BackendError,
    cpu::{Peaks, peaks},
};
use alpha_train::{TrainError, config::backend::DeviceCache};
use clap::{ArgAction, Args};
use helios::{DeviceChoice, DeviceInfo, DevicePeaks, Kernels, Options, Variant};
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Failure},
    output,
};

/// The flags of `alpha devices`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct Flags {
    /// Print one JSON object
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    json: bool,
    /// The GPU whose peaks are the object's `gflops` and `gb_s`, instead of the processor's: a roofline for `alpha loop`
    #[arg(long, value_name = "GPU")]
    device: Option<String>,
}

/// Describes and measures the processor.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    // A device that does not exist is refused before anything is measured.
    let chosen = flags.device.clone().map(DeviceChoice::Named).map(|choice| helios::find(&choice)).transpose();
    let chosen = chosen.map_err(TrainError::from)?;
    let cores = available_parallelism().map_or(1, NonZero::get);
    let mut thread_counts = vec![1, cores];
    thread_counts.dedup();
    let measured: Vec<(usize, Peaks)> = thread_counts
        .into_iter()
        .map(|threads| Ok((threads, peaks(threads)?)))
        .collect::<Result<_, BackendError>>()
        .map_err(|error| Failure::failed(error.to_string()))?;
    let cpu = Cpu { model: model_name(), cores, caches: caches(), features: features() };
    let cache = DeviceCache::from_environment();
    let gpus: Vec<Gpu> = helios::devices().into_iter().map(|info| Gpu::measure(info, &cache)).collect();
    if let Some(chosen) = &chosen {
        let peaks = gpus.iter().find(|gpu| gpu.info.index == chosen.index).and_then(|gpu| gpu.peaks.as_ref());
        if let Some(Err(why)) = peaks {
            return Err(Failure::of(Exit::Failed, why));
        }
    }
    let text = if flags.json {
        format!("{}\n", as_json(&cpu, &measured, &gpus, chosen.as_ref()))
    } else {
        as_text(&cpu, &measured, &gpus)
    };
    Ok(output::print(&text)?)
}

/// A GPU, its peaks where it can run the kernels, and its kernels of matrix products.
struct Gpu {
    info: DeviceInfo,
    peaks: Option<Result<DevicePeaks, TrainError>>,
    kernels: Option<Kernels>,
}

impl Gpu {
    fn measure(info: DeviceInfo, cache: &DeviceCache) -> Gpu {
        let options = Options { choice: DeviceChoice::Named(info.index.to_string()), ..Options::default() };
        let peaks = info.lacks.is_none().then(|| helios::peaks(&options).map_err(TrainError::from));
        Gpu { peaks, kernels: helios::stored_kernels(&info, cache), info }
    }
}

/// Names of the variants for A·B, A·Bᵀ and Aᵀ·B; one where they are the same.
fn names(variants: [Variant; 3]) -> String {
    let [first, others @ ..] = &variants;
    if others.iter().all(|other| other == first) {
        return first.to_string();
    }
    variants.map(|variant| variant.to_string()).join(", ")
}

struct Cpu {
    model: String,
    cores: usize,
    /// `L1d`, `L2` … with the size as the system writes it.
    caches: Vec<(String, String)>,
    features: Vec<&'static str>,
}

fn as_text(cpu: &Cpu, measured: &[(usize, Peaks)], gpus: &[Gpu]) -> String {
    let caches: Vec<String> = cpu.caches.iter().map(|(name, size)| format!("{name} {size}")).collect();
    let features = if cpu.features.is_empty() { "none".to_owned() } else { cpu.features.join(" ") };
    let mut lines = vec![format!("cpu       {}", cpu.model), format!("cores     {}", cpu.cores)];
    if !caches.is_empty() {
        lines.push(format!("caches    {}", caches.join(", ")));
    }
    lines.push(format!("features  {features}"));
    for (threads, peaks) in measured {
        let plural = if *threads == 1 { "" } else { "s" };
        lines.push(format!(
            "peak      {threads} thread{plural}: {:.1} GFLOP/s f32 multiply-add, {:.1} GB/s triad",
            peaks.fma_gflops, peaks.triad_gb_s
        ));
    }
    if gpus.is_empty() {
        lines.push("gpu       none found: no Vulkan, Metal or DX12 driver".to_owned());
    }
    for Gpu { info: gpu, peaks, kernels } in gpus {
        lines.push(format!("gpu {}     {} ({}, {}, {})", gpu.index, gpu.name, gpu.kind, gpu.api, gpu.driver));
        let memory =
            gpu.memory_bytes.map_or(String::new(), |bytes| format!("{:.1} GiB, ", bytes as f64 / f64::from(1 << 30)));
        let (low, high) = gpu.subgroup;
        let matrices = gpu.matrix_size.map_or(String::new(), |size| format!(", matrices of {size} x {size} f16"));
        lines.push(format!("          {memory}subgroups of {low} to {high}; {}{matrices}", gpu.features.join(", ")));
        match peaks {
            Some(Ok(peaks)) => lines.push(format!(
                "peak      gpu {}: {:.1} GFLOP/s f32 multiply-add, {:.1} GB/s triad",
                gpu.index, peaks.fma_gflops, peaks.triad_gb_s
            )),
            Some(Err(why)) => lines.push(format!("          not measured: {why}")),
            None => {}
        }
        match kernels {
            Some(Kernels { matmul, matmul16 }) => {
                let sixteen = matmul16.map_or(String::new(), |variants| format!("; in 16 bits {}", names(variants)));
                lines.push(format!("kernels   gpu {}: products {}{sixteen}", gpu.index, names(*matmul)));
            }
            None if gpu.lacks.is_none() => {
                lines.push(format!("kernels   gpu {}: chosen when it is first used", gpu.index));
            }
            None => {}
        }
        if let Some(why) = &gpu.lacks {
            lines.push(format!("          cannot run the kernels: {why}"));
        }
    }
    lines.join("\n") + "\n"
}

/// Version of the object that `--json` prints.
const SCHEMA: &str = "alpha.devices/1";

/// `gflops` and `gb_s` are those of all threads together, or of the chosen GPU; `cpu.peaks` has those of each number of
/// threads that was measured.
fn as_json(cpu: &Cpu, measured: &[(usize, Peaks)], gpus: &[Gpu], chosen: Option<&DeviceInfo>) -> Value {
    let peaks = |(threads, peaks): &(usize, Peaks)| json!({ "threads": threads, "fma_gflops": peaks.fma_gflops, "triad_gb_s": peaks.triad_gb_s });
    let gpu = |Gpu { info: gpu, peaks, kernels }: &Gpu| {
        let peaks = peaks.as_ref().and_then(|peaks| peaks.as_ref().ok());
        let names = |variants: [Variant; 3]| variants.map(|variant| variant.to_string());
        json!({
            "index": gpu.index,
            "name": gpu.name,
            "kind": gpu.kind.to_string(),
            "api": gpu.api,
            "driver": gpu.driver,
            "memory_bytes": gpu.memory_bytes,
            "subgroup": [gpu.subgroup.0, gpu.subgroup.1],
            "features": gpu.features,
            "matrix_size": gpu.matrix_size,
            "gflops": peaks.map(|peaks| peaks.fma_gflops),
            "gb_s": peaks.map(|peaks| peaks.triad_gb_s),
            "matmul": kernels.as_ref().map(|kernels| names(kernels.matmul)),
            "matmul16": kernels.as_ref().and_then(|kernels| kernels.matmul16.map(names)),
            "max_binding_bytes": gpu.max_binding_bytes,
            "max_buffer_bytes": gpu.max_buffer_bytes,
            "workgroup_bytes": gpu.workgroup_bytes,
            "lacks": gpu.lacks,
        })
    };
    let all_threads = measured.last().map(|(_, peaks)| (peaks.fma_gflops, peaks.triad_gb_s));
    let of_gpu = |gpu: &Gpu| Some(gpu.peaks.as_ref()?.as_ref().ok().map(|peaks| (peaks.fma_gflops, peaks.triad_gb_s)));
    let peaks_of_all = match chosen {
        None => all_threads,
        Some(chosen) => gpus.iter().find(|gpu| gpu.info.index == chosen.index).and_then(of_gpu).flatten(),
    };
    json!({
        "schema": SCHEMA,
        "gflops": peaks_of_all.map(|(gflops, _)| gflops),
        "gb_s": peaks_of_all.map(|(_, gb_s)| gb_s),
        "cpu": {
            "model": cpu.model,
            "cores": cpu.cores,
            "caches": cpu.caches.iter().map(|(name, size)| (name.clone(), json!(size))).collect::<serde_json::Map<_, _>>(),
            "features": cpu.features,
            "peaks": measured.iter().map(peaks).collect::<Vec<_>>(),
        },
        "gpus": gpus.iter().map(gpu).collect::<Vec<_>>(),
    })
}

fn model_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

/// Data and unified caches of the first core.
fn caches() -> Vec<(String, String)> {
    let read = |index: usize, key: &str| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{key}")).ok()?;
        Some(text.trim().to_owned())
    };
    let cache = |index| {
        let suffix = match read(index, "type")?.as_str() {
            "Data" => "d",
            "Unified" => "",
            _ => return None,
        };
        Some((format!("L{}{suffix}", read(index, "level")?), read(index, "size")?))
    };
    (0..8).filter_map(cache).collect()
}

/// SIMD features that kernels are chosen by.
fn features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let found = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found: [(&str, bool); 0] = [];
    found.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

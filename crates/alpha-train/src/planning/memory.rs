//! How much memory a run will take, and how much there is.

use std::fs;

use alpha_tensor::{Backend, Program, RegionSizes};

use super::cgroup;

/// Memory of a process beyond regions and scratch: code, tokenizer, buffers. Measured
/// (docs/performance.md). The data stays in files, whose pages the system can take back.
const PROCESS_BYTES: usize = 12 << 20;

/// Memory that the driver of a software device takes in the process: its compiler, and the code of some fifty kernels.
/// Measured on lavapipe 22.3: 160 MiB where it compiles the kernels of a small model, 110 to 120 where they are cached.
const DRIVER_BYTES: usize = 160 << 20;

/// Peak memory of a run of these programs: what it allocates on a device with memory of its own; else the resident memory
/// of the process, without pages of data.
pub fn predicted_bytes(backend: &dyn Backend, sizes: &RegionSizes, programs: &[&Program]) -> usize {
    let regions = sizes.total_bytes() + backend.scratch_bytes(programs);
    match backend.device_memory() {
        Some(memory) if !memory.is_host => regions,
        Some(_) => regions + DRIVER_BYTES + PROCESS_BYTES,
        None => regions + PROCESS_BYTES,
    }
}

/// Memory that a run can still take: all memory of a device that has its own; else [`free_bytes`].
pub fn available_bytes(backend: &dyn Backend) -> Option<usize> {
    match backend.device_memory() {
        Some(memory) if !memory.is_host => memory.total_bytes.map(|bytes| bytes as usize),
        _ => free_bytes(),
    }
}

/// Memory that a process can still take: what the system calls available, or less where a
/// control group or an address-space limit is tighter. None where the system does not say.
pub fn free_bytes() -> Option<usize> {
    [system_available(), cgroup::free(), address_space_free()].into_iter().flatten().min()
}

fn system_available() -> Option<usize> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn address_space_free() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max address space"))?;
    let limit: usize = line.split_whitespace().nth(3)?.parse().ok()?; // `unlimited` is not a number
    let used = kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(used))
}

/// The number after `key` in a file of `key  number kB` lines, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_kilobytes_is_found() {
        assert_eq!(kilobytes("MemFree: 1 kB\nMemAvailable:   20 kB\n", "MemAvailable:"), Some(20 * 1024));
        assert_eq!(kilobytes("MemFree: 1 kB\n", "MemAvailable:"), None);
    }
}

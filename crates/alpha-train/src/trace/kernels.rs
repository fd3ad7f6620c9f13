//! `kernels.json`: totals per kernel, the one that took longest first.

use alpha_tensor::Phase;
use serde::Serialize;

use super::phase_name;

/// Totals of one kernel in one phase.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KernelTotals {
    pub(super) name: &'static str,
    pub(super) phase: Phase,
    /// Time on all threads together.
    pub(super) thread_ms: f64,
    calls: u64,
    /// Wall time.
    time_ms: f64,
    flops: u64,
    bytes: u64,
}

impl KernelTotals {
    pub(super) fn new(name: &'static str, phase: Phase) -> KernelTotals {
        KernelTotals { name, phase, thread_ms: 0.0, calls: 0, time_ms: 0.0, flops: 0, bytes: 0 }
    }

    pub(super) fn add_call(&mut self, time_ms: f64, flops: u64, bytes: u64) {
        self.calls += 1;
        self.time_ms += time_ms;
        self.flops += flops;
        self.bytes += bytes;
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    /// Traced steps of this process.
    steps: u64,
    kernels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    phase: &'static str,
    calls: u64,
    time_ms: f64,
    thread_ms: f64,
    flops: u64,
    bytes: u64,
    gflops: f64,
    gb_s: f64,
}

pub(super) fn report(kernels: &[KernelTotals], steps: u64) -> Report {
    let per_second = |count: u64, time_ms: f64| if time_ms > 0.0 { count as f64 / time_ms / 1e6 } else { 0.0 };
    let mut rows: Vec<Row> = kernels
        .iter()
        .filter(|kernel| kernel.calls > 0)
        .map(|kernel| Row {
            name: kernel.name,
            phase: phase_name(kernel.phase),
            calls: kernel.calls,
            time_ms: kernel.time_ms,
            thread_ms: kernel.thread_ms,
            flops: kernel.flops,
            bytes: kernel.bytes,
            gflops: per_second(kernel.flops, kernel.time_ms),
            gb_s: per_second(kernel.bytes, kernel.time_ms),
        })
        .collect();
    rows.sort_by(|a, b| b.time_ms.total_cmp(&a.time_ms));
    Report { steps, kernels: rows }
}

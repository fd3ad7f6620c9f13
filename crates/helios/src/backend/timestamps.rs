//! When each operation ran, by the device's clock.

use alpha_tensor::{BackendError, RunArgs, Span, Timeline};

use super::{HeliosBackend, mapped::Mapped, new_encoder, not_prepared};
use crate::device::Gpu;

/// Operations in one query set. Each takes two queries, and every API allows sets of this size.
const OPS_PER_SET: usize = 2048;

/// Room for the times of a program's operations.
pub(super) struct Timestamps {
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    ops: usize,
    period_ns: f64,
}

impl Timestamps {
    /// For programs of up to `ops` operations.
    pub(super) fn new(gpu: &Gpu, ops: usize) -> Result<Timestamps, BackendError> {
        if !gpu.has(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(BackendError::Unsupported {
                op: "trace",
                backend: "helios",
                why: format!("`{}` has no timestamps; run without `--trace`", gpu.info.name),
            });
        }
        let ops = ops.max(1);
        let sets = (0..ops.div_ceil(OPS_PER_SET)).map(|_| {
            gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * OPS_PER_SET as u32,
            })
        });
        let bytes = (ops.next_multiple_of(OPS_PER_SET) * 16) as u64;
        let buffer = |usage| gpu.buffer("timestamps", bytes, usage);
        Ok(Timestamps {
            sets: sets.collect(),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            ops,
            period_ns: f64::from(gpu.queue.get_timestamp_period()),
        })
    }

    /// The number of operations that there is room for.
    pub(super) fn ops(&self) -> usize {
        self.ops
    }

    /// The two queries of an operation's pass.
    pub(super) fn of(&self, op: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * (op % OPS_PER_SET) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[op / OPS_PER_SET],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Makes the times of the first `ops` operations readable.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, ops: usize) {
        for (number, set) in self.sets.iter().enumerate() {
            let count = ops.saturating_sub(number * OPS_PER_SET).min(OPS_PER_SET);
            if count > 0 {
                encoder.resolve_query_set(set, 0..2 * count as u32, &self.resolved, (number * OPS_PER_SET * 16) as u64);
            }
        }
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, (ops * 16) as u64);
    }

    /// The buffer to map once the device is done.
    pub(super) fn readable(&self) -> &wgpu::Buffer {
        &self.readable
    }

    /// Fills a timeline's first track from resolved times. The device's clock has its own zero, so the last operation
    /// is put at the time when the host saw the device done, `done_ns` after the timeline's origin.
    pub(super) fn fill(&self, ticks: &[u64], timeline: &mut Timeline, done_ns: u64) {
        let last = ticks.iter().max().copied().unwrap_or(0);
        let at = |tick: u64| done_ns.saturating_sub((last.saturating_sub(tick) as f64 * self.period_ns) as u64);
        for (span, pair) in timeline.spans_mut().iter_mut().zip(ticks.chunks_exact(2)) {
            *span = Span { start_ns: at(pair[0]), end_ns: at(pair[1]) };
        }
    }
}

impl HeliosBackend {
    /// Runs a program alone, times its operations and waits for it.
    pub(super) fn run_timed(
        &mut self,
        plan: usize,
        args: &RunArgs,
        timeline: &mut Timeline,
    ) -> Result<(), BackendError> {
        let prepared = self.prepared.as_mut().ok_or_else(not_prepared)?;
        let ops = prepared.plans[plan].0.ops().len();
        if timeline.threads() < 1 || timeline.ops() < ops {
            return Err(BackendError::InvalidProgram("the timeline is smaller than the program".into()));
        }
        if prepared.timestamps.as_ref().is_none_or(|timestamps| timestamps.ops() < ops) {
            prepared.timestamps = Some(Timestamps::new(&self.gpu, timeline.ops())?);
        }
        let Some(timestamps) = prepared.timestamps.take() else { return Err(not_prepared()) };
        let mut encoder = self.encoder.take().unwrap_or_else(|| new_encoder(&self.gpu));
        let plan = &mut prepared.plans[plan].1;
        let ranges: Vec<_> = plan.operations().collect();
        for (op, range) in ranges.into_iter().enumerate() {
            let timestamp_writes = Some(timestamps.of(op));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            plan.record(&mut pass, args, range);
        }
        timestamps.resolve(&mut encoder, ops);
        self.launches.dispatches += plan.len() as u64;
        self.encoder = Some(encoder);
        self.submit()?;
        let bytes = (ops * 16) as u64;
        let mapped = Mapped::request(timestamps.readable(), bytes);
        let submission = self.last_submission.clone().ok_or_else(not_prepared)?;
        self.wait_mapped(&mapped, &submission)?;
        let done_ns = timeline.now_ns();
        let view = timestamps.readable().slice(..bytes).get_mapped_range();
        let view = view.map_err(|error| self.gpu.failed(error.to_string()))?;
        let ticks: Vec<u64> = view.as_chunks().0.iter().map(|tick| u64::from_le_bytes(*tick)).collect();
        timestamps.fill(&ticks, timeline, done_ns);
        drop(view);
        timestamps.readable().unmap();
        if let Some(prepared) = &mut self.prepared {
            prepared.timestamps = Some(timestamps);
        }
        Ok(())
    }
}

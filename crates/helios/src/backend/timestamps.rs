//! When each operation ran on the device, by its own clock.

use alpha_tensor::{BackendError, Span, Timeline};

use crate::device::Gpu;

/// Operations of one query set: each takes two of the queries that every API has.
const OPS_PER_SET: usize = 2048;

/// Room for the times of a program's operations.
pub(crate) struct Timestamps {
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    ops: usize,
    period_ns: f64,
}

impl Timestamps {
    /// For programs of up to `ops` operations.
    pub(crate) fn new(gpu: &Gpu, ops: usize) -> Result<Timestamps, BackendError> {
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
        let buffer = |usage| {
            let size = (ops.next_multiple_of(OPS_PER_SET) * 16) as u64;
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        Ok(Timestamps {
            sets: sets.collect(),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            ops,
            period_ns: f64::from(gpu.queue.get_timestamp_period()),
        })
    }

    /// Operations there is room for.
    pub(crate) fn ops(&self) -> usize {
        self.ops
    }

    /// The two queries of an operation's pass.
    pub(crate) fn of(&self, op: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * (op % OPS_PER_SET) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[op / OPS_PER_SET],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// Makes the times of the first `ops` operations readable.
    pub(crate) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, ops: usize) {
        for (number, set) in self.sets.iter().enumerate() {
            let count = ops.saturating_sub(number * OPS_PER_SET).min(OPS_PER_SET);
            if count > 0 {
                encoder.resolve_query_set(set, 0..2 * count as u32, &self.resolved, (number * OPS_PER_SET * 16) as u64);
            }
        }
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, (ops * 16) as u64);
    }

    /// What is to be mapped once the device is done.
    pub(crate) fn readable(&self) -> &wgpu::Buffer {
        &self.readable
    }

    /// Fills a timeline's first track from resolved times. The device's clock has its own zero: the last operation is put
    /// where the host saw the device done, `done_ns` after the timeline's origin.
    pub(crate) fn fill(&self, ticks: &[u64], timeline: &mut Timeline, done_ns: u64) {
        let last = ticks.iter().max().copied().unwrap_or(0);
        let at = |tick: u64| done_ns.saturating_sub((last.saturating_sub(tick) as f64 * self.period_ns) as u64);
        for (span, pair) in timeline.spans_mut().iter_mut().zip(ticks.chunks_exact(2)) {
            *span = Span { start_ns: at(pair[0]), end_ns: at(pair[1]) };
        }
    }
}

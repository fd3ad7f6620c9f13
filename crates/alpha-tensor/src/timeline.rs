//! When each operation ran, on each thread. Storage is allocated before the run, so that
//! tracing a step allocates nothing.

use std::time::Instant;

/// One operation on one thread (or device queue).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Start, nanoseconds after [`Timeline::origin`].
    pub start_ns: u64,
    /// End, nanoseconds after [`Timeline::origin`].
    pub end_ns: u64,
}

/// Spans of one program run: `spans[thread][op index]`.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The time that spans are counted from.
    pub origin: Instant,
    threads: usize,
    ops: usize,
    spans: Vec<Span>,
}

impl Timeline {
    /// Room for programs of up to `ops` operations on `threads` threads.
    pub fn new(origin: Instant, threads: usize, ops: usize) -> Timeline {
        Timeline { origin, threads, ops, spans: vec![Span::default(); threads * ops] }
    }

    /// Threads (tracks).
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Operations there is room for.
    pub fn ops(&self) -> usize {
        self.ops
    }

    /// Spans of one thread, by operation index.
    pub fn thread(&self, thread: usize) -> &[Span] {
        &self.spans[thread * self.ops..][..self.ops]
    }

    /// All spans, `[thread][op]`, for the backend to fill.
    pub fn spans_mut(&mut self) -> &mut [Span] {
        &mut self.spans
    }

    /// Nanoseconds since the origin.
    pub fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}

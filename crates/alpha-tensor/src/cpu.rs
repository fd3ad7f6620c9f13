//! The fast CPU backend: explicit SIMD, chosen at run time, on a fixed number of threads.
//!
//! Every thread walks the whole program. An operation is cut into *stages* of independent
//! *tasks* (`execute.rs`); threads share the tasks of a stage and go on when all are done.
//! A task's result depends on nothing but its inputs, and sums are cut into parts by shape
//! alone, so the bits are the same for every number of threads and every order of tasks.

#![expect(clippy::needless_pass_by_value, reason = "a task is handed over: it runs once")]

mod memory;
mod pool;
mod simd;
mod gemm;
mod activation;
mod linear;
mod attention;
mod layer_norm;
mod embedding;
mod head;
mod dropout;
mod optimizer;
mod execute;
mod peaks;

pub use self::{
    peaks::{Peaks, peaks},
    simd::Level,
};

use self::{
    execute::{Prepared, Run},
    pool::Pool,
};
use crate::{
    backend::{Backend, BackendError, Results, RunArgs},
    program::Program,
    tensor::{Region, RegionSizes},
    timeline::Timeline,
};

/// The fast CPU backend; see the module's text.
pub struct CpuBackend {
    level: Level,
    pool: Pool,
    prepared: Prepared,
    /// Results that were requested.
    requested: Option<Results>,
}

impl CpuBackend {
    /// A backend with this many threads (at least one) and the best available instructions.
    pub fn new(threads: usize) -> Result<CpuBackend, BackendError> {
        CpuBackend::with_level(threads, Level::detect())
    }

    /// A backend pinned to one instruction set, which must be among [`Level::available`].
    pub fn with_level(threads: usize, level: Level) -> Result<CpuBackend, BackendError> {
        let unavailable = |why: String| BackendError::Unsupported { op: "start", backend: "cpu", why };
        if !Level::available().contains(&level) {
            return Err(unavailable(format!("this processor has no {level}")));
        }
        let pool = Pool::new(threads.max(1)).map_err(|error| unavailable(format!("cannot start threads: {error}")))?;
        let prepared = Prepared::empty(pool.threads());
        Ok(CpuBackend { level, pool, prepared, requested: None })
    }

    /// Threads that run programs.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn scratch_bytes(&self, programs: &[&Program]) -> usize {
        self.prepared.extra_bytes(programs)
    }

    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError> {
        self.prepared.prepare(sizes, programs)
    }

    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        self.prepared.regions[region.index()].as_mut_slice()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        out.copy_from_slice(&self.prepared.regions[region.index()].as_slice()[offset..offset + out.len()]);
        Ok(())
    }

    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError> {
        let inputs = self.prepared.regions[Region::Inputs.index()].as_mut_slice();
        for (input, &token) in inputs[offset..offset + tokens.len()].iter_mut().zip(tokens) {
            *input = f32::from_bits(token);
        }
        Ok(())
    }

    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError> {
        self.prepared.check(program)?;
        if let Some(timeline) = &timeline
            && (timeline.threads() < self.threads() || timeline.ops() < program.ops().len())
        {
            return Err(BackendError::InvalidProgram("the timeline is smaller than the program".into()));
        }
        let run = Run::new(self.level, &mut self.prepared, program, args, timeline);
        self.pool.run(&|thread| run.walk(thread));
        Ok(())
    }

    fn request_results(&mut self) -> Result<(), BackendError> {
        let mut values = [0.0; Results::LEN];
        self.read(Region::Results, 0, &mut values)?;
        self.requested = Some(Results::from_slice(values));
        Ok(())
    }

    fn collect_results(&mut self) -> Result<Results, BackendError> {
        self.requested.take().ok_or_else(|| BackendError::InvalidProgram("no results were asked for".into()))
    }
}

//! The fast CPU backend: explicit SIMD, chosen at run time, on a fixed number of threads.
//!
//! Every thread walks the whole program. An operation is cut into *stages* of independent
//! *tasks* (`execute.rs`); threads share the tasks of a stage and go on when all are done.
//! A task's result depends on nothing but its inputs, and sums are cut into parts by shape
//! alone, so the bits are the same for every number of threads and every order of tasks.

mod memory;
mod pool;
mod simd;
mod gemm;
mod execute;
mod linear;
mod attention;
mod layer_norm;
mod embedding;
mod head;
mod activation;
mod dropout;
mod optimizer;
mod peaks;

pub use self::{
    peaks::{Peaks, peaks},
    simd::Level,
};

use self::{
    execute::{Run, StageProgress},
    memory::Buffer,
    pool::Pool,
};
use crate::{
    backend::{Backend, BackendError, Results, RunArgs},
    op::Op,
    program::Program,
    tensor::{Region, RegionSizes},
    timeline::Timeline,
};

/// See the module's text.
pub struct CpuBackend {
    level: Level,
    pool: Pool,
    regions: [Buffer; Region::ALL.len()],
    /// Packing and attention space, a part for each thread.
    scratch: Buffer,
    /// Partial sums of reductions over all parameters, shared by the threads.
    partials: Buffer,
    /// One for each stage of the program that has most.
    progress: Vec<StageProgress>,
    /// Results that were asked for.
    requested: Option<Results>,
}

impl CpuBackend {
    /// A backend with this many threads (at least one) and the best instructions there are.
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
        let mut regions = Vec::new();
        for _ in Region::ALL {
            regions.push(Buffer::zeroed(0, "nothing")?);
        }
        let regions = regions.try_into().expect("as many buffers as regions");
        let (scratch, partials) = (Buffer::zeroed(0, "nothing")?, Buffer::zeroed(0, "nothing")?);
        Ok(CpuBackend { level, pool, regions, scratch, partials, progress: Vec::new(), requested: None })
    }

    /// Threads that run programs.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether an operation needs more scratch or partial sums than `prepare` allocated.
    fn lacks_space(&self, op: &Op) -> bool {
        execute::scratch_len(op) * self.pool.threads() > self.scratch.as_slice().len()
            || execute::partials_len(op) > self.partials.as_slice().len()
    }

    fn thread_scratch_len(programs: &[&Program]) -> usize {
        let ops = programs.iter().flat_map(|program| program.ops());
        ops.map(|call| execute::scratch_len(&call.op)).max().unwrap_or(0)
    }

    fn partials_len(programs: &[&Program]) -> usize {
        let ops = programs.iter().flat_map(|program| program.ops());
        ops.map(|call| execute::partials_len(&call.op)).max().unwrap_or(0)
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn scratch_bytes(&self, programs: &[&Program]) -> usize {
        4 * (self.threads() * CpuBackend::thread_scratch_len(programs) + CpuBackend::partials_len(programs))
    }

    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError> {
        for region in Region::ALL {
            let slot = &mut self.regions[region.index()];
            *slot = Buffer::zeroed(0, "nothing")?;
            *slot = Buffer::zeroed(sizes.get(region), region_purpose(region))?;
        }
        let scratch_len = self.threads() * CpuBackend::thread_scratch_len(programs);
        self.scratch = Buffer::zeroed(scratch_len, "scratch space")?;
        self.partials = Buffer::zeroed(CpuBackend::partials_len(programs), "partial sums")?;
        let stages = programs.iter().map(|program| program.ops().iter().map(|call| execute::stages(&call.op)).sum());
        self.progress = (0..stages.max().unwrap_or(0)).map(|_| StageProgress::new(self.pool.threads())).collect();
        Ok(())
    }

    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        self.regions[region.index()].as_mut_slice()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        out.copy_from_slice(&self.regions[region.index()].as_slice()[offset..offset + out.len()]);
        Ok(())
    }

    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError> {
        let inputs = self.regions[Region::Inputs.index()].as_mut_slice();
        for (input, &token) in inputs[offset..offset + tokens.len()].iter_mut().zip(tokens) {
            *input = f32::from_bits(token);
        }
        Ok(())
    }

    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError> {
        for region in Region::ALL {
            let (needed, got) = (program.sizes().get(region), self.regions[region.index()].as_slice().len());
            if needed > got {
                return Err(BackendError::InvalidProgram(format!(
                    "{region:?} needs {needed} elements, {got} prepared"
                )));
            }
        }
        if let Some(timeline) = &timeline
            && (timeline.threads() < self.threads() || timeline.ops() < program.ops().len())
        {
            return Err(BackendError::InvalidProgram("the timeline is smaller than the program".into()));
        }
        let stages: usize = program.ops().iter().map(|call| execute::stages(&call.op)).sum();
        if stages > self.progress.len() || program.ops().iter().any(|call| self.lacks_space(&call.op)) {
            return Err(BackendError::InvalidProgram("it was not among those prepared, and needs more".into()));
        }
        self.progress[..stages].iter_mut().for_each(StageProgress::reset);
        let run = Run::new(
            self.level,
            program,
            args,
            &mut self.regions,
            &mut self.scratch,
            self.pool.threads(),
            &mut self.partials,
            &self.progress,
            timeline,
        );
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

fn region_purpose(region: Region) -> &'static str {
    match region {
        Region::Params => "parameters",
        Region::Grads => "gradients",
        Region::Moment1 | Region::Moment2 => "optimiser moments",
        Region::Activations => "activations",
        Region::Inputs => "tokens",
        Region::Results => "results",
        Region::KvCache => "the key-value cache",
        Region::Activations16 => "16-bit activations",
    }
}

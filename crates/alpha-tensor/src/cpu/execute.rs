//! Walking a program: its memory, stages and tasks.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::{
    activation, attention, dropout, embedding, gemm, head, layer_norm, linear,
    memory::{Buffer, Memory, Task},
    optimizer,
    pool::wait_until,
    simd::{Kernel, Level, Simd, dispatch},
};
use crate::{
    backend::{BackendError, RunArgs},
    op::{self, Op},
    program::Program,
    tensor::{Region, RegionSizes},
    timeline::{Span, Timeline},
};

/// Stages of an operation. A stage begins when all tasks of the one before are done.
fn stages(op: &Op) -> usize {
    match op {
        Op::CrossEntropy(_) | Op::GradNorm(_) | Op::AttentionCached(_) => 2,
        _ => 1,
    }
}

/// Elements of scratch space that a thread needs for an operation.
fn scratch_len(op: &Op) -> usize {
    gemm::PACK_A_LEN
        + match op {
            Op::Attention(op) => attention::scratch_len(op.qkv.rows / op.batch.max(1), op.out.cols / op.heads),
            Op::AttentionBwd(op) => attention::scratch_len(op.qkv.rows / op.batch.max(1), op.out.cols / op.heads),
            Op::AttentionCached(op) => attention::cached_scratch_len(op),
            _ => gemm::PACK_B_LEN,
        }
}

/// Elements for partial sums that threads share.
fn partials_len(op: &Op) -> usize {
    if let Op::GradNorm(op) = op { optimizer::grad_norm_partials(op) } else { 0 }
}

/// Tasks of one stage: more than one for each thread where that balances the load, but never so small
/// that taking a task costs as much as computing it.
fn tasks(op: &Op, stage: usize, threads: usize) -> usize {
    match op {
        Op::Embedding(op) => embedding::tasks(op),
        Op::EmbeddingBwd(op) => embedding::bwd_tasks(op),
        Op::LayerNorm(op) => layer_norm::tasks(op),
        Op::LayerNormBwd(op) => layer_norm::bwd_tasks(op),
        Op::Linear(op) => linear::grid(op, threads).tasks(),
        Op::LinearBwdInput(op) => linear::bwd_input_grid(op, threads).tasks(),
        Op::LinearBwdWeight(op) => linear::bwd_weight_grid(op, threads).tasks(),
        Op::Attention(op) => op.batch * op.heads,
        Op::AttentionBwd(op) => op.batch * op.heads,
        Op::AttentionCached(op) => attention::cached_tasks(op, stage),
        Op::Swiglu(op) => activation::tasks(op.out.rows),
        Op::SwigluBwd(op) => activation::tasks(op.out.rows),
        Op::Dropout(op) => activation::tasks(op.out.rows),
        Op::CrossEntropy(op) => head::cross_entropy_tasks(op, stage, threads),
        Op::HeadBwd(op) => head::bwd_grid(op, threads).tasks(),
        Op::Logits(op) => head::logits_grid(op, threads).tasks(),
        Op::LossSum(_) => 1,
        Op::Fill(op) => activation::fill_tasks(op),
        Op::GradNorm(op) => optimizer::grad_norm_tasks(op, stage),
        Op::AdamW(op) => optimizer::adamw_tasks(op),
    }
}

/// A counter on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// Progress of a stage.
struct StageProgress {
    /// Tasks taken from each thread's share.
    taken: Vec<Counter>,
    /// Tasks done.
    done: Counter,
}

impl StageProgress {
    fn new(threads: usize) -> StageProgress {
        StageProgress { taken: (0..threads).map(|_| Counter::default()).collect(), done: Counter::default() }
    }

    fn reset(&mut self) {
        *self.done.0.get_mut() = 0;
        for taken in &mut self.taken {
            *taken.0.get_mut() = 0;
        }
    }

    /// Gives this thread its share of the stage's tasks, in order, then the remaining tasks of others,
    /// and returns when all are done. Threads wait for tasks, not for threads: one that another program
    /// keeps from running delays the others only if it has a task.
    fn share(&self, tasks: usize, thread: usize, mut run: impl FnMut(usize)) {
        let threads = self.taken.len();
        for turn in 0..threads {
            let owner = (thread + turn) % threads;
            let (start, end) = (tasks * owner / threads, tasks * (owner + 1) / threads);
            loop {
                let task = start + self.taken[owner].0.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                run(task);
                self.done.0.fetch_add(1, Ordering::Release);
            }
        }
        wait_until(|| self.done.0.load(Ordering::Acquire) == tasks);
    }
}

/// The memory that programs run on, allocated before the first run.
pub(super) struct Prepared {
    threads: usize,
    pub(super) regions: [Buffer; Region::ALL.len()],
    /// Packing and attention space, a part for each thread.
    scratch: Buffer,
    /// Partial sums of reductions over all parameters, shared by the threads.
    partials: Buffer,
    /// One for each stage of the program that has most.
    progress: Vec<StageProgress>,
}

impl Prepared {
    /// No memory yet, for this many threads.
    pub(super) fn empty(threads: usize) -> Prepared {
        let regions = std::array::from_fn(|_| Buffer::default());
        Prepared { threads, regions, scratch: Buffer::default(), partials: Buffer::default(), progress: Vec::new() }
    }

    /// Elements of scratch space of all threads, and of partial sums.
    fn extra_lens<'a>(ops: impl Iterator<Item = &'a Op>, threads: usize) -> (usize, usize) {
        ops.fold((0, 0), |(scratch, partials), op| {
            (scratch.max(threads * scratch_len(op)), partials.max(partials_len(op)))
        })
    }

    /// Bytes beyond the regions.
    pub(super) fn extra_bytes(&self, programs: &[&Program]) -> usize {
        let (scratch, partials) = Prepared::extra_lens(ops_of(programs), self.threads);
        4 * (scratch + partials)
    }

    /// Frees all memory, then allocates for these programs.
    pub(super) fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError> {
        *self = Prepared::empty(self.threads);
        for region in Region::ALL {
            self.regions[region.index()] = Buffer::zeroed(sizes.get(region), region_purpose(region))?;
        }
        let (scratch, partials) = Prepared::extra_lens(ops_of(programs), self.threads);
        self.scratch = Buffer::zeroed(scratch, "scratch space")?;
        self.partials = Buffer::zeroed(partials, "partial sums")?;
        let stages = programs.iter().map(|program| program.ops().iter().map(|call| stages(&call.op)).sum());
        self.progress = (0..stages.max().unwrap_or(0)).map(|_| StageProgress::new(self.threads)).collect();
        Ok(())
    }

    /// Refuses a program that needs more than was allocated.
    pub(super) fn check(&self, program: &Program) -> Result<(), BackendError> {
        for region in Region::ALL {
            let (needed, got) = (program.sizes().get(region), self.regions[region.index()].as_slice().len());
            if needed > got {
                return Err(BackendError::InvalidProgram(format!(
                    "{region:?} needs {needed} elements, {got} prepared"
                )));
            }
        }
        let (scratch, partials) = Prepared::extra_lens(program.ops().iter().map(|call| &call.op), self.threads);
        let stages: usize = program.ops().iter().map(|call| stages(&call.op)).sum();
        let has_room = stages <= self.progress.len()
            && scratch <= self.scratch.as_slice().len()
            && partials <= self.partials.as_slice().len();
        if has_room {
            Ok(())
        } else {
            Err(BackendError::InvalidProgram("it was not among those prepared, and needs more".into()))
        }
    }
}

fn ops_of<'a>(programs: &'a [&Program]) -> impl Iterator<Item = &'a Op> {
    programs.iter().flat_map(|program| program.ops()).map(|call| &call.op)
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

/// One run of a program, shared by all threads.
pub(super) struct Run<'a> {
    level: Level,
    program: &'a Program,
    threads: usize,
    memory: Memory<'a>,
    /// Scratch of all threads, and how much of it each has.
    scratch: AtomicPtr<f32>,
    scratch_len: usize,
    progress: &'a [StageProgress],
    timeline: Option<(std::time::Instant, AtomicPtr<Span>, usize)>,
}

impl<'a> Run<'a> {
    /// A run of a program that passed [`Prepared::check`]; the timeline has room for it.
    pub(super) fn new(
        level: Level,
        prepared: &'a mut Prepared,
        program: &'a Program,
        args: &'a RunArgs,
        timeline: Option<&'a mut Timeline>,
    ) -> Run<'a> {
        let Prepared { threads, regions, scratch, partials, progress } = prepared;
        let pointer = |buffer: &mut Buffer| AtomicPtr::new(buffer.as_mut_ptr());
        progress.iter_mut().for_each(StageProgress::reset);
        Run {
            level,
            program,
            threads: *threads,
            memory: Memory { args, regions: regions.each_mut().map(pointer), partials: pointer(partials) },
            scratch_len: scratch.as_slice().len() / *threads,
            scratch: pointer(scratch),
            progress,
            timeline: timeline.map(|t| (t.origin, AtomicPtr::new(t.spans_mut().as_mut_ptr()), t.ops())),
        }
    }

    /// The work of one thread.
    pub(super) fn walk(&self, thread: usize) {
        let len = self.scratch_len;
        // SAFETY: the buffer holds `threads · len` elements; every thread has its own part.
        let scratch =
            unsafe { std::slice::from_raw_parts_mut(self.scratch.load(Ordering::Relaxed).add(thread * len), len) };
        let mut progress = self.progress.iter();
        for (index, call) in self.program.ops().iter().enumerate() {
            let start_ns = self.now_ns();
            for stage in 0..stages(&call.op) {
                let tasks = tasks(&call.op, stage, self.threads);
                let stage_progress = progress.next().expect("`prepare` counted the stages of every program");
                stage_progress.share(tasks, thread, |index| {
                    let task = Task { memory: &self.memory, threads: self.threads, stage, index, scratch };
                    run_task(self.level, &call.op, task);
                });
            }
            self.record(thread, index, start_ns);
        }
    }

    fn now_ns(&self) -> u64 {
        self.timeline.as_ref().map_or(0, |(origin, _, _)| origin.elapsed().as_nanos() as u64)
    }

    fn record(&self, thread: usize, op: usize, start_ns: u64) {
        if let Some((_, spans, ops)) = &self.timeline {
            let span = Span { start_ns, end_ns: self.now_ns() };
            // SAFETY: `run` checked that the timeline has this thread and operation; each
            // thread writes only its own spans.
            unsafe { *spans.load(Ordering::Relaxed).add(thread * ops + op) = span };
        }
    }
}

/// Names the function that runs a task of each operation. Each becomes a kernel of its own, named after its operation: the
/// compiler then keeps their code apart, and an edit of one recompiles that one alone.
macro_rules! kernels {
    ($($op:ident => $module:ident::$run:ident;)*) => {
        $(impl Kernel for (&op::$op, Task<'_>) {
            #[inline(always)]
            fn run<S: Simd>(self, simd: S) {
                $module::$run(simd, self.0, self.1);
            }
        })*

        fn run_task(level: Level, op: &Op, task: Task<'_>) {
            match op {
                $(Op::$op(op) => dispatch(level, (op, task)),)*
            }
        }
    };
}

kernels! {
    Embedding => embedding::run;
    EmbeddingBwd => embedding::run_bwd;
    LayerNorm => layer_norm::run;
    LayerNormBwd => layer_norm::run_bwd;
    Linear => linear::run;
    LinearBwdInput => linear::run_bwd_input;
    LinearBwdWeight => linear::run_bwd_weight;
    Attention => attention::run;
    AttentionBwd => attention::run_bwd;
    AttentionCached => attention::run_cached;
    Swiglu => activation::run_swiglu;
    SwigluBwd => activation::run_swiglu_bwd;
    Dropout => dropout::run;
    CrossEntropy => head::run_cross_entropy;
    HeadBwd => head::run_bwd;
    Logits => head::run_logits;
    LossSum => head::run_loss_sum;
    Fill => activation::run_fill;
    GradNorm => optimizer::run_grad_norm;
    AdamW => optimizer::run_adamw;
}

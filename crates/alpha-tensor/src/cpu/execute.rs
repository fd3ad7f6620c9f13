//! Walking a program: stages, tasks, and access to the regions.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::{
    activation, attention, dropout, embedding, gemm, head, layer_norm, linear,
    memory::Buffer,
    optimizer,
    pool::wait_until,
    simd::{Kernel, Level, Simd, dispatch},
};
use crate::{
    backend::RunArgs,
    op::{self, Op},
    program::Program,
    tensor::{Region, Tensor},
    timeline::{Span, Timeline},
};

/// Stages of an operation. A stage begins when all tasks of the one before are done.
pub(super) fn stages(op: &Op) -> usize {
    match op {
        Op::CrossEntropy(_) | Op::GradNorm(_) | Op::AttentionCached(_) => 2,
        _ => 1,
    }
}

/// Elements of scratch space that a thread needs for an operation.
pub(super) fn scratch_len(op: &Op) -> usize {
    gemm::PACK_A_LEN
        + match op {
            Op::Attention(op) => attention::scratch_len(op.qkv.rows / op.batch.max(1), op.out.cols / op.heads),
            Op::AttentionBwd(op) => attention::scratch_len(op.qkv.rows / op.batch.max(1), op.out.cols / op.heads),
            Op::AttentionCached(op) => attention::cached_scratch_len(op),
            _ => gemm::PACK_B_LEN,
        }
}

/// Elements for partial sums that threads share.
pub(super) fn partials_len(op: &Op) -> usize {
    if let Op::GradNorm(op) = op { optimizer::grad_norm_partials(op) } else { 0 }
}

/// Tasks of one stage. More than one a thread where that evens out the work, never so many
/// that taking a task costs as much as doing it.
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

/// How far a stage has come.
pub(super) struct StageProgress {
    /// Tasks taken from each thread's share.
    taken: Vec<Counter>,
    /// Tasks done.
    done: Counter,
}

impl StageProgress {
    pub(super) fn new(threads: usize) -> StageProgress {
        StageProgress { taken: (0..threads).map(|_| Counter::default()).collect(), done: Counter::default() }
    }

    pub(super) fn reset(&mut self) {
        *self.done.0.get_mut() = 0;
        for taken in &mut self.taken {
            *taken.0.get_mut() = 0;
        }
    }

    /// Gives this thread its share of the stage's tasks, in order, then what is left of others',
    /// and returns when all are done. Nobody waits for a *thread*: one that another program keeps
    /// from running holds up the others only if it has a task, and finds the work done later.
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
    #[expect(clippy::too_many_arguments, reason = "the parts of a backend, borrowed apart")]
    pub(super) fn new(
        level: Level,
        program: &'a Program,
        args: &'a RunArgs,
        regions: &'a mut [Buffer; Region::ALL.len()],
        scratch: &'a mut Buffer,
        threads: usize,
        partials: &'a mut Buffer,
        progress: &'a [StageProgress],
        timeline: Option<&'a mut Timeline>,
    ) -> Run<'a> {
        let pointer = |buffer: &mut Buffer| AtomicPtr::new(buffer.as_mut_ptr());
        Run {
            level,
            program,
            threads,
            memory: Memory { args, regions: regions.each_mut().map(pointer), partials: pointer(partials) },
            scratch_len: scratch.as_slice().len() / threads,
            scratch: pointer(scratch),
            progress,
            timeline: timeline.map(|t| (t.origin, AtomicPtr::new(t.spans_mut().as_mut_ptr()), t.ops())),
        }
    }

    /// What one thread does.
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

/// The regions during a run.
///
/// Safety rests on two facts: A [`Program`] is verified: every operand lies inside its
/// region and that operands which an operation writes overlap none of its others (but for exact
/// in-place use), and tasks of one stage write disjoint parts.
pub(super) struct Memory<'a> {
    pub(super) args: &'a RunArgs,
    regions: [AtomicPtr<f32>; Region::ALL.len()],
    partials: AtomicPtr<f32>,
}

impl Memory<'_> {
    /// Start of a tensor.
    pub(super) fn ptr(&self, tensor: &Tensor) -> *mut f32 {
        let region = self.regions[tensor.region.index()].load(Ordering::Relaxed);
        // SAFETY: verified to lie inside its region.
        unsafe { region.add(tensor.offset) }
    }

    /// Elements `start..end` of a tensor that no task of this stage writes.
    #[inline(always)]
    pub(super) fn read(&self, tensor: &Tensor, start: usize, end: usize) -> &[f32] {
        assert!(start <= end && end <= tensor.len());
        // SAFETY: inside the tensor; not written during the stage (see `Memory`).
        unsafe { std::slice::from_raw_parts(self.ptr(tensor).add(start), end - start) }
    }

    /// A whole tensor.
    #[inline(always)]
    pub(super) fn all(&self, tensor: &Tensor) -> &[f32] {
        self.read(tensor, 0, tensor.len())
    }

    /// Row `row` of a tensor that no task of this stage writes.
    #[inline(always)]
    pub(super) fn row(&self, tensor: &Tensor, row: usize) -> &[f32] {
        self.read(tensor, row * tensor.cols, (row + 1) * tensor.cols)
    }

    /// Elements `start..end` of a tensor, to write.
    ///
    /// # Safety
    /// Nobody else touches these elements during the stage, and the caller holds no other
    /// slice of them.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "tasks write disjoint parts of shared memory")]
    pub(super) unsafe fn write(&self, tensor: &Tensor, start: usize, end: usize) -> &mut [f32] {
        assert!(start <= end && end <= tensor.len());
        // SAFETY: inside the tensor; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(tensor).add(start), end - start) }
    }

    /// Row `row` of a tensor, to write.
    ///
    /// # Safety
    /// As [`Memory::write`].
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "tasks write disjoint parts of shared memory")]
    pub(super) unsafe fn row_mut(&self, tensor: &Tensor, row: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.write(tensor, row * tensor.cols, (row + 1) * tensor.cols) }
    }

    /// Token ids.
    #[inline(always)]
    pub(super) fn tokens(&self, tensor: &Tensor) -> &[u32] {
        assert!(tensor.region == Region::Inputs);
        // SAFETY: inside the tensor; inputs are written between runs only; u32 and f32 have
        // the same size and alignment.
        unsafe { std::slice::from_raw_parts(self.ptr(tensor).cast::<u32>(), tensor.len()) }
    }

    /// Slot `index` of the shared partial sums.
    #[expect(clippy::cast_ptr_alignment, reason = "the buffer begins on a page")]
    pub(super) fn partial(&self, index: usize) -> *mut f64 {
        // SAFETY: slots are `partials_len` elements long in all; two elements a slot.
        unsafe { self.partials.load(Ordering::Relaxed).cast::<f64>().add(index) }
    }
}

/// One task of one stage of an operation.
struct Task<'a, 'm> {
    memory: &'a Memory<'m>,
    threads: usize,
    stage: usize,
    index: usize,
    scratch: &'a mut [f32],
}

/// Says what runs a task of each operation. Each becomes a kernel of its own, named by its operation: the compiler then
/// keeps their code apart, and an edit of one compiles that one.
macro_rules! kernels {
    ($($op:ident => |$simd:ident, $call:ident, $task:ident| $run:expr;)*) => {
        $(impl Kernel for (&op::$op, Task<'_, '_>) {
            #[inline(always)]
            fn run<S: Simd>(self, $simd: S) {
                let ($call, $task) = self;
                $run;
            }
        })*

        fn run_task(level: Level, op: &Op, task: Task<'_, '_>) {
            match op {
                $(Op::$op(op) => dispatch(level, (op, task)),)*
            }
        }
    };
}

kernels! {
    Embedding => |s, op, t| embedding::run(s, op, t.memory, t.index);
    EmbeddingBwd => |s, op, t| embedding::run_bwd(s, op, t.memory, t.index);
    LayerNorm => |s, op, t| layer_norm::run(s, op, t.memory, t.index);
    LayerNormBwd => |s, op, t| layer_norm::run_bwd(s, op, t.memory, t.index);
    Linear => |s, op, t| linear::run(s, op, t.memory, t.threads, t.index, t.scratch);
    LinearBwdInput => |s, op, t| linear::run_bwd_input(s, op, t.memory, t.threads, t.index, t.scratch);
    LinearBwdWeight => |s, op, t| linear::run_bwd_weight(s, op, t.memory, t.threads, t.index, t.scratch);
    Attention => |s, op, t| attention::run(s, op, t.memory, t.index, t.scratch);
    AttentionBwd => |s, op, t| attention::run_bwd(s, op, t.memory, t.index, t.scratch);
    AttentionCached => |s, op, t| attention::run_cached(s, op, t.memory, t.stage, t.index, t.scratch);
    Swiglu => |s, op, t| activation::run_swiglu(s, op, t.memory, t.index);
    SwigluBwd => |s, op, t| activation::run_swiglu_bwd(s, op, t.memory, t.index);
    Dropout => |_s, op, t| dropout::run(op, t.memory, t.index);
    CrossEntropy => |s, op, t| head::run_cross_entropy(s, op, t.memory, t.threads, t.stage, t.index, t.scratch);
    HeadBwd => |s, op, t| head::run_bwd(s, op, t.memory, t.threads, t.index, t.scratch);
    Logits => |s, op, t| head::run_logits(s, op, t.memory, t.threads, t.index, t.scratch);
    LossSum => |_s, op, t| head::run_loss_sum(op, t.memory);
    Fill => |_s, op, t| activation::run_fill(op, t.memory, t.index);
    GradNorm => |s, op, t| optimizer::run_grad_norm(s, op, t.memory, t.stage, t.index);
    AdamW => |s, op, t| optimizer::run_adamw(s, op, t.memory, t.index);
}

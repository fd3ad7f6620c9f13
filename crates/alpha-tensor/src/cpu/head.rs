//! Head and cross-entropy. The chunk of logits is kept transposed, `[vocab, r]`: then neither
//! the large head weight nor its gradient is ever read across its rows, a vector holds the
//! same logit of many tokens, and the softmax needs no sums across a vector.

use std::ops::Range;

use super::{
    gemm::View,
    linear::{Grid, Product, Tile},
    memory::{Memory, Task},
    simd::{Simd, exp, load_at, store_at},
};
use crate::op::{CrossEntropy, HeadBwd, IGNORED_TARGET, Logits, LossSum};

/// Tokens of a softmax task: two cache lines of each row of logits.
const TOKENS_PER_TASK: usize = 32;

pub(super) fn cross_entropy_tasks(op: &CrossEntropy, stage: usize, threads: usize) -> usize {
    if stage == 0 { cross_entropy_grid(op, threads).tasks() } else { op.x.rows.div_ceil(TOKENS_PER_TASK) }
}

fn cross_entropy_grid(op: &CrossEntropy, threads: usize) -> Grid {
    Grid::new(op.weight.rows, op.x.rows, op.x.cols, threads)
}

#[inline(always)]
pub(super) fn run_cross_entropy<S: Simd>(s: S, op: &CrossEntropy, task: Task) {
    let memory = task.memory;
    if task.stage == 0 {
        let tile = cross_entropy_grid(op, task.threads).tile(task.index);
        let product = Product {
            a: View::row_major(memory.ptr(&op.weight), op.weight.cols),
            b: View::row_major(memory.ptr(&op.x), op.x.cols).transposed(),
            c: memory.ptr(&op.scratch),
            ldc: op.x.rows,
            k: op.x.cols,
            accumulate: false,
        };
        // SAFETY: shapes are those of the operation; each task has its own tile.
        unsafe { product.compute(s, tile, task.scratch) };
        return;
    }
    let Range { start: first, end } = task.range(op.x.rows, TOKENS_PER_TASK);
    for start in (first..end).step_by(S::LANES) {
        softmax(s, op, memory, start, (end - start).min(S::LANES));
    }
}

/// Loss and gradient of tokens `start..start + len`, one in each lane.
#[inline(always)]
fn softmax<S: Simd>(s: S, op: &CrossEntropy, memory: &Memory, start: usize, len: usize) {
    let tokens = op.x.rows;
    let vocab = op.weight.rows;
    // SAFETY: each task reads and writes its own columns of the logits, one row at a time.
    let logits = |v: usize| unsafe { memory.write(&op.scratch, v * tokens + start, v * tokens + start + len) };
    let mut max = s.splat(f32::NEG_INFINITY);
    for v in 0..vocab {
        max = s.max(max, load_at(s, logits(v), 0, len));
    }
    let mut sum = s.splat(0.0);
    for v in 0..vocab {
        sum = s.add(sum, exp(s, s.sub(load_at(s, logits(v), 0, len), max)));
    }
    let mut maxima = [0.0f32; 16];
    let mut sums = [0.0f32; 16];
    s.store(&mut maxima, max);
    s.store(&mut sums, sum);
    let grad_scale = op.grad_scale.map(|scale| scale * memory.args.loss_scale);
    let targets = &memory.tokens(&op.targets)[start..start + len];
    // SAFETY: each task writes its own tokens.
    let losses = unsafe { memory.write(&op.loss, start, start + len) };
    let mut scales = [0.0f32; 16];
    for (lane, (&target, loss)) in targets.iter().zip(losses).enumerate() {
        *loss = if target == IGNORED_TARGET {
            0.0
        } else {
            scales[lane] = grad_scale.unwrap_or(0.0);
            // The difference first: it is exact where the two are close.
            sums[lane].ln() - (logits(target as usize)[lane] - maxima[lane])
        };
    }
    let Some(grad_scale) = grad_scale else { return };
    let factor = s.div(s.load(&scales), sum);
    for v in 0..vocab {
        let row = logits(v);
        let gradient = s.mul(exp(s, s.sub(load_at(s, row, 0, len), max)), factor);
        store_at(s, row, 0, len, gradient);
    }
    for (lane, &target) in targets.iter().enumerate() {
        if target != IGNORED_TARGET {
            logits(target as usize)[lane] -= grad_scale;
        }
    }
}

/// The two products of the head's backward share one list of tasks.
pub(super) struct BwdGrid {
    dweight: Grid,
    dx: Grid,
}

impl BwdGrid {
    pub(super) fn tasks(&self) -> usize {
        self.dweight.tasks() + self.dx.tasks()
    }
}

pub(super) fn bwd_grid(op: &HeadBwd, threads: usize) -> BwdGrid {
    BwdGrid {
        dweight: Grid::new(op.dweight.rows, op.dweight.cols, op.x.rows, threads),
        dx: Grid::new(op.dx.rows, op.dx.cols, op.weight.rows, threads),
    }
}

#[inline(always)]
pub(super) fn run_bwd<S: Simd>(s: S, op: &HeadBwd, task: Task) {
    let memory = task.memory;
    let grid = bwd_grid(op, task.threads);
    let dlogits = View::row_major(memory.ptr(&op.scratch), op.x.rows);
    let (product, tile): (Product, Tile) = match task.index.checked_sub(grid.dx.tasks()) {
        None => {
            let product = Product {
                a: dlogits.transposed(),
                b: View::row_major(memory.ptr(&op.weight), op.weight.cols),
                c: memory.ptr(&op.dx),
                ldc: op.dx.cols,
                k: op.weight.rows,
                accumulate: false,
            };
            (product, grid.dx.tile(task.index))
        }
        Some(index) => {
            let product = Product {
                a: dlogits,
                b: View::row_major(memory.ptr(&op.x), op.x.cols),
                c: memory.ptr(&op.dweight),
                ldc: op.dweight.cols,
                k: op.x.rows,
                accumulate: op.accumulate,
            };
            (product, grid.dweight.tile(index))
        }
    };
    // SAFETY: shapes are those of the operation; each task has its own tile.
    unsafe { product.compute(s, tile, task.scratch) };
}

pub(super) fn logits_grid(op: &Logits, threads: usize) -> Grid {
    Grid::new(op.out.rows, op.out.cols, op.x.cols, threads)
}

#[inline(always)]
pub(super) fn run_logits<S: Simd>(s: S, op: &Logits, task: Task) {
    let memory = task.memory;
    let tile = logits_grid(op, task.threads).tile(task.index);
    let product = Product {
        a: View::row_major(memory.ptr(&op.x), op.x.cols),
        b: View::row_major(memory.ptr(&op.weight), op.weight.cols).transposed(),
        c: memory.ptr(&op.out),
        ldc: op.out.cols,
        k: op.x.cols,
        accumulate: false,
    };
    // SAFETY: shapes are those of the operation; each task has its own tile.
    unsafe { product.compute(s, tile, task.scratch) };
}

pub(super) fn run_loss_sum<S: Simd>(_: S, op: &LossSum, task: Task) {
    let memory = task.memory;
    let sum: f64 = memory.all(&op.loss).iter().map(|&loss| f64::from(loss)).sum();
    let scaled = sum * f64::from(op.scale);
    // SAFETY: the only task.
    let out = unsafe { memory.write(&op.out, 0, 1) };
    out[0] = if op.accumulate { (f64::from(out[0]) + scaled) as f32 } else { scaled as f32 };
}

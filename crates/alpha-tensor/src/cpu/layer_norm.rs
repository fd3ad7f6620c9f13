//! Layer norm: forward and the input's gradient row by row; the parameters' gradients by
//! columns, over all rows, so that no partial sums are needed.

use std::ops::Range;

use super::{
    memory::{ROWS_PER_TASK, Task},
    simd::{Simd, fold, load_at, update},
};
use crate::op::{LayerNorm, LayerNormBwd};

/// Columns of a task for the parameters' gradients.
const COLS_PER_TASK: usize = 64;

pub(super) fn tasks(op: &LayerNorm) -> usize {
    op.x.rows.div_ceil(ROWS_PER_TASK)
}

#[inline(always)]
pub(super) fn run<S: Simd>(s: S, op: &LayerNorm, task: Task) {
    let memory = task.memory;
    let cols = op.x.cols;
    let weight = memory.all(&op.weight);
    let bias = op.bias.as_ref().map(|bias| memory.all(bias));
    for row in task.range(op.x.rows, ROWS_PER_TASK) {
        let x = memory.row(&op.x, row);
        let sum = fold!(s, cols, s.splat(0.0), |at, len, sum| s.add(sum, load_at(s, x, at, len)));
        let mean = s.reduce_add(sum) / cols as f32;
        // Squares of the differences, not the difference of squares: nothing cancels.
        let squares = fold!(s, cols, s.splat(0.0), |at, len, sum| {
            if len == S::LANES {
                let centred = s.sub(load_at(s, x, at, len), s.splat(mean));
                s.fma(centred, centred, sum)
            } else {
                sum
            }
        });
        let tail: f32 = x[cols - cols % S::LANES..].iter().map(|x| (x - mean) * (x - mean)).sum();
        let rstd = 1.0 / ((s.reduce_add(squares) + tail) / cols as f32 + op.eps).sqrt();
        // SAFETY: each task writes its own rows.
        unsafe {
            memory.write(&op.mean, row, row + 1)[0] = mean;
            memory.write(&op.rstd, row, row + 1)[0] = rstd;
        }
        // SAFETY: as above.
        let y = unsafe { memory.row_mut(&op.y, row) };
        let (rstd, shift) = (s.splat(rstd), s.splat(-mean * rstd));
        update!(s, y, |at, len, _| {
            let normed = s.fma(load_at(s, x, at, len), rstd, shift);
            let weight = load_at(s, weight, at, len);
            match bias {
                Some(bias) => s.fma(normed, weight, load_at(s, bias, at, len)),
                None => s.mul(normed, weight),
            }
        });
    }
}

fn row_tasks(op: &LayerNormBwd) -> usize {
    op.x.rows.div_ceil(ROWS_PER_TASK)
}

pub(super) fn bwd_tasks(op: &LayerNormBwd) -> usize {
    row_tasks(op) + op.x.cols.div_ceil(COLS_PER_TASK)
}

#[inline(always)]
pub(super) fn run_bwd<S: Simd>(s: S, op: &LayerNormBwd, task: Task) {
    match task.index.checked_sub(row_tasks(op)) {
        None => run_bwd_rows(s, op, task),
        Some(index) => run_bwd_cols(s, op, Task { index, ..task }),
    }
}

#[inline(always)]
fn run_bwd_rows<S: Simd>(s: S, op: &LayerNormBwd, task: Task) {
    let memory = task.memory;
    let cols = op.x.cols;
    let weight = memory.all(&op.weight);
    let (means, rstds) = (memory.all(&op.mean), memory.all(&op.rstd));
    for row in task.range(op.x.rows, ROWS_PER_TASK) {
        let (x, dy) = (memory.row(&op.x, row), memory.row(&op.dy, row));
        let (rstd, shift) = (s.splat(rstds[row]), s.splat(-means[row] * rstds[row]));
        let zero = s.splat(0.0);
        let (sum, dot) = fold!(s, cols, (zero, zero), |at, len, (sum, dot)| {
            let g = s.mul(load_at(s, dy, at, len), load_at(s, weight, at, len));
            let normed = s.fma(load_at(s, x, at, len), rstd, shift);
            (s.add(sum, g), s.fma(g, normed, dot))
        });
        let mean_g = s.splat(s.reduce_add(sum) / cols as f32);
        let mean_dot = s.splat(s.reduce_add(dot) / cols as f32);
        // SAFETY: each task writes its own rows.
        let dx = unsafe { memory.row_mut(&op.dx, row) };
        update!(s, dx, |at, len, old| {
            let g = s.mul(load_at(s, dy, at, len), load_at(s, weight, at, len));
            let normed = s.fma(load_at(s, x, at, len), rstd, shift);
            let inner = s.fnma(normed, mean_dot, s.sub(g, mean_g));
            if op.accumulate_dx { s.fma(rstd, inner, old) } else { s.mul(rstd, inner) }
        });
    }
}

#[inline(always)]
fn run_bwd_cols<S: Simd>(s: S, op: &LayerNormBwd, task: Task) {
    let memory = task.memory;
    let cols = op.x.cols;
    let Range { start, end } = task.range(cols, COLS_PER_TASK);
    let (means, rstds) = (memory.all(&op.mean), memory.all(&op.rstd));
    let mut dweight_sums = [0.0f32; COLS_PER_TASK];
    let mut dbias_sums = [0.0f32; COLS_PER_TASK];
    let width = end - start;
    for row in 0..op.x.rows {
        let x = memory.read(&op.x, row * cols + start, row * cols + end);
        let dy = memory.read(&op.dy, row * cols + start, row * cols + end);
        let (rstd, shift) = (s.splat(rstds[row]), s.splat(-means[row] * rstds[row]));
        update!(s, &mut dweight_sums[..width], |at, len, sum| {
            s.fma(load_at(s, dy, at, len), s.fma(load_at(s, x, at, len), rstd, shift), sum)
        });
        update!(s, &mut dbias_sums[..width], |at, len, sum| s.add(sum, load_at(s, dy, at, len)));
    }
    let gradients = [Some((&op.dweight, &dweight_sums)), op.dbias.as_ref().map(|dbias| (dbias, &dbias_sums))];
    for (tensor, sums) in gradients.into_iter().flatten() {
        // SAFETY: each task writes its own columns.
        let gradient = unsafe { memory.write(tensor, start, end) };
        update!(s, gradient, |at, len, old| {
            let sum = load_at(s, &sums[..width], at, len);
            if op.accumulate { s.add(old, sum) } else { sum }
        });
    }
}

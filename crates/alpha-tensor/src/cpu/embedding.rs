//! Embedding lookup and its scatter-add, cut by rows forward and by columns backward.

use std::ops::Range;

use super::{
    memory::{ROWS_PER_TASK, Task},
    simd::{Simd, load_at, update},
};
use crate::op::{Embedding, EmbeddingBwd};

/// Columns of a backward task: several tokens may be the same, so that rows of `dwte` can't
/// be shared out, but columns can.
const COLS_PER_TASK: usize = 64;

pub(super) fn tasks(op: &Embedding) -> usize {
    op.out.rows.div_ceil(ROWS_PER_TASK)
}

#[inline(always)]
pub(super) fn run<S: Simd>(s: S, op: &Embedding, task: Task) {
    let memory = task.memory;
    let tokens = memory.tokens(&op.tokens);
    let rows = task.range(op.out.rows, ROWS_PER_TASK);
    for (row, &token) in rows.clone().zip(&tokens[rows]) {
        let token = memory.row(&op.wte, token as usize);
        let position = memory.row(&op.wpe, memory.args.position + row % op.block);
        // SAFETY: each task writes its own rows.
        let out = unsafe { memory.row_mut(&op.out, row) };
        update!(s, out, |at, len, _| s.add(load_at(s, token, at, len), load_at(s, position, at, len)));
    }
}

pub(super) fn bwd_tasks(op: &EmbeddingBwd) -> usize {
    op.dout.cols.div_ceil(COLS_PER_TASK)
}

#[inline(always)]
pub(super) fn run_bwd<S: Simd>(s: S, op: &EmbeddingBwd, task: Task) {
    let memory = task.memory;
    let cols = op.dout.cols;
    let Range { start, end } = task.range(cols, COLS_PER_TASK);
    let tokens = memory.tokens(&op.tokens);
    if !op.accumulate {
        for row in 0..op.dwpe.rows {
            // SAFETY: each task writes its own columns.
            unsafe { memory.write(&op.dwpe, row * cols + start, row * cols + end) }.fill(0.0);
        }
    }
    for (row, &token) in tokens.iter().enumerate() {
        let dout = memory.read(&op.dout, row * cols + start, row * cols + end);
        for (tensor, target) in [(&op.dwte, token as usize), (&op.dwpe, row % op.block)] {
            // SAFETY: each task writes its own columns, of one row at a time.
            let sum = unsafe { memory.write(tensor, target * cols + start, target * cols + end) };
            update!(s, sum, |at, len, sum| s.add(sum, load_at(s, dout, at, len)));
        }
    }
}

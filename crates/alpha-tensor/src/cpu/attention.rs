//! Causal attention, one task for each sequence and head.
//!
//! Scores exist for [`QUERY_BLOCK`] queries at a time, against the keys up to the last of them,
//! in the thread's scratch. Keys and values are packed once for the whole head; all five
//! products go through the same micro-kernel as the linear layers.

use super::{
    gemm::{Gemm, PACK_A_LEN, Right, View, pack_b},
    memory::{Memory, Task},
    simd::{MAX_ROWS, Simd, exp, fold, load_at, update},
};
use crate::{
    op::{Attention, AttentionBwd, AttentionCached, DropoutMask},
    rng::Key,
    tensor::Tensor,
};

/// Queries whose scores exist at a time.
const QUERY_BLOCK: usize = 4 * MAX_ROWS;
/// Widest vector; packed widths are multiples of it for every level.
const MAX_LANES: usize = 16;

/// Scratch beyond the packing space of A: packed keys (both ways), values, and a block of
/// queries and output gradients; scores and their gradients.
pub(super) fn scratch_len(block: usize, head_dim: usize) -> usize {
    let (padded_block, padded_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    2 * head_dim * padded_block + block * padded_head + 2 * QUERY_BLOCK * padded_head + 2 * QUERY_BLOCK * padded_block
}

/// Scratch space that is handed out in pieces.
struct Space<'a>(&'a mut [f32]);

impl<'a> Space<'a> {
    /// Cuts `len` elements off the front.
    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (front, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        front
    }
}

/// Dropout of a row of probabilities: which are dropped, and the factor of the rest.
#[derive(Clone, Copy)]
struct RowMask {
    key: Key,
    threshold: u32,
    scale: f32,
    row: usize,
}

impl RowMask {
    fn new(memory: &Memory, mask: DropoutMask, row: usize) -> RowMask {
        let args = memory.args;
        let key = mask.key(args.seed, args.step, args.micro_step);
        RowMask { key, threshold: mask.threshold(), scale: mask.scale(), row }
    }

    #[inline(always)]
    fn apply(&self, values: &mut [f32]) {
        for (col, value) in values.iter_mut().enumerate() {
            *value *= if DropoutMask::keeps(self.key, self.threshold, self.row, col) { self.scale } else { 0.0 };
        }
    }
}

/// The head of a sequence that a task computes.
#[derive(Clone, Copy)]
struct Head {
    /// Tokens of the sequence, and its first row.
    block: usize,
    first_row: usize,
    /// Columns of all heads, of this one, and its first.
    c: usize,
    dim: usize,
    first_col: usize,
    /// Row of `lse` and of dropout that belongs to the first token.
    first_lse: usize,
}

impl Head {
    fn new(out: &Tensor, batch: usize, heads: usize, task: usize) -> Head {
        let (block, c) = (out.rows / batch, out.cols);
        let (dim, first_row) = (c / heads, task / heads * block);
        Head { block, first_row, c, dim, first_col: task % heads * dim, first_lse: task * block }
    }

    /// The head's queries, keys and values in a tensor `[b·t, 3c]`, or their gradients.
    ///
    /// # Safety
    /// The tensor is `[b·t, 3c]`.
    unsafe fn thirds(&self, qkv: *mut f32) -> [*mut f32; 3] {
        // SAFETY: rows of this sequence, columns of this head, in each third.
        [0, 1, 2].map(|third| unsafe { qkv.add((self.first_row * 3 + third) * self.c + self.first_col) })
    }

    /// The head's part of a tensor `[b·t, c]` from token `start` on.
    ///
    /// # Safety
    /// The tensor is `[b·t, c]` and the sequence has this token.
    unsafe fn part(&self, tensor: *mut f32, start: usize) -> *mut f32 {
        // SAFETY: a row of this sequence, columns of this head.
        unsafe { tensor.add((self.first_row + start) * self.c + self.first_col) }
    }
}

/// [`pack_b`] of a `k × n` matrix.
///
/// # Safety
/// As [`pack_b`].
#[inline(always)]
unsafe fn pack<S: Simd>(s: S, [rows, cols]: [usize; 2], matrix: View, to: &mut [f32]) -> Right {
    // SAFETY: the caller's promise.
    unsafe { pack_b(s, rows, cols, matrix, to) };
    Right::Packed { ptr: to.as_ptr(), rows, cols }
}

#[inline(always)]
pub(super) fn run<S: Simd>(s: S, op: &Attention, task: Task) {
    let Task { memory, index, scratch, .. } = task;
    let head = Head::new(&op.out, op.batch, op.heads, index);
    let Head { block, dim: head_dim, c, .. } = head;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (padded_block, padded_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    let mut space = Space(scratch);
    let pack_a = space.take(PACK_A_LEN);
    let (keys, values) = (space.take(head_dim * padded_block), space.take(block * padded_head));
    let scores = space.take(QUERY_BLOCK * padded_block);

    // SAFETY: `qkv` has this shape by `Attention::check`.
    let [q, k, v] = unsafe { head.thirds(memory.ptr(&op.qkv)) }.map(|third| View::row_major(third, 3 * c));
    // SAFETY: `block × head_dim` elements of keys and values.
    let (keys, values) =
        unsafe { (pack(s, [head_dim, block], k.transposed(), keys), pack(s, [block, head_dim], v, values)) };
    for start in (0..block).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(block - start);
        let end = start + rows;
        s.call(Gemm {
            m: rows,
            n: end,
            k: head_dim,
            // SAFETY: queries `start..end` of the head.
            a: unsafe { q.offset(start, 0) },
            b: keys,
            c: scores.as_mut_ptr(),
            ldc: padded_block,
            accumulate: false,
            pack_a,
            pack_b: &mut [],
        });
        let lse_start = head.first_lse + start;
        // SAFETY: each task writes its own row of `lse`.
        let lse = unsafe { memory.write(&op.lse, lse_start, lse_start + rows) };
        for (i, lse) in lse.iter_mut().enumerate() {
            let (live, masked) = scores[i * padded_block..i * padded_block + end].split_at_mut(start + i + 1);
            masked.fill(0.0);
            *lse = softmax(s, live, scale);
            if let Some(mask) = op.dropout {
                RowMask::new(memory, mask, lse_start + i).apply(live);
            }
        }
        s.call(Gemm {
            m: rows,
            n: head_dim,
            k: end,
            a: View::row_major(scores.as_ptr(), padded_block),
            b: values,
            // SAFETY: rows of this block, columns of this head; no other task writes them.
            c: unsafe { head.part(memory.ptr(&op.out), start) },
            ldc: c,
            accumulate: false,
            pack_a,
            pack_b: &mut [],
        });
    }
}

/// Softmax of `scale·scores` in place; returns the log-sum-exp.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], scale: f32) -> f32 {
    let lowest = s.splat(f32::NEG_INFINITY);
    let whole = scores.len() - scores.len() % S::LANES;
    let max = fold!(s, whole, lowest, |at, len, max| s.max(max, load_at(s, scores, at, len)));
    let mut max = s.reduce_max(max);
    for &score in &scores[whole..] {
        max = if score < max { max } else { score };
    }
    let (shift, scale_v) = (s.splat(-max * scale), s.splat(scale));
    let mut sum = s.splat(0.0);
    let mut tail_sum = 0.0;
    update!(s, scores, |_, len, x| {
        let p = exp(s, s.fma(x, scale_v, shift));
        if len == S::LANES {
            sum = s.add(sum, p);
        }
        p
    });
    for p in &scores[whole..] {
        tail_sum += p;
    }
    let total = s.reduce_add(sum) + tail_sum;
    let reciprocal = s.splat(1.0 / total);
    update!(s, scores, |_, _, p| s.mul(p, reciprocal));
    max * scale + total.ln()
}

/// Turns a query's scores into probabilities, and the gradients of its probabilities into those of its scores.
#[inline(always)]
fn softmax_bwd<S: Simd>(s: S, op: &AttentionBwd, memory: &Memory, head: Head, [scores, dprobs]: [&mut [f32]; 2]) {
    let (head_dim, query) = (head.dim, scores.len() - 1);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let lse_row = head.first_lse + query;
    let lse = memory.read(&op.lse, lse_row, lse_row + 1)[0];
    let from = (head.first_row + query) * head.c + head.first_col;
    let (out, dout) = (memory.read(&op.out, from, from + head_dim), memory.read(&op.dout, from, from + head_dim));
    let dot = fold!(s, head_dim, s.splat(0.0), |at, len, sum| {
        s.fma(load_at(s, out, at, len), load_at(s, dout, at, len), sum)
    });
    let dot = s.splat(s.reduce_add(dot));
    let (scale_v, shift) = (s.splat(scale), s.splat(-lse));
    update!(s, scores, |_, _, x| exp(s, s.fma(x, scale_v, shift)));
    let probs = scores;
    let mask = op.dropout.map(|mask| RowMask::new(memory, mask, lse_row));
    if let Some(mask) = mask {
        mask.apply(dprobs);
    }
    update!(s, dprobs, |at, len, dp| { s.mul(s.mul(load_at(s, probs, at, len), scale_v), s.sub(dp, dot)) });
    if let Some(mask) = mask {
        mask.apply(probs);
    }
}

#[inline(always)]
pub(super) fn run_bwd<S: Simd>(s: S, op: &AttentionBwd, task: Task) {
    let Task { memory, index, scratch, .. } = task;
    let head = Head::new(&op.out, op.batch, op.heads, index);
    let Head { block, dim: head_dim, c, .. } = head;
    let (padded_block, padded_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    let mut space = Space(scratch);
    let pack_a = space.take(PACK_A_LEN);
    let [keys_transposed, values_transposed] = [(); 2].map(|()| space.take(head_dim * padded_block));
    let keys = space.take(block * padded_head);
    let [queries, douts] = [(); 2].map(|()| space.take(QUERY_BLOCK * padded_head));
    let [probs, dprobs] = [(); 2].map(|()| space.take(QUERY_BLOCK * padded_block));

    // SAFETY: `qkv` and `dqkv` have this shape by `AttentionBwd::check`; no other task writes these parts of `dqkv`.
    let ([q, k, v], [dq, dk, dv]) = unsafe { (head.thirds(memory.ptr(&op.qkv)), head.thirds(memory.ptr(&op.dqkv))) };
    let [q, k, v] = [q, k, v].map(|third| View::row_major(third, 3 * c));
    // SAFETY: `block × head_dim` elements of keys and values.
    let (keys_transposed, values_transposed, keys) = unsafe {
        (
            pack(s, [head_dim, block], k.transposed(), keys_transposed),
            pack(s, [head_dim, block], v.transposed(), values_transposed),
            pack(s, [block, head_dim], k, keys),
        )
    };
    // Last block first: it reaches every key, so that it assigns the gradients of keys and
    // values and all others add to them.
    for start in (0..block).step_by(QUERY_BLOCK).rev() {
        let rows = QUERY_BLOCK.min(block - start);
        let end = start + rows;
        // SAFETY: rows `start..end` of queries and output gradients, `rows × head_dim` elements of each.
        let (q, dout, queries, douts) = unsafe {
            let (q, dout) = (q.offset(start, 0), View::row_major(head.part(memory.ptr(&op.dout), start), c));
            (q, dout, pack(s, [rows, head_dim], q, queries), pack(s, [rows, head_dim], dout, douts))
        };
        let mut product = |[m, n, k]: [usize; 3], a: View, b: Right, (c, ldc, accumulate): (*mut f32, usize, bool)| {
            s.call(Gemm { m, n, k, a, b, c, ldc, accumulate, pack_a, pack_b: &mut [] });
        };
        product([rows, end, head_dim], q, keys_transposed, (probs.as_mut_ptr(), padded_block, false));
        product([rows, end, head_dim], dout, values_transposed, (dprobs.as_mut_ptr(), padded_block, false));
        for i in 0..rows {
            let [live, dlive] = [&mut *probs, &mut *dprobs].map(|matrix| {
                let (live, masked) = matrix[i * padded_block..i * padded_block + end].split_at_mut(start + i + 1);
                masked.fill(0.0);
                live
            });
            softmax_bwd(s, op, memory, head, [live, dlive]);
        }
        let [probs, dprobs] = [&*probs, &*dprobs].map(|matrix| View::row_major(matrix.as_ptr(), padded_block));
        // SAFETY: row `start` of this head's query gradients.
        let dq = unsafe { dq.add(start * 3 * c) };
        let is_last = end == block;
        product([rows, head_dim, end], dprobs, keys, (dq, 3 * c, false));
        product([end, head_dim, rows], probs.transposed(), douts, (dv, 3 * c, !is_last));
        product([end, head_dim, rows], dprobs.transposed(), queries, (dk, 3 * c, !is_last));
    }
}

/// Rows of a cached task, of the cache when storing and of new tokens when attending.
const CACHED_ROWS_PER_TASK: usize = 16;

pub(super) fn cached_scratch_len(op: &AttentionCached) -> usize {
    op.k_cache.rows
}

/// Stage 0 stores the new keys and values, stage 1 attends, a task a head and some tokens.
pub(super) fn cached_tasks(op: &AttentionCached, stage: usize) -> usize {
    let row_tasks = op.qkv.rows.div_ceil(CACHED_ROWS_PER_TASK);
    if stage == 0 { row_tasks } else { row_tasks * op.heads }
}

#[inline(always)]
pub(super) fn run_cached<S: Simd>(s: S, op: &AttentionCached, task: Task) {
    let Task { memory, stage, index: task, scratch, .. } = task;
    let c = op.out.cols;
    let position = memory.args.position;
    let row_task = if stage == 0 { task } else { task / op.heads };
    let rows = row_task * CACHED_ROWS_PER_TASK..op.qkv.rows.min((row_task + 1) * CACHED_ROWS_PER_TASK);
    if stage == 0 {
        for row in rows {
            let qkv = memory.row(&op.qkv, row);
            // SAFETY: each task stores its own rows of two different tensors.
            unsafe {
                memory.row_mut(&op.k_cache, position + row).copy_from_slice(&qkv[c..2 * c]);
                memory.row_mut(&op.v_cache, position + row).copy_from_slice(&qkv[2 * c..]);
            }
        }
        return;
    }
    let head_dim = c / op.heads;
    let cols = task % op.heads * head_dim..(task % op.heads + 1) * head_dim;
    let scale = 1.0 / (head_dim as f32).sqrt();
    for row in rows {
        let query = &memory.row(&op.qkv, row)[cols.clone()];
        let scores = &mut scratch[..=position + row];
        for (j, score) in scores.iter_mut().enumerate() {
            let key = &memory.row(&op.k_cache, j)[cols.clone()];
            let dot = fold!(s, head_dim, s.splat(0.0), |at, len, sum| {
                s.fma(load_at(s, query, at, len), load_at(s, key, at, len), sum)
            });
            *score = s.reduce_add(dot);
        }
        softmax(s, scores, scale);
        // SAFETY: each task writes its own rows and columns.
        let out = unsafe { memory.write(&op.out, row * c + cols.start, row * c + cols.end) };
        out.fill(0.0);
        for (j, &p) in scores.iter().enumerate() {
            let value = &memory.row(&op.v_cache, j)[cols.clone()];
            update!(s, out, |at, len, sum| s.fma(s.splat(p), load_at(s, value, at, len), sum));
        }
    }
}

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
};

/// Queries whose scores exist at a time.
const QUERY_BLOCK: usize = 4 * MAX_ROWS;
/// Widest vector; packed widths are multiples of it for every level.
const MAX_LANES: usize = 16;

/// Scratch beyond the packing space of A: packed keys (both ways), values, and a block of
/// queries and output gradients; scores and their gradients.
pub(super) fn scratch_len(block: usize, head_dim: usize) -> usize {
    let (wide_block, wide_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    2 * head_dim * wide_block + block * wide_head + 2 * QUERY_BLOCK * wide_head + 2 * QUERY_BLOCK * wide_block
}

/// Scratch space that is given out piece by piece.
struct Space<'a>(&'a mut [f32]);

impl<'a> Space<'a> {
    /// Cuts `len` elements off the front.
    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (front, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        front
    }
}

/// Dropout on a row of probabilities: where it is dropped, and by what the rest is scaled.
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

#[inline(always)]
pub(super) fn run<S: Simd>(s: S, op: &Attention, task: Task) {
    let Task { memory, index: task, scratch, .. } = task;
    let (block, c) = (op.out.rows / op.batch, op.out.cols);
    let head_dim = c / op.heads;
    let (batch, head) = (task / op.heads, task % op.heads);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (wide_block, wide_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    let mut space = Space(scratch);
    let pack_a = space.take(PACK_A_LEN);
    let keys = space.take(head_dim * wide_block);
    let values = space.take(block * wide_head);
    let scores = space.take(QUERY_BLOCK * wide_block);

    // SAFETY: rows of this sequence, columns of this head, of `[b·t, 3c]`.
    let view = |third: usize| unsafe {
        View::row_major(memory.ptr(&op.qkv).add(batch * block * 3 * c + third * c + head * head_dim), 3 * c)
    };
    let (q, k, v) = (view(0), view(1), view(2));
    // SAFETY: `block × head_dim` elements of keys and values.
    unsafe {
        pack_b(s, head_dim, block, k.transposed(), keys);
        pack_b(s, block, head_dim, v, values);
    }
    for start in (0..block).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(block - start);
        let end = start + rows;
        s.call(Gemm {
            m: rows,
            n: end,
            k: head_dim,
            // SAFETY: queries `start..end` of the head.
            a: unsafe { q.offset(start, 0) },
            b: Right::Packed { ptr: keys.as_ptr(), rows: head_dim, cols: block },
            c: scores.as_mut_ptr(),
            ldc: wide_block,
            accumulate: false,
            pack_a,
            pack_b: &mut [],
        });
        let lse_start = task * block + start;
        // SAFETY: each task writes its own row of `lse`.
        let lse = unsafe { memory.write(&op.lse, lse_start, lse_start + rows) };
        for (i, lse) in lse.iter_mut().enumerate() {
            let (live, masked) = scores[i * wide_block..i * wide_block + end].split_at_mut(start + i + 1);
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
            a: View::row_major(scores.as_ptr(), wide_block),
            b: Right::Packed { ptr: values.as_ptr(), rows: block, cols: head_dim },
            // SAFETY: rows of this block, columns of this head; no other task writes them.
            c: unsafe { memory.ptr(&op.out).add((batch * block + start) * c + head * head_dim) },
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

#[inline(always)]
pub(super) fn run_bwd<S: Simd>(s: S, op: &AttentionBwd, task: Task) {
    let Task { memory, index: task, scratch, .. } = task;
    let (block, c) = (op.out.rows / op.batch, op.out.cols);
    let head_dim = c / op.heads;
    let (batch, head) = (task / op.heads, task % op.heads);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let (wide_block, wide_head) = (block.next_multiple_of(MAX_LANES), head_dim.next_multiple_of(MAX_LANES));
    let mut space = Space(scratch);
    let pack_a = space.take(PACK_A_LEN);
    let keys_transposed = space.take(head_dim * wide_block);
    let values_transposed = space.take(head_dim * wide_block);
    let keys = space.take(block * wide_head);
    let queries = space.take(QUERY_BLOCK * wide_head);
    let douts = space.take(QUERY_BLOCK * wide_head);
    let probs = space.take(QUERY_BLOCK * wide_block);
    let dprobs = space.take(QUERY_BLOCK * wide_block);

    let qkv_start = batch * block * 3 * c + head * head_dim;
    // SAFETY: rows of this sequence, columns of this head, of `[b·t, 3c]`.
    let view = |third: usize| unsafe { View::row_major(memory.ptr(&op.qkv).add(qkv_start + third * c), 3 * c) };
    let (q, k, v) = (view(0), view(1), view(2));
    // SAFETY: as above; no other task writes these columns of these rows.
    let (dq, dk, dv) = unsafe {
        let start = memory.ptr(&op.dqkv).add(qkv_start);
        (start, start.add(c), start.add(2 * c))
    };
    // SAFETY: rows of this sequence, columns of this head, of `[b·t, c]`.
    let dout = unsafe { View::row_major(memory.ptr(&op.dout).add(batch * block * c + head * head_dim), c) };
    // SAFETY: `block × head_dim` elements of keys and values.
    unsafe {
        pack_b(s, head_dim, block, k.transposed(), keys_transposed);
        pack_b(s, head_dim, block, v.transposed(), values_transposed);
        pack_b(s, block, head_dim, k, keys);
    }
    // Last block first: it reaches every key, so that it assigns the gradients of keys and
    // values and all others add to them.
    for start in (0..block).step_by(QUERY_BLOCK).rev() {
        let rows = QUERY_BLOCK.min(block - start);
        let end = start + rows;
        let is_last = end == block;
        // SAFETY: rows `start..end` of queries and output gradients.
        let (q_block, dout_block) = unsafe { (q.offset(start, 0), dout.offset(start, 0)) };
        // SAFETY: `rows × head_dim` elements of each.
        unsafe {
            pack_b(s, rows, head_dim, q_block, queries);
            pack_b(s, rows, head_dim, dout_block, douts);
        }
        for (a, packed, out) in
            [(q_block, &*keys_transposed, &mut *probs), (dout_block, &*values_transposed, &mut *dprobs)]
        {
            s.call(Gemm {
                m: rows,
                n: end,
                k: head_dim,
                a,
                b: Right::Packed { ptr: packed.as_ptr(), rows: head_dim, cols: block },
                c: out.as_mut_ptr(),
                ldc: wide_block,
                accumulate: false,
                pack_a,
                pack_b: &mut [],
            });
        }
        for i in 0..rows {
            let row = batch * block + start + i;
            let lse = memory.read(&op.lse, task * block + start + i, task * block + start + i + 1)[0];
            let (from, to) = (row * c + head * head_dim, row * c + (head + 1) * head_dim);
            let (out, dout) = (memory.read(&op.out, from, to), memory.read(&op.dout, from, to));
            let dot = fold!(s, head_dim, s.splat(0.0), |at, len, sum| {
                s.fma(load_at(s, out, at, len), load_at(s, dout, at, len), sum)
            });
            let dot = s.splat(s.reduce_add(dot));
            let (live, masked) = probs[i * wide_block..i * wide_block + end].split_at_mut(start + i + 1);
            let (dlive, dmasked) = dprobs[i * wide_block..i * wide_block + end].split_at_mut(start + i + 1);
            masked.fill(0.0);
            dmasked.fill(0.0);
            let (scale_v, shift) = (s.splat(scale), s.splat(-lse));
            update!(s, live, |_, _, x| exp(s, s.fma(x, scale_v, shift)));
            let mask = op.dropout.map(|mask| RowMask::new(memory, mask, task * block + start + i));
            if let Some(mask) = mask {
                mask.apply(dlive);
            }
            update!(s, dlive, |at, len, dp| { s.mul(s.mul(load_at(s, live, at, len), scale_v), s.sub(dp, dot)) });
            if let Some(mask) = mask {
                mask.apply(live);
            }
        }
        s.call(Gemm {
            m: rows,
            n: head_dim,
            k: end,
            a: View::row_major(dprobs.as_ptr(), wide_block),
            b: Right::Packed { ptr: keys.as_ptr(), rows: block, cols: head_dim },
            // SAFETY: row `start` of this head's query gradients.
            c: unsafe { dq.add(start * 3 * c) },
            ldc: 3 * c,
            accumulate: false,
            pack_a,
            pack_b: &mut [],
        });
        for (scores, packed, out) in [(&*probs, &*douts, dv), (&*dprobs, &*queries, dk)] {
            s.call(Gemm {
                m: end,
                n: head_dim,
                k: rows,
                a: View::row_major(scores.as_ptr(), wide_block).transposed(),
                b: Right::Packed { ptr: packed.as_ptr(), rows, cols: head_dim },
                c: out,
                ldc: 3 * c,
                accumulate: !is_last,
                pack_a,
                pack_b: &mut [],
            });
        }
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

//! Dropout: integer arithmetic dominates and the compiler vectorises it.

use super::{
    memory::{ROWS_PER_TASK, Task},
    simd::Simd,
};
use crate::op::{Dropout, DropoutMask};

#[inline(always)]
pub(super) fn run<S: Simd>(_: S, op: &Dropout, task: Task) {
    let memory = task.memory;
    let args = memory.args;
    let key = op.mask.key(args.seed, args.step, args.micro_step);
    let (threshold, scale) = (op.mask.threshold(), op.mask.scale());
    for row in task.range(op.out.rows, ROWS_PER_TASK) {
        let start = row * op.out.cols;
        let (x, out) = (memory.ptr(&op.x), memory.ptr(&op.out));
        let residual = op.residual.as_ref().map(|residual| memory.ptr(residual));
        for col in 0..op.out.cols {
            let factor = if DropoutMask::keeps(key, threshold, row, col) { scale } else { 0.0 };
            // SAFETY: element (row, col) of tensors of one shape; `out` may be one of the
            // others, so each element is read before it is written, through pointers.
            unsafe {
                let kept = factor * *x.add(start + col);
                *out.add(start + col) = residual.map_or(kept, |residual| *residual.add(start + col) + kept);
            }
        }
    }
}

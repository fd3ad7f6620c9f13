//! Matrix products cut into tiles of C, with their epilogues on the tile while it is in cache.

use super::{
    activation::{activate, activate_bwd},
    gemm::{Gemm, N_BLOCK, PACK_A_LEN, Right, View},
    memory::Task,
    simd::{Simd, load_at, update},
};
use crate::op::{Linear, LinearBwdInput, LinearBwdWeight};

/// Tallest tile. With [`N_BLOCK`] columns it stays in the second-level cache beside packed B.
const M_BLOCK: usize = 384;
/// Tile edges are multiples of these, so that only the last tile has partial registers.
const M_STEP: usize = 12;
const N_STEP: usize = 32;

/// A division of C into tiles; tile numbers run along a row of tiles first, so that a thread's
/// tasks are neighbouring rows (tokens), as in the operations before and after.
pub(super) struct Grid {
    m: usize,
    n: usize,
    tile_rows: usize,
    tile_cols: usize,
}

/// One tile of C.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) col: usize,
    pub(super) cols: usize,
}

impl Grid {
    /// Tiles for `C[m×n]` with sums of length `k`: one a thread for small products, some more
    /// for large ones so that a disturbed thread does not delay the others.
    pub(super) fn new(m: usize, n: usize, k: usize, threads: usize) -> Grid {
        let is_large = m * n * k > 16_000_000;
        let wanted = if threads == 1 { 1 } else { threads * if is_large { 4 } else { 1 } };
        let (mut across, mut along) = (m.div_ceil(M_BLOCK).max(1), n.div_ceil(N_BLOCK).max(1));
        while across * along < wanted {
            if n / along >= 4 * N_STEP && n / along >= m / across {
                along += 1;
            } else if m / across >= 2 * M_STEP {
                across += 1;
            } else if n / along >= 2 * N_STEP {
                along += 1;
            } else {
                break;
            }
        }
        let tile_rows = m.div_ceil(across).next_multiple_of(M_STEP).max(1);
        let tile_cols = n.div_ceil(along).next_multiple_of(N_STEP).clamp(1, N_BLOCK);
        Grid { m, n, tile_rows, tile_cols }
    }

    pub(super) fn tasks(&self) -> usize {
        self.m.div_ceil(self.tile_rows) * self.n.div_ceil(self.tile_cols)
    }

    pub(super) fn tile(&self, task: usize) -> Tile {
        let along = self.n.div_ceil(self.tile_cols);
        let (row, col) = (task / along * self.tile_rows, task % along * self.tile_cols);
        Tile { row, rows: self.tile_rows.min(self.m - row), col, cols: self.tile_cols.min(self.n - col) }
    }
}

/// A product whose operands are whole matrices, for one tile of C at `c` (start of C).
pub(super) struct Product {
    pub(super) a: View,
    pub(super) b: View,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) k: usize,
    pub(super) accumulate: bool,
}

impl Product {
    /// Computes one tile.
    ///
    /// # Safety
    /// The views cover the whole matrices; no other task touches the tile of C.
    #[inline(always)]
    pub(super) unsafe fn compute<S: Simd>(&self, s: S, tile: Tile, scratch: &mut [f32]) {
        let (pack_a, pack_b) = scratch.split_at_mut(PACK_A_LEN);
        // SAFETY: the tile lies inside the matrices.
        let (a, b, c) = unsafe {
            (self.a.offset(tile.row, 0), self.b.offset(0, tile.col), self.c.add(tile.row * self.ldc + tile.col))
        };
        let (k, ldc, accumulate) = (self.k, self.ldc, self.accumulate);
        s.call(Gemm { m: tile.rows, n: tile.cols, k, a, b: Right::View(b), c, ldc, accumulate, pack_a, pack_b });
    }
}

pub(super) fn grid(op: &Linear, threads: usize) -> Grid {
    Grid::new(op.out.rows, op.out.cols, op.x.cols, threads)
}

#[inline(always)]
pub(super) fn run<S: Simd>(s: S, op: &Linear, task: Task) {
    let memory = task.memory;
    let tile = grid(op, task.threads).tile(task.index);
    let is_residual_in_place = op.residual == Some(op.out);
    let product = Product {
        a: View::row_major(memory.ptr(&op.x), op.x.cols),
        b: View::row_major(memory.ptr(&op.weight), op.weight.cols),
        c: memory.ptr(&op.out),
        ldc: op.out.cols,
        k: op.x.cols,
        accumulate: is_residual_in_place,
    };
    // SAFETY: shapes are those of the operation; each task has its own tile.
    unsafe { product.compute(s, tile, task.scratch) };
    let residual = op.residual.as_ref().filter(|_| !is_residual_in_place);
    if op.bias.is_none() && residual.is_none() && op.activation.is_none() {
        return;
    }
    let bias = op.bias.as_ref().map(|bias| memory.read(bias, tile.col, tile.col + tile.cols));
    for row in tile.row..tile.row + tile.rows {
        let (start, end) = (row * op.out.cols + tile.col, row * op.out.cols + tile.col + tile.cols);
        // SAFETY: this task's tile.
        let out = unsafe { memory.write(&op.out, start, end) };
        if let Some(bias) = bias {
            update!(s, out, |at, len, x| s.add(x, load_at(s, bias, at, len)));
        }
        if let Some(residual) = residual {
            let residual = memory.read(residual, start, end);
            update!(s, out, |at, len, x| s.add(x, load_at(s, residual, at, len)));
        }
        if let Some(activation) = op.activation {
            if let Some(pre) = &op.pre {
                // SAFETY: this task's tile.
                unsafe { memory.write(pre, start, end) }.copy_from_slice(out);
            }
            activate(s, activation, out);
        }
    }
}

pub(super) fn bwd_input_grid(op: &LinearBwdInput, threads: usize) -> Grid {
    Grid::new(op.dx.rows, op.dx.cols, op.dy.cols, threads)
}

#[inline(always)]
pub(super) fn run_bwd_input<S: Simd>(s: S, op: &LinearBwdInput, task: Task) {
    let memory = task.memory;
    let tile = bwd_input_grid(op, task.threads).tile(task.index);
    let product = Product {
        a: View::row_major(memory.ptr(&op.dy), op.dy.cols),
        b: View::row_major(memory.ptr(&op.weight), op.weight.cols).transposed(),
        c: memory.ptr(&op.dx),
        ldc: op.dx.cols,
        k: op.dy.cols,
        accumulate: false,
    };
    // SAFETY: shapes are those of the operation; each task has its own tile.
    unsafe { product.compute(s, tile, task.scratch) };
    if let Some((activation, pre, post)) = &op.activation {
        for row in tile.row..tile.row + tile.rows {
            let (start, end) = (row * op.dx.cols + tile.col, row * op.dx.cols + tile.col + tile.cols);
            // SAFETY: this task's tile of two different tensors.
            let (dx, post) = unsafe { (memory.write(&op.dx, start, end), memory.write(post, start, end)) };
            activate_bwd(s, *activation, memory.read(pre, start, end), dx, post);
        }
    }
}

pub(super) fn bwd_weight_grid(op: &LinearBwdWeight, threads: usize) -> Grid {
    Grid::new(op.dweight.rows, op.dweight.cols, op.x.rows, threads)
}

#[inline(always)]
pub(super) fn run_bwd_weight<S: Simd>(s: S, op: &LinearBwdWeight, task: Task) {
    let memory = task.memory;
    let tile = bwd_weight_grid(op, task.threads).tile(task.index);
    let product = Product {
        a: View::row_major(memory.ptr(&op.x), op.x.cols).transposed(),
        b: View::row_major(memory.ptr(&op.dy), op.dy.cols),
        c: memory.ptr(&op.dweight),
        ldc: op.dweight.cols,
        k: op.x.rows,
        accumulate: op.accumulate,
    };
    // SAFETY: shapes are those of the operation; each task has its own tile.
    unsafe { product.compute(s, tile, task.scratch) };
    if let (Some(dbias), 0) = (&op.dbias, tile.row) {
        // SAFETY: only the tiles of the first row of tiles write the bias, each its columns.
        let dbias = unsafe { memory.write(dbias, tile.col, tile.col + tile.cols) };
        let sums = &mut task.scratch[..tile.cols];
        sums.fill(0.0);
        for row in 0..op.dy.rows {
            let dy = memory.read(&op.dy, row * op.dy.cols + tile.col, row * op.dy.cols + tile.col + tile.cols);
            update!(s, sums, |at, len, sum| s.add(sum, load_at(s, dy, at, len)));
        }
        if op.accumulate {
            update!(s, dbias, |at, len, x| s.add(x, load_at(s, sums, at, len)));
        } else {
            dbias.copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tiles_cover_c_exactly_once(m in 1usize..700, n in 1usize..700, k in 1usize..4000, threads in 1usize..9) {
            let grid = Grid::new(m, n, k, threads);
            let mut covered = 0;
            for task in 0..grid.tasks() {
                let tile = grid.tile(task);
                prop_assert!(tile.rows > 0 && tile.cols > 0 && tile.cols <= N_BLOCK);
                prop_assert!(tile.row + tile.rows <= m && tile.col + tile.cols <= n);
                covered += tile.rows * tile.cols;
            }
            prop_assert_eq!(covered, m * n);
        }
    }
}

//! Matrix products of one thread: `C (+)= A·B` for a tile of C, with any strides of A and B.
//!
//! As in Goto and van de Geijn (2008, "Anatomy of high-performance matrix multiplication"):
//! B is packed into column panels two vectors wide, and a micro-kernel keeps [`Simd::ROWS`] `× 2`
//! vectors of C in registers while it walks along k. A is read where it lies: each of its elements
//! is used for one panel of B and then again for the next, too few times to pay for a copy.
//!
//! The sum over k of every element runs in ascending order with one fused multiply-add a term,
//! in blocks of [`K_BLOCK`]: how C is cut into tiles, and by how many threads, never changes a bit.

use super::simd::{Kernel, MAX_ROWS, Simd};

/// Rows of B that are packed at a time.
pub(super) const K_BLOCK: usize = 256;

/// Widest tile of C whose B can be packed by [`Gemm`] itself.
pub(super) const N_BLOCK: usize = 256;

/// Rows of A that lie a multiple of this apart, in elements, all fall into one set of the first-level
/// cache (4 KiB a way), which cannot hold [`MAX_ROWS`] of them: they are copied.
const ONE_SET: usize = 1024;

/// Up to so many rows of C, B too is read where it lies: copying it costs as much as multiplying it by some ten of them.
const FEW_ROWS: usize = 192;

/// Distance of the rows of such a copy: no power of two.
const A_ROW_STRIDE: usize = K_BLOCK + 16;

/// Packing space of one thread, in elements.
pub(super) const PACK_A_LEN: usize = MAX_ROWS * A_ROW_STRIDE;
/// Packing space of one thread, in elements.
pub(super) const PACK_B_LEN: usize = K_BLOCK * N_BLOCK;

/// A strided view: element (i, j) at `ptr + i·row_stride + j·col_stride`.
#[derive(Clone, Copy)]
pub(super) struct View {
    pub(super) ptr: *const f32,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl View {
    pub(super) fn row_major(ptr: *const f32, row_stride: usize) -> View {
        View { ptr, row_stride, col_stride: 1 }
    }

    pub(super) fn transposed(self) -> View {
        View { ptr: self.ptr, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    /// # Safety
    /// The element lies in the viewed matrix.
    #[inline(always)]
    pub(super) unsafe fn at(self, row: usize, col: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.ptr.add(row * self.row_stride + col * self.col_stride) }
    }

    /// # Safety
    /// As [`View::at`].
    #[inline(always)]
    pub(super) unsafe fn offset(self, row: usize, col: usize) -> View {
        // SAFETY: the caller's promise.
        View { ptr: unsafe { self.at(row, col) }, ..self }
    }
}

/// The right-hand matrix.
#[derive(Clone, Copy)]
pub(super) enum Right {
    /// To be packed; one of its strides is 1, and the tile is at most [`N_BLOCK`] wide.
    View(View),
    /// Packed by [`pack_b`] with this many rows and columns, of which the first are used.
    Packed { ptr: *const f32, rows: usize, cols: usize },
}

/// One tile: `C[m×n] (+)= A[m×k]·B[k×n]`.
pub(super) struct Gemm<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// One of its strides is 1.
    pub(super) a: View,
    pub(super) b: Right,
    /// Row-major, `ldc` apart.
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Add to C instead of assigning it.
    pub(super) accumulate: bool,
    /// At least [`PACK_A_LEN`].
    pub(super) pack_a: &'a mut [f32],
    /// At least [`PACK_B_LEN`] when B is a view; else unused.
    pub(super) pack_b: &'a mut [f32],
}

/// Elements that [`pack_b`] writes for a `k × n` matrix.
pub(super) fn packed_len<S: Simd>(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(S::LANES)
}

/// Packs a `k × n` matrix into panels of `2·LANES` columns, the last one `LANES` wide if that
/// suffices, columns beyond `n` zero. Panel `p` begins at `p·2·LANES·k`, its rows are contiguous.
///
/// # Safety
/// `b` covers `k × n` live elements and has a stride of 1.
#[inline(always)]
pub(super) unsafe fn pack_b<S: Simd>(s: S, k: usize, n: usize, b: View, to: &mut [f32]) {
    assert!(to.len() >= packed_len::<S>(k, n));
    if b.col_stride == 1 {
        // SAFETY: the caller's promise.
        unsafe { pack_b_rows(s, k, n, b, to) };
        return;
    }
    assert!(b.row_stride == 1);
    let panel_width = 2 * S::LANES;
    for col in (0..n).step_by(panel_width) {
        let valid = (n - col).min(panel_width);
        let width = valid.next_multiple_of(S::LANES);
        let panel = &mut to[col * k..col * k + width * k];
        for group in (0..width).step_by(S::LANES) {
            let lanes = valid.saturating_sub(group).min(S::LANES);
            if lanes == S::LANES {
                // SAFETY: columns `col + group..+LANES` of the matrix are rows of its transpose;
                // the panel has room for `k` rows of `width`.
                unsafe { s.transpose(b.at(0, col + group), b.col_stride, k, panel.as_mut_ptr().add(group), width) };
                continue;
            }
            for (row, out) in panel.chunks_exact_mut(width).enumerate() {
                for (lane, out) in out[group..group + S::LANES].iter_mut().enumerate() {
                    // SAFETY: only columns below `n` are read.
                    *out = if lane < lanes { unsafe { *b.at(row, col + group + lane) } } else { 0.0 };
                }
            }
        }
    }
}

/// Rows ahead of the one being packed that are asked for.
const ROWS_AHEAD: usize = 8;

/// [`pack_b`] where rows are contiguous: row by row, so that memory is read in long runs.
///
/// # Safety
/// As [`pack_b`].
#[inline(always)]
unsafe fn pack_b_rows<S: Simd>(s: S, k: usize, n: usize, b: View, to: &mut [f32]) {
    let panel_width = 2 * S::LANES;
    let whole = n - n % panel_width;
    for row in 0..k {
        // SAFETY: row `row` of the matrix.
        let from = unsafe { std::slice::from_raw_parts(b.at(row, 0), n) };
        for line in (0..n).step_by(LINE) {
            s.prefetch(b.ptr.wrapping_add((row + ROWS_AHEAD) * b.row_stride + line));
        }
        for col in (0..whole).step_by(panel_width) {
            let out = &mut to[col * k + row * panel_width..][..panel_width];
            s.store(out, s.load(&from[col..]));
            s.store(&mut out[S::LANES..], s.load(&from[col + S::LANES..]));
        }
        if whole < n {
            let rest = &from[whole..];
            let width = rest.len().next_multiple_of(S::LANES);
            let out = &mut to[whole * k + row * width..][..width];
            for (rest, out) in rest.chunks(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
                let x = if rest.len() == S::LANES { s.load(rest) } else { s.load_partial(rest) };
                s.store(out, x);
            }
        }
    }
}

/// Copies `rows` rows and `depth` columns of A, whose rows are contiguous, to rows [`A_ROW_STRIDE`] apart.
///
/// # Safety
/// `a` covers `rows × depth` live elements; `depth ≤ K_BLOCK`, `rows ≤ MAX_ROWS`.
#[inline(always)]
unsafe fn pack_a<S: Simd>(s: S, rows: usize, depth: usize, a: View, to: &mut [f32]) {
    assert!(a.col_stride == 1);
    for row in 0..rows {
        // SAFETY: the row lies inside the matrix.
        let from = unsafe { std::slice::from_raw_parts(a.at(row, 0), depth) };
        let to = &mut to[row * A_ROW_STRIDE..row * A_ROW_STRIDE + depth];
        super::simd::update!(s, to, |at, len, _| super::simd::load_at(s, from, at, len));
    }
}

/// `C[M × n] (+)= A·B` along `depth`, C in registers. `n` ≤ `V·LANES`, B rows `b_stride` apart. `a_stride` lies between rows
/// of A where it is contiguous along k, else between its columns.
///
/// # Safety
/// A covers `M × depth`, B `depth` rows of `V·LANES`; C covers `M × n`, rows `ldc` apart.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the micro-kernel's registers")]
unsafe fn micro<S: Simd, const M: usize, const V: usize, const A_ALONG_K: bool>(
    s: S,
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    ldc: usize,
    n: usize,
    accumulate: bool,
) {
    let mut sums = [[s.splat(0.0); V]; M];
    let is_whole = n == V * S::LANES;
    // SAFETY: vector `v` of row `i` of C; the last one is cut to `n`.
    let c_vector = |i: usize, v: usize| unsafe {
        let len = if is_whole { S::LANES } else { n.saturating_sub(v * S::LANES).min(S::LANES) };
        std::slice::from_raw_parts_mut(c.add(i * ldc + v * S::LANES), len)
    };
    if accumulate {
        for (i, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                let c = c_vector(i, v);
                *sum = if is_whole || c.len() == S::LANES { s.load(c) } else { s.load_partial(c) };
            }
        }
    } else {
        // C is written after the walk along k: time enough for its lines to arrive.
        for i in 0..M {
            for v in 0..V {
                s.prefetch(c.wrapping_add(i * ldc + v * S::LANES));
            }
        }
    }
    // One pointer for four rows: an instruction's address adds up to three strides to it.
    let row_of = |group: usize| if A_ALONG_K { a.wrapping_add(4 * group * a_stride) } else { a };
    let mut a: [*const f32; MAX_ROWS / 4] = std::array::from_fn(row_of);
    let mut b = b;
    for _ in 0..depth {
        // SAFETY: row of B and column of A at this depth, by the caller's promise.
        unsafe {
            let row: [S::F; V] =
                std::array::from_fn(|v| s.load(std::slice::from_raw_parts(b.add(v * S::LANES), S::LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(if A_ALONG_K { *a[i / 4].add(i % 4 * a_stride) } else { *a[0].add(i) });
                for (sum, row) in sums.iter_mut().zip(row) {
                    *sum = s.fma(x, row, *sum);
                }
            }
            b = b.wrapping_add(b_stride);
            a = a.map(|a| a.wrapping_add(if A_ALONG_K { 1 } else { a_stride }));
        }
    }
    for (i, row) in sums.into_iter().enumerate() {
        for (v, sum) in row.into_iter().enumerate() {
            let c = c_vector(i, v);
            if is_whole || c.len() == S::LANES { s.store(c, sum) } else { s.store_partial(c, sum) }
        }
    }
}

macro_rules! by_rows {
    ($rows:expr, $v:literal, $along:literal, ($($arg:expr),*)) => {
        // SAFETY: the callers of this macro pass what `micro` asks for.
        unsafe {
            match $rows {
                1 => micro::<S, 1, $v, $along>($($arg),*),
                2 => micro::<S, 2, $v, $along>($($arg),*),
                3 => micro::<S, 3, $v, $along>($($arg),*),
                4 => micro::<S, 4, $v, $along>($($arg),*),
                5 => micro::<S, 5, $v, $along>($($arg),*),
                6 => micro::<S, 6, $v, $along>($($arg),*),
                7 if S::ROWS > 6 => micro::<S, 7, $v, $along>($($arg),*),
                8 if S::ROWS > 6 => micro::<S, 8, $v, $along>($($arg),*),
                9 if S::ROWS > 6 => micro::<S, 9, $v, $along>($($arg),*),
                10 if S::ROWS > 6 => micro::<S, 10, $v, $along>($($arg),*),
                11 if S::ROWS > 6 => micro::<S, 11, $v, $along>($($arg),*),
                12 if S::ROWS > 6 => micro::<S, 12, $v, $along>($($arg),*),
                rows => unreachable!("{rows} rows"),
            }
        }
    };
}

/// The next panel of A, brought into the second-level cache a part at a time while the current
/// one is multiplied: its rows are short runs far apart, which hardware does not foresee.
struct Upcoming {
    line: *const f32,
    /// Lines of one run, runs, and the distance between their starts.
    run_lines: usize,
    runs: usize,
    stride: usize,
    at_line: usize,
    lines_a_call: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

impl Upcoming {
    /// # Safety
    /// `a` covers `rows × depth` live elements.
    #[inline(always)]
    unsafe fn new(a: View, rows: usize, depth: usize) -> Upcoming {
        let (run, runs, stride) =
            if a.col_stride == 1 { (depth, rows, a.row_stride) } else { (rows, depth, a.col_stride) };
        let run_lines = run.div_ceil(LINE);
        Upcoming { line: a.ptr, run_lines, runs, stride, at_line: 0, lines_a_call: 0 }
    }

    /// Shares the lines out over `calls` of [`Upcoming::prefetch`].
    #[inline(always)]
    fn spread(self, calls: usize) -> Upcoming {
        Upcoming { lines_a_call: (self.run_lines * self.runs).div_ceil(calls.max(1)), ..self }
    }

    #[inline(always)]
    fn prefetch<S: Simd>(&mut self, s: S) {
        let mut left = self.lines_a_call;
        while left > 0 && self.runs > 0 {
            s.prefetch(self.line.wrapping_add(self.at_line * LINE));
            self.at_line += 1;
            left -= 1;
            if self.at_line == self.run_lines {
                self.at_line = 0;
                self.runs -= 1;
                self.line = self.line.wrapping_add(self.stride);
            }
        }
    }
}

impl Kernel for Gemm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Gemm { m, n, k, a, b, c, ldc, accumulate, pack_a: packed_a, pack_b: packed_b } = self;
        assert!(packed_a.len() >= PACK_A_LEN);
        let panel_width = 2 * S::LANES;
        let is_along_k = a.col_stride == 1;
        assert!(is_along_k || a.row_stride == 1);
        let is_b_in_place = match b {
            Right::View(view) => {
                m <= FEW_ROWS
                    && view.col_stride == 1
                    && n.is_multiple_of(S::LANES)
                    && !view.row_stride.is_multiple_of(ONE_SET)
            }
            Right::Packed { .. } => false,
        };
        let is_copied = is_along_k && a.row_stride.is_multiple_of(ONE_SET);
        let mut k_start = 0;
        while k_start < k || (k == 0 && !accumulate && k_start == 0) {
            let depth = (k - k_start).min(K_BLOCK);
            let accumulate = accumulate || k_start > 0;
            let (b_ptr, b_rows, b_cols) = match b {
                // SAFETY: row `k_start` of B.
                Right::View(view) if is_b_in_place => (unsafe { view.at(k_start, 0) }, depth, n),
                Right::View(view) => {
                    assert!(n <= N_BLOCK);
                    // SAFETY: rows `k_start..k_start + depth` of B.
                    unsafe { pack_b(s, depth, n, view.offset(k_start, 0), packed_b) };
                    (packed_b.as_ptr(), depth, n)
                }
                Right::Packed { ptr, rows, cols } => {
                    assert!(k <= rows && n <= cols);
                    (ptr, rows, cols)
                }
            };
            let b_skip = if matches!(b, Right::View(_)) { 0 } else { k_start };
            let mut row = 0;
            while row < m {
                let rows = (m - row).min(S::ROWS);
                // SAFETY: rows `row..row + rows`, columns `k_start..+depth` of A.
                let (a_ptr, a_stride) = unsafe {
                    let here = a.offset(row, k_start);
                    if is_copied {
                        pack_a(s, rows, depth, here, packed_a);
                        (packed_a.as_ptr(), A_ROW_STRIDE)
                    } else {
                        (here.ptr, if is_along_k { a.row_stride } else { a.col_stride })
                    }
                };
                // SAFETY: rows up to `m`, columns `k_start..+depth` of A.
                let next =
                    unsafe { Upcoming::new(a.offset(row + rows, k_start), (m - row - rows).min(S::ROWS), depth) };
                let mut next = next.spread(n.div_ceil(panel_width));
                let mut col = 0;
                while col < n {
                    next.prefetch(s);
                    let valid = (n - col).min(panel_width);
                    let width = (b_cols - col).min(panel_width).next_multiple_of(S::LANES);
                    // SAFETY: panel and tile lie inside packed B and C.
                    let (b_panel, b_stride, c_tile) = unsafe {
                        let (panel, stride) = match b {
                            Right::View(view) if is_b_in_place => (b_ptr.add(col), view.row_stride),
                            _ => (b_ptr.add(col * b_rows + b_skip * width), width),
                        };
                        (panel, stride, c.add(row * ldc + col))
                    };
                    match (width == panel_width, is_along_k) {
                        (true, true) => {
                            by_rows!(
                                rows,
                                2,
                                true,
                                (s, depth, a_ptr, a_stride, b_panel, b_stride, c_tile, ldc, valid, accumulate)
                            );
                        }
                        (true, false) => {
                            by_rows!(
                                rows,
                                2,
                                false,
                                (s, depth, a_ptr, a_stride, b_panel, b_stride, c_tile, ldc, valid, accumulate)
                            );
                        }
                        (false, true) => {
                            by_rows!(
                                rows,
                                1,
                                true,
                                (s, depth, a_ptr, a_stride, b_panel, b_stride, c_tile, ldc, valid, accumulate)
                            );
                        }
                        (false, false) => {
                            by_rows!(
                                rows,
                                1,
                                false,
                                (s, depth, a_ptr, a_stride, b_panel, b_stride, c_tile, ldc, valid, accumulate)
                            );
                        }
                    }
                    col += panel_width;
                }
                row += rows;
            }
            k_start += depth.max(1);
        }
    }
}

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
const L1_ALIAS_STRIDE: usize = 1024;

/// Up to this many rows of C, B too is read in place: copying it costs as much as multiplying about ten rows by it.
const MAX_ROWS_UNPACKED_B: usize = 192;

/// Distance of the rows of a copy of A: not a power of two.
const A_ROW_STRIDE: usize = K_BLOCK + 16;

/// Space of one thread for packing A, in elements.
pub(super) const PACK_A_LEN: usize = MAX_ROWS * A_ROW_STRIDE;
/// Space of one thread for packing B, in elements.
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

/// Packs a `k × n` matrix into panels of `2·LANES` columns, the last one `LANES` wide if that
/// suffices, columns beyond `n` zero. Panel `p` begins at `p·2·LANES·k`, its rows are contiguous.
///
/// # Safety
/// `b` covers `k × n` live elements and has a stride of 1.
#[inline(always)]
pub(super) unsafe fn pack_b<S: Simd>(s: S, k: usize, n: usize, b: View, to: &mut [f32]) {
    assert!(to.len() >= k * n.next_multiple_of(S::LANES));
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

/// Rows ahead of the one being packed that are prefetched.
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

/// Rows of A, at most [`Simd::ROWS`], and the rows of C that they make.
#[derive(Clone, Copy)]
struct RowPanel {
    rows: usize,
    /// Columns of C.
    cols: usize,
    depth: usize,
    a: *const f32,
    /// From one row of A to the next where A is contiguous along k, else from one column to the next.
    a_stride: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
}

/// `C (+)= A·B` for `M` rows and up to `V` vectors of columns from `col` on, C in registers. B's rows are `b_stride` apart.
///
/// # Safety
/// A covers `M × depth`, B `depth` rows of `V·LANES`; C covers `M` rows.
#[inline(always)]
unsafe fn micro<S: Simd, const M: usize, const V: usize, const A_ALONG_K: bool>(
    s: S,
    panel: RowPanel,
    mut b: *const f32,
    b_stride: usize,
    col: usize,
) {
    let RowPanel { cols, depth, a, a_stride, c, ldc, accumulate, .. } = panel;
    let n = (cols - col).min(V * S::LANES);
    // SAFETY: a column of C.
    let c = unsafe { c.add(col) };
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
    ($rows:expr, $v:literal, ($($arg:expr),*)) => {
        // SAFETY: the callers of this macro pass what `micro` asks for.
        unsafe {
            match $rows {
                1 => micro::<S, 1, $v, A_ALONG_K>($($arg),*),
                2 => micro::<S, 2, $v, A_ALONG_K>($($arg),*),
                3 => micro::<S, 3, $v, A_ALONG_K>($($arg),*),
                4 => micro::<S, 4, $v, A_ALONG_K>($($arg),*),
                5 => micro::<S, 5, $v, A_ALONG_K>($($arg),*),
                6 => micro::<S, 6, $v, A_ALONG_K>($($arg),*),
                7 if S::ROWS > 6 => micro::<S, 7, $v, A_ALONG_K>($($arg),*),
                8 if S::ROWS > 6 => micro::<S, 8, $v, A_ALONG_K>($($arg),*),
                9 if S::ROWS > 6 => micro::<S, 9, $v, A_ALONG_K>($($arg),*),
                10 if S::ROWS > 6 => micro::<S, 10, $v, A_ALONG_K>($($arg),*),
                11 if S::ROWS > 6 => micro::<S, 11, $v, A_ALONG_K>($($arg),*),
                12 if S::ROWS > 6 => micro::<S, 12, $v, A_ALONG_K>($($arg),*),
                rows => unreachable!("{rows} rows"),
            }
        }
    };
}

/// The next panel of A, brought into the second-level cache a part at a time while the current
/// one is multiplied: its rows are short runs far apart, which the hardware does not prefetch.
struct PanelPrefetch {
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

impl PanelPrefetch {
    /// Shares the lines of `rows × depth` elements out over `calls` of [`PanelPrefetch::prefetch`].
    ///
    /// # Safety
    /// `a` covers `rows × depth` live elements.
    #[inline(always)]
    unsafe fn new(a: View, rows: usize, depth: usize, calls: usize) -> PanelPrefetch {
        let (run, runs, stride) =
            if a.col_stride == 1 { (depth, rows, a.row_stride) } else { (rows, depth, a.col_stride) };
        let run_lines = run.div_ceil(LINE);
        let lines_a_call = (run_lines * runs).div_ceil(calls.max(1));
        PanelPrefetch { line: a.ptr, run_lines, runs, stride, at_line: 0, lines_a_call }
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

/// A block of B's rows as panels.
struct ColumnPanels {
    ptr: *const f32,
    /// Distance of the rows of B where it is read in place; none where it is packed.
    row_stride: Option<usize>,
    /// Rows of a packed panel, and how many of them come before the block.
    packed_rows: usize,
    skipped_rows: usize,
    cols: usize,
}

impl ColumnPanels {
    /// The panel that begins at column `col`, the distance of its rows, and its width: one vector or two.
    ///
    /// # Safety
    /// `col` is a column of B at which a panel begins.
    #[inline(always)]
    unsafe fn panel<S: Simd>(&self, col: usize) -> (*const f32, usize, usize) {
        let width = (self.cols - col).min(2 * S::LANES).next_multiple_of(S::LANES);
        // SAFETY: the caller's promise.
        unsafe {
            match self.row_stride {
                Some(stride) => (self.ptr.add(col), stride, width),
                None => (self.ptr.add(col * self.packed_rows + self.skipped_rows * width), width, width),
            }
        }
    }
}

impl Gemm<'_> {
    /// Rows `k_start..k_start + depth` of B, packed unless they can be read in place.
    #[inline(always)]
    fn column_panels<S: Simd>(&mut self, s: S, k_start: usize, depth: usize) -> ColumnPanels {
        let n = self.n;
        match self.b {
            Right::View(view)
                if self.m <= MAX_ROWS_UNPACKED_B
                    && view.col_stride == 1
                    && n.is_multiple_of(S::LANES)
                    && !view.row_stride.is_multiple_of(L1_ALIAS_STRIDE) =>
            {
                // SAFETY: row `k_start` of B.
                let ptr = unsafe { view.at(k_start, 0) };
                ColumnPanels { ptr, row_stride: Some(view.row_stride), packed_rows: depth, skipped_rows: 0, cols: n }
            }
            Right::View(view) => {
                let packed_b = &mut *self.pack_b;
                assert!(n <= N_BLOCK);
                // SAFETY: rows `k_start..k_start + depth` of B.
                unsafe { pack_b(s, depth, n, view.offset(k_start, 0), packed_b) };
                ColumnPanels { ptr: packed_b.as_ptr(), row_stride: None, packed_rows: depth, skipped_rows: 0, cols: n }
            }
            Right::Packed { ptr, rows, cols } => {
                assert!(self.k <= rows && n <= cols);
                ColumnPanels { ptr, row_stride: None, packed_rows: rows, skipped_rows: k_start, cols }
            }
        }
    }

    /// Rows from `row` and columns `k_start..k_start + depth` of A, to be multiplied with all columns of B.
    #[inline(always)]
    fn row_panel<S: Simd>(&mut self, s: S, row: usize, k_start: usize, depth: usize) -> RowPanel {
        let (a, rows, packed_a) = (self.a, (self.m - row).min(S::ROWS), &mut *self.pack_a);
        let is_a_along_k = a.col_stride == 1;
        // SAFETY: inside A and C.
        let (here, c) = unsafe { (a.offset(row, k_start), self.c.add(row * self.ldc)) };
        let (a, a_stride) = if is_a_along_k && a.row_stride.is_multiple_of(L1_ALIAS_STRIDE) {
            // SAFETY: `rows × depth` elements of A.
            unsafe {
                pack_a(s, rows, depth, here, packed_a);
            };
            (packed_a.as_ptr(), A_ROW_STRIDE)
        } else {
            (here.ptr, if is_a_along_k { a.row_stride } else { a.col_stride })
        };
        let (cols, ldc, accumulate) = (self.n, self.ldc, self.accumulate || k_start > 0);
        RowPanel { rows, cols, depth, a, a_stride, c, ldc, accumulate }
    }
}

/// Multiplies rows of A with every panel of B.
///
/// # Safety
/// The rows lie in A and C; the panels have their depth and at least their columns.
#[inline(always)]
unsafe fn multiply_rows<S: Simd, const A_ALONG_K: bool>(
    s: S,
    row_panel: RowPanel,
    panels: &ColumnPanels,
    mut next: PanelPrefetch,
) {
    let panel_width = 2 * S::LANES;
    let mut col = 0;
    while col < row_panel.cols {
        next.prefetch(s);
        // SAFETY: inside B and C.
        let (b, b_stride, width) = unsafe { panels.panel::<S>(col) };
        if width == panel_width {
            by_rows!(row_panel.rows, 2, (s, row_panel, b, b_stride, col));
        } else {
            by_rows!(row_panel.rows, 1, (s, row_panel, b, b_stride, col));
        }
        col += panel_width;
    }
}

impl Kernel for Gemm<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (m, n, k, a) = (self.m, self.n, self.k, self.a);
        assert!(self.pack_a.len() >= PACK_A_LEN);
        assert!(a.col_stride == 1 || a.row_stride == 1);
        let mut k_start = 0;
        while k_start < k || (k == 0 && !self.accumulate && k_start == 0) {
            let depth = (k - k_start).min(K_BLOCK);
            let panels = self.column_panels(s, k_start, depth);
            let mut row = 0;
            while row < m {
                let row_panel = self.row_panel(s, row, k_start, depth);
                row += row_panel.rows;
                let (next_rows, calls) = ((m - row).min(S::ROWS), n.div_ceil(2 * S::LANES));
                // SAFETY: rows up to `m`, columns `k_start..+depth` of A.
                let next = unsafe { PanelPrefetch::new(a.offset(row, k_start), next_rows, depth, calls) };
                // SAFETY: inside A, B and C.
                unsafe {
                    if a.col_stride == 1 {
                        multiply_rows::<S, true>(s, row_panel, &panels, next);
                    } else {
                        multiply_rows::<S, false>(s, row_panel, &panels, next);
                    }
                }
            }
            k_start += depth.max(1);
        }
    }
}

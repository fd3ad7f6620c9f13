//! Vectors of f32, one type per instruction set, chosen at run time.
//!
//! A value of a [`Simd`] type is a witness that the processor has its instructions: it comes only
//! from [`Level::detect`] and [`dispatch`]. Kernels are written once against the trait;
//! `dispatch` compiles them once per instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::fmt;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust on four lanes, which compilers turn into the base instruction set (SSE2, NEON).
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, DQ, BW and VL.
    Avx512,
}

impl Level {
    /// The best level of this processor.
    pub fn detect() -> Level {
        Level::available().last().copied().unwrap_or(Level::Portable)
    }

    /// Every level that this processor has, ascending.
    pub fn available() -> Vec<Level> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "only x86-64 has more than one"))]
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if avx2::is_available() {
                levels.push(Level::Avx2);
            }
            if avx512::is_available() {
                levels.push(Level::Avx512);
            }
        }
        levels
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        })
    }
}

/// A computation that is compiled for every level, as a function of its own for each.
///
/// Those functions are methods of the kernel's type because the compiler groups code by it: after an edit of one kernel
/// the others are not compiled again.
pub(super) trait Kernel: Sized {
    /// Must be `#[inline(always)]`, as must all it calls, or the instructions are not used.
    fn run<S: Simd>(self, simd: S);

    /// [`Kernel::run`] as a function of its own.
    #[inline(never)]
    fn run_portable(self, simd: portable::Portable) {
        self.run(simd);
    }

    /// [`Kernel::run`] with AVX2 and FMA.
    ///
    /// # Safety
    /// The processor has these instructions.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(self, simd: avx2::Avx2) {
        self.run(simd);
    }

    /// [`Kernel::run`] with AVX-512 F, DQ, BW and VL.
    ///
    /// # Safety
    /// The processor has these instructions.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
    unsafe fn run_avx512(self, simd: avx512::Avx512) {
        self.run(simd);
    }
}

/// Runs a kernel with the instructions of `level`.
///
/// # Panics
/// If this processor lacks them; levels come from [`Level::available`].
pub(super) fn dispatch<K: Kernel>(level: Level, kernel: K) {
    match level {
        Level::Portable => portable::Portable.call(kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::Avx2::new().expect("level is available").call(kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::Avx512::new().expect("level is available").call(kernel),
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("levels beyond portable exist on x86-64 only"),
    }
}

/// Operations on vectors of `LANES` f32.
///
/// `max` and `min` return the second operand when one is NaN, so that a NaN placed second
/// always comes through.
pub(super) trait Simd: Copy + Send + Sync + 'static {
    /// Numbers in a vector.
    const LANES: usize;
    /// Rows of the matrix micro-kernel, chosen to fill the registers; at most [`MAX_ROWS`].
    const ROWS: usize;
    /// A vector.
    type F: Copy;

    /// Calls a kernel compiled for this level, as a function of its own.
    fn call<K: Kernel>(self, kernel: K);

    fn splat(self, x: f32) -> Self::F;
    /// Loads the first `LANES` numbers.
    fn load(self, from: &[f32]) -> Self::F;
    /// Loads all of a slice shorter than `LANES`, zeros behind.
    fn load_partial(self, from: &[f32]) -> Self::F;
    /// Stores to the first `LANES` numbers.
    fn store(self, to: &mut [f32], x: Self::F);
    /// Fills a slice shorter than `LANES`.
    fn store_partial(self, to: &mut [f32], x: Self::F);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a·b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c − a·b`, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a` where `x > 0`, else 0.
    fn where_positive(self, x: Self::F, a: Self::F) -> Self::F;
    /// The nearest integer, ties to even, for |n| < 2²².
    fn round(self, n: Self::F) -> Self::F;
    /// `p·2ⁿ` for an integer n with |n| ≤ 127.
    fn scale_by_power_of_two(self, p: Self::F, n: Self::F) -> Self::F;
    fn reduce_add(self, a: Self::F) -> f32;
    fn reduce_max(self, a: Self::F) -> f32;

    /// Asks for a cache line to be brought into the second-level cache; any address is allowed.
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    /// Writes the transpose of the `LANES × depth` matrix at `from` (rows `stride` apart) to
    /// `to`, rows `to_stride` apart.
    ///
    /// # Safety
    /// All of both matrices must lie in live memory, disjoint.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, depth: usize, to: *mut f32, to_stride: usize) {
        for p in 0..depth {
            for lane in 0..Self::LANES {
                // SAFETY: inside both matrices, by the caller's promise.
                unsafe { *to.add(p * to_stride + lane) = *from.add(lane * stride + p) };
            }
        }
    }
}

/// Upper bound of [`Simd::ROWS`].
pub(super) const MAX_ROWS: usize = 12;

/// `eˣ` within 2 units in the last place for x in [−87, 88]; clamped outside, NaN comes through.
/// Reduction and polynomial as in Cephes `expf` (Moshier, 1989).
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-87.3), s.min(s.splat(88.3), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fnma(n, s.splat(0.693_359_4), x);
    let r = s.fnma(n, s.splat(-2.121_944_4e-4), r);
    let p = s.fma(s.splat(1.987_569_1e-4), r, s.splat(1.398_199_9e-3));
    let p = s.fma(p, r, s.splat(8.333_452e-3));
    let p = s.fma(p, r, s.splat(4.166_579_6e-2));
    let p = s.fma(p, r, s.splat(1.666_666_5e-1));
    let p = s.fma(p, r, s.splat(0.5));
    let p = s.fma(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    s.scale_by_power_of_two(p, n)
}

/// `1/(1 + e⁻ˣ)`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// Number of lanes, for macros, which have a value but no type.
#[inline(always)]
pub(super) fn lanes<S: Simd>(_: S) -> usize {
    S::LANES
}

/// `load` or `load_partial` of `from[at..at + len]`.
#[inline(always)]
pub(super) fn load_at<S: Simd>(s: S, from: &[f32], at: usize, len: usize) -> S::F {
    if len == S::LANES { s.load(&from[at..at + S::LANES]) } else { s.load_partial(&from[at..at + len]) }
}

/// `store` or `store_partial` to `to[at..at + len]`.
#[inline(always)]
pub(super) fn store_at<S: Simd>(s: S, to: &mut [f32], at: usize, len: usize, x: S::F) {
    if len == S::LANES { s.store(&mut to[at..at + S::LANES], x) } else { s.store_partial(&mut to[at..at + len], x) }
}

/// `update!(s, out, |at, len, x| …)` replaces every vector `x` of `out`, beginning at `at` and
/// `len` long (shorter than a vector only at the end), by the body's value.
///
/// A macro instead of a function with a closure: a closure is not compiled with its caller's
/// instructions, and the compiler does not always inline it.
macro_rules! update {
    ($s:expr, $out:expr, |$at:pat_param, $len:pat_param, $x:pat_param| $body:expr) => {{
        let (simd, out): (_, &mut [f32]) = ($s, $out);
        let width = $crate::cpu::simd::lanes(simd);
        let whole = out.len() - out.len() % width;
        let mut start = 0;
        while start < whole {
            let ($at, $len, $x) = (start, width, $crate::cpu::simd::load_at(simd, out, start, width));
            let new = $body;
            $crate::cpu::simd::store_at(simd, out, start, width, new);
            start += width;
        }
        if whole < out.len() {
            let rest = out.len() - whole;
            let ($at, $len, $x) = (whole, rest, simd.load_partial(&out[whole..]));
            let new = $body;
            simd.store_partial(&mut out[whole..], new);
        }
    }};
}

/// `fold!(s, n, start, |at, len, accumulator| …)` folds over vectors of `0..n`, each beginning at
/// `at` and `len` long (shorter than a vector only at the end).
macro_rules! fold {
    ($s:expr, $n:expr, $initial:expr, |$at:pat_param, $len:pat_param, $acc:pat_param| $body:expr) => {{
        let (width, n) = ($crate::cpu::simd::lanes($s), $n);
        let whole = n - n % width;
        let mut accumulator = $initial;
        let mut start = 0;
        while start < whole {
            let ($at, $len, $acc) = (start, width, accumulator);
            accumulator = $body;
            start += width;
        }
        if whole < n {
            let ($at, $len, $acc) = (whole, n - whole, accumulator);
            accumulator = $body;
        }
        accumulator
    }};
}

pub(super) use {fold, update};

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these numbers are exact")]
mod tests {
    use super::*;

    struct CheckExp;
    impl Kernel for CheckExp {
        fn run<S: Simd>(self, s: S) {
            for i in -870..880 {
                let x = i as f32 * 0.1 + 0.013;
                let mut out = vec![0.0; S::LANES];
                s.store(&mut out, exp(s, s.splat(x)));
                let expected = f64::from(x).exp();
                let error = (f64::from(out[S::LANES - 1]) - expected).abs() / expected;
                assert!(error < 2.5e-7, "exp({x}) = {} instead of {expected}", out[0]);
            }
            let mut out = vec![0.0; S::LANES];
            s.store(&mut out, exp(s, s.splat(f32::NAN)));
            assert!(out[0].is_nan());
            s.store(&mut out, s.max(s.splat(0.0), s.splat(f32::NAN)));
            assert!(out[0].is_nan());
        }
    }

    struct CheckVectors;
    impl Kernel for CheckVectors {
        fn run<S: Simd>(self, s: S) {
            let numbers: Vec<f32> = (0..S::LANES).map(|i| i as f32 * 1.5 - 4.0).collect();
            let x = s.load(&numbers);
            assert_eq!(s.reduce_add(x), numbers.iter().sum::<f32>());
            assert_eq!(s.reduce_max(x), numbers[S::LANES - 1]);
            for len in 0..S::LANES {
                let mut out = vec![7.0; len];
                s.store_partial(&mut out, s.load_partial(&numbers[..len]));
                assert_eq!(out, numbers[..len]);
            }
            let mut out = vec![0.0; S::LANES];
            s.store(&mut out, s.where_positive(x, s.splat(3.0)));
            let expected: Vec<f32> = numbers.iter().map(|&x| if x > 0.0 { 3.0 } else { 0.0 }).collect();
            assert_eq!(out, expected);
            let (depth, stride) = (19, 23);
            let from: Vec<f32> = (0..S::LANES * stride).map(|i| i as f32).collect();
            let mut to = vec![0.0; depth * S::LANES];
            // SAFETY: both vectors hold the whole matrices.
            unsafe { s.transpose(from.as_ptr(), stride, depth, to.as_mut_ptr(), S::LANES) };
            for p in 0..depth {
                for lane in 0..S::LANES {
                    assert_eq!(to[p * S::LANES + lane], from[lane * stride + p]);
                }
            }
        }
    }

    #[test]
    fn every_level_computes_exp() {
        for level in Level::available() {
            dispatch(level, CheckExp);
        }
    }

    #[test]
    fn every_level_loads_stores_reduces_and_transposes() {
        for level in Level::available() {
            dispatch(level, CheckVectors);
        }
    }
}

//! Eight lanes with AVX2 and FMA.

#![expect(clippy::inline_always, reason = "instructions are only used when inlined into a kernel's functions")]

use std::arch::x86_64::{
    __m256, __m256i, _CMP_GT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_add_ps, _mm_add_ss,
    _mm_cvtss_f32, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps, _mm_prefetch, _mm256_add_epi32,
    _mm256_add_ps, _mm256_and_ps, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpgt_epi32,
    _mm256_cvtps_epi32, _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_permute2f128_ps,
    _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_shuffle_ps,
    _mm256_slli_epi32, _mm256_sqrt_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::{Kernel, Simd};

/// Exists only where the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx2(());

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

impl Avx2 {
    pub(super) fn new() -> Option<Avx2> {
        is_available().then_some(Avx2(()))
    }
}

/// Lanes below `len` all ones.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn mask(len: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(len as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// Transposes eight rows of `depth` numbers, `stride` apart, into columns of `to`.
///
/// # Safety
/// The processor has AVX; both matrices lie in live memory, disjoint.
#[inline(always)]
pub(super) unsafe fn transpose_8_lanes(from: *const f32, stride: usize, depth: usize, to: *mut f32, to_stride: usize) {
    let mut p = 0;
    while p + 8 <= depth {
        // SAFETY: rows 0..8 and columns p..p + 8 lie inside `from`, rows p..p + 8 inside `to`.
        unsafe {
            let row = |lane: usize| _mm256_loadu_ps(from.add(lane * stride + p));
            let rows: [__m256; 8] = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
            let pair = |a: usize| (_mm256_unpacklo_ps(rows[a], rows[a + 1]), _mm256_unpackhi_ps(rows[a], rows[a + 1]));
            let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (pair(0), pair(2), pair(4), pair(6));
            let quads = [
                [_mm256_shuffle_ps::<0x44>(a0, a2), _mm256_shuffle_ps::<0x44>(a4, a6)],
                [_mm256_shuffle_ps::<0xee>(a0, a2), _mm256_shuffle_ps::<0xee>(a4, a6)],
                [_mm256_shuffle_ps::<0x44>(a1, a3), _mm256_shuffle_ps::<0x44>(a5, a7)],
                [_mm256_shuffle_ps::<0xee>(a1, a3), _mm256_shuffle_ps::<0xee>(a5, a7)],
            ];
            for (i, [low, high]) in quads.into_iter().enumerate() {
                _mm256_storeu_ps(to.add((p + i) * to_stride), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to.add((p + i + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
        p += 8;
    }
    while p < depth {
        for lane in 0..8 {
            // SAFETY: as above.
            unsafe { *to.add(p * to_stride + lane) = *from.add(lane * stride + p) };
        }
        p += 1;
    }
}

// SAFETY of every block below: a value of `Avx2` exists, so the processor has the
// instructions; loads and stores stay inside the slices by the assertions before them.
#[expect(clippy::undocumented_unsafe_blocks, reason = "documented once, above")]
impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    type F = __m256;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) {
        unsafe { kernel.run_avx2(self) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        assert!(from.len() >= 8);
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> __m256 {
        assert!(from.len() < 8);
        unsafe { _mm256_maskload_ps(from.as_ptr(), mask(from.len())) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], x: __m256) {
        assert!(to.len() >= 8);
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn store_partial(self, to: &mut [f32], x: __m256) {
        assert!(to.len() < 8);
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), mask(to.len()), x) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn fnma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn where_positive(self, x: __m256, a: __m256) -> __m256 {
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps()), a) }
    }
    #[inline(always)]
    fn round(self, n: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(n) }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, p: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn reduce_add(self, a: __m256) -> f32 {
        unsafe {
            let quad = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        unsafe {
            let quad = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, stride: usize, depth: usize, to: *mut f32, to_stride: usize) {
        unsafe { transpose_8_lanes(from, stride, depth, to, to_stride) }
    }
}

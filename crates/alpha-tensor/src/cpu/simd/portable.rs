//! Four lanes in plain Rust.

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub(in crate::cpu) struct Portable;

type Lanes = [f32; 4];

#[inline(always)]
fn map2(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// `a·b + c`; rounded twice where the base instruction set has no fused form, since calling
/// a library function for each lane would be far slower.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

impl Simd for Portable {
    const LANES: usize = 4;
    const ROWS: usize = 6;
    type F = Lanes;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) {
        kernel.run_portable(self);
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; 4]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> Lanes {
        [from[0], from[1], from[2], from[3]]
    }
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Lanes {
        let mut lanes = [0.0; 4];
        lanes[..from.len()].copy_from_slice(from);
        lanes
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], x: Lanes) {
        to[..4].copy_from_slice(&x);
    }
    #[inline(always)]
    fn store_partial(self, to: &mut [f32], x: Lanes) {
        to.copy_from_slice(&x[..to.len()]);
    }
    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| multiply_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn fnma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| multiply_add(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Lanes) -> Lanes {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn where_positive(self, x: Lanes, a: Lanes) -> Lanes {
        map2(x, a, |x, a| if x > 0.0 { a } else { 0.0 })
    }
    #[inline(always)]
    fn round(self, n: Lanes) -> Lanes {
        // Adding and taking away 1.5·2²³ rounds to the nearest integer, ties to even.
        n.map(|n| (n + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, p: Lanes, n: Lanes) -> Lanes {
        map2(p, n, |p, n| p * f32::from_bits((((n as i32) + 127) << 23) as u32))
    }
    #[inline(always)]
    fn reduce_add(self, a: Lanes) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn reduce_max(self, a: Lanes) -> f32 {
        let first = if a[0] > a[1] { a[0] } else { a[1] };
        let second = if a[2] > a[3] { a[2] } else { a[3] };
        if first > second { first } else { second }
    }
}

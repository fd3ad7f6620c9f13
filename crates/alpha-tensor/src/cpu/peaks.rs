//! Measured peaks of this processor, for rooflines.

use std::{hint::black_box, time::Instant};

use super::{
    Level,
    memory::Buffer,
    pool::Pool,
    simd::{Kernel, Simd, dispatch, load_at, update},
};
use crate::backend::BackendError;

/// Measured peaks of a number of threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// f32 multiply-adds in registers, 10⁹ operations a second.
    pub fma_gflops: f64,
    /// `a = b + x·c` on arrays far larger than the caches, 10⁹ bytes a second, the write
    /// counted once (the triad of STREAM, McCalpin, 1995).
    pub triad_gb_s: f64,
}

/// Chains of multiply-adds that do not depend on each other: enough to hide the latency.
const CHAINS: usize = 16;
const FMA_ROUNDS: usize = 2_000_000;
const TRIAD_LEN: usize = 8 << 20;
const REPEATS: usize = 5;

struct FmaChains<'a> {
    flops: &'a mut f64,
}

impl Kernel for FmaChains<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut chains = [s.splat(black_box(0.5)); CHAINS];
        let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        for _ in 0..FMA_ROUNDS {
            for chain in &mut chains {
                *chain = s.fma(*chain, x, y);
            }
        }
        let sum = chains.into_iter().fold(s.splat(0.0), |sum, chain| s.add(sum, chain));
        black_box(s.reduce_add(sum));
        *self.flops = (FMA_ROUNDS * CHAINS * S::LANES * 2) as f64;
    }
}

struct Triad<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
    c: &'a [f32],
}

impl Kernel for Triad<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let x = s.splat(black_box(3.0));
        let Triad { a, b, c } = self;
        update!(s, a, |at, len, _| s.fma(x, load_at(s, c, at, len), load_at(s, b, at, len)));
    }
}

/// Measures the peaks of `threads` threads together: the best of five runs, about half a second.
pub fn peaks(threads: usize) -> Result<Peaks, BackendError> {
    let threads = threads.max(1);
    let level = Level::detect();
    let mut pool = Pool::new(threads).map_err(|error| BackendError::Unsupported {
        op: "peaks",
        backend: "cpu",
        why: format!("cannot start threads: {error}"),
    })?;
    let mut arrays = [0; 3].map(|_| Buffer::zeroed(TRIAD_LEN, "measuring the bandwidth"));
    let [a, b, c] = &mut arrays;
    let (a, b, c) = (a.as_mut(), b.as_mut(), c.as_mut());
    let (Ok(a), Ok(b), Ok(c)) = (a, b, c) else {
        return Err(BackendError::OutOfMemory { asked_bytes: 12 * TRIAD_LEN, what: "measuring the bandwidth" });
    };
    b.as_mut_slice().fill(1.0);
    c.as_mut_slice().fill(2.0);
    let (mut fma_gflops, mut triad_gb_s) = (0.0f64, 0.0f64);
    for _ in 0..REPEATS {
        let flops = std::sync::Mutex::new(0.0);
        let start = Instant::now();
        pool.run(&|_| {
            let mut mine = 0.0;
            dispatch(level, FmaChains { flops: &mut mine });
            if let Ok(mut flops) = flops.lock() {
                *flops += mine;
            }
        });
        let total = flops.into_inner().unwrap_or(0.0);
        fma_gflops = fma_gflops.max(total / start.elapsed().as_secs_f64() / 1e9);

        let parts: Vec<std::sync::Mutex<&mut [f32]>> =
            a.as_mut_slice().chunks_mut(TRIAD_LEN.div_ceil(threads)).map(std::sync::Mutex::new).collect();
        let (b, c) = (b.as_slice(), c.as_slice());
        let start = Instant::now();
        pool.run(&|thread| {
            if let Some(Ok(mut a)) = parts.get(thread).map(std::sync::Mutex::lock) {
                let from = thread * TRIAD_LEN.div_ceil(threads);
                let (b, c) = (&b[from..from + a.len()], &c[from..from + a.len()]);
                dispatch(level, Triad { a: &mut a, b, c });
            }
        });
        triad_gb_s = triad_gb_s.max((12 * TRIAD_LEN) as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    Ok(Peaks { fma_gflops, triad_gb_s })
}

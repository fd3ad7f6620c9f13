//! The best possible time of a kernel on this machine (Williams, Waterman and Patterson, 2009): no less than its
//! floating-point operations need at the measured peak, nor than its bytes need at the measured bandwidth.
//!
//! The bandwidth is that of memory: a kernel whose data stays in a cache may exceed it, and then only its operations
//! bound it. No kernel exceeds the peak of operations.

use serde::{Deserialize, Serialize};

use super::Kernel;
use crate::LoopError;

/// The measured peaks of the machine.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Peaks {
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// 10⁹ bytes a second from and to memory.
    pub gb_s: f64,
}

/// Reads an object with `gflops` and `gb_s`; other keys are ignored.
pub fn parse_peaks(json: &[u8]) -> Result<Peaks, LoopError> {
    let wrong = |what: String| {
        LoopError::failed(format!("the machine's peaks cannot be used: {what}"))
            .hint("`trace.peaks` of `loop.toml` is a command that prints an object with `gflops` and `gb_s`")
    };
    let peaks: Peaks = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    let possible = |value: f64| (1e-6..=1e12).contains(&value);
    if possible(peaks.gflops) && possible(peaks.gb_s) {
        Ok(peaks)
    } else {
        Err(wrong(format!("`gflops` is {} and `gb_s` is {}", peaks.gflops, peaks.gb_s)))
    }
}

/// What keeps a kernel from being faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Its floating-point operations.
    Compute,
    /// Its bytes.
    Memory,
}

/// A kernel's least time by the roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Floor {
    /// Peaks or counters are missing.
    Unknown,
    /// It cannot take less time.
    Known { floor_ms: f64, bound: Bound },
    /// Faster than memory: only its operations say how fast it could be.
    Cached { floor_ms: f64 },
    /// Faster than the machine can be.
    Beyond { floor_ms: f64 },
}

/// The floor of `kernel`, for as many steps as its totals are of.
pub(super) fn floor(kernel: &Kernel, peaks: Option<Peaks>) -> Floor {
    let (Some(peaks), Some(flops), Some(bytes)) = (peaks, kernel.flops, kernel.bytes) else { return Floor::Unknown };
    let (compute_ms, memory_ms) = (flops / peaks.gflops / 1e6, bytes / peaks.gb_s / 1e6);
    if compute_ms > kernel.time_ms {
        Floor::Beyond { floor_ms: compute_ms }
    } else if memory_ms > kernel.time_ms {
        Floor::Cached { floor_ms: compute_ms }
    } else if memory_ms >= compute_ms {
        Floor::Known { floor_ms: memory_ms, bound: Bound::Memory }
    } else {
        Floor::Known { floor_ms: compute_ms, bound: Bound::Compute }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_two_times_is_the_floor() {
        let peaks = Some(Peaks { gflops: 100.0, gb_s: 10.0 });
        let kernel = |time_ms, flops, bytes| Kernel {
            name: "a".into(),
            phase: "fwd".into(),
            time_ms,
            calls: None,
            flops,
            bytes,
        };
        let of = |time_ms, flops, bytes| floor(&kernel(time_ms, Some(flops), Some(bytes)), peaks);
        // 10⁸ operations take 1 ms at 100 GFLOP/s, 10⁷ bytes take 1 ms at 10 GB/s.
        assert_eq!(of(3.0, 2e8, 1e7), Floor::Known { floor_ms: 2.0, bound: Bound::Compute });
        assert_eq!(of(3.0, 1e8, 2e7), Floor::Known { floor_ms: 2.0, bound: Bound::Memory });
        assert_eq!(of(3.0, 1e8, 4e7), Floor::Cached { floor_ms: 1.0 });
        assert_eq!(of(3.0, 4e8, 1e7), Floor::Beyond { floor_ms: 4.0 });
        assert_eq!(of(0.0, 1e8, 1e7), Floor::Beyond { floor_ms: 1.0 });
        assert_eq!(of(0.0, 0.0, 0.0), Floor::Known { floor_ms: 0.0, bound: Bound::Memory });
        assert_eq!(floor(&kernel(3.0, None, Some(1.0)), peaks), Floor::Unknown);
        assert_eq!(floor(&kernel(3.0, Some(1.0), Some(1.0)), None), Floor::Unknown);
    }

    #[test]
    fn impossible_peaks_are_refused() {
        assert_eq!(
            parse_peaks(br#"{"gflops":150.5,"gb_s":12,"cores":2}"#).unwrap(),
            Peaks { gflops: 150.5, gb_s: 12.0 }
        );
        for json in [r#"{"gflops":0,"gb_s":1}"#, r#"{"gflops":1,"gb_s":-1}"#, r#"{"gflops":1}"#, "peaks", ""] {
            assert!(parse_peaks(json.as_bytes()).is_err(), "{json}");
        }
    }
}

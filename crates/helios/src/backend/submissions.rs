//! How much work goes into one submission, and what is on its way.
//!
//! Drivers reset a device whose submission takes some seconds (two on Windows), and a step of half a million tokens takes
//! minutes on a small one. So a submission ends before the work in it takes long: at first after [`FIRST_MAX_COST`], then after
//! what the device was seen to do in [`MAX_SECONDS`]. Cutting changes no value: operations follow one another either way.

use std::{collections::VecDeque, time::Instant};

use alpha_tensor::{OpCall, Program};

/// Operations' costs that a device of unknown speed gets at once: a fifth of a second at 100 GFLOP/s.
const FIRST_MAX_COST: u64 = 20_000_000_000;
/// Seconds that a submission should take at most.
const MAX_SECONDS: f64 = 0.25;
/// Floating-point operations in the time of a byte: what devices with little memory bandwidth have.
const FLOPS_PER_BYTE: u64 = 8;

/// What each operation of a program costs, in floating-point operations or the time of as many.
pub(crate) fn costs(program: &Program) -> Vec<u64> {
    let cost = |call: &OpCall| call.op.flops().max(call.op.bytes().saturating_mul(FLOPS_PER_BYTE));
    program.ops().iter().map(cost).collect()
}

/// A submission.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    number: u64,
    pub(crate) index: wgpu::SubmissionIndex,
}

#[derive(Debug)]
struct Pending {
    submission: Submission,
    cost: u64,
    at: Instant,
}

/// What is recorded, and what is submitted and not known to be done.
#[derive(Debug)]
pub(crate) struct Submissions {
    pending: VecDeque<Pending>,
    next_number: u64,
    recorded_cost: u64,
    max_cost: u64,
}

impl Submissions {
    pub(crate) fn new() -> Submissions {
        let pending = VecDeque::with_capacity(64);
        Submissions { pending, next_number: 0, recorded_cost: 0, max_cost: FIRST_MAX_COST }
    }

    /// Whether what is recorded is to be submitted before an operation of this cost is added.
    pub(crate) fn is_full(&self, cost: u64) -> bool {
        self.recorded_cost > 0 && self.recorded_cost.saturating_add(cost) > self.max_cost
    }

    /// An operation was recorded.
    pub(crate) fn record(&mut self, cost: u64) {
        self.recorded_cost = self.recorded_cost.saturating_add(cost);
    }

    /// What was recorded was submitted, or something was beside it.
    pub(crate) fn submitted(&mut self, index: wgpu::SubmissionIndex, is_recording: bool) -> Submission {
        let cost = if is_recording { std::mem::take(&mut self.recorded_cost) } else { 0 };
        let submission = Submission { number: self.next_number, index };
        self.next_number += 1;
        self.pending.push_back(Pending { submission: submission.clone(), cost, at: Instant::now() });
        submission
    }

    /// The oldest submission that is not known to be done, up to `last`.
    pub(crate) fn oldest_until(&self, last: &Submission) -> Option<Submission> {
        let oldest = &self.pending.front()?.submission;
        (oldest.number <= last.number).then(|| oldest.clone())
    }

    /// The oldest was found done, `now`.
    pub(crate) fn oldest_done(&mut self, now: Instant) {
        let Some(Pending { cost, at, .. }) = self.pending.pop_front() else { return };
        // It took no longer than since it was submitted. What came before it, and a host that asks late, make the device look
        // slower than it is, never faster.
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if cost > 0 && seconds > 0.0 {
            self.max_cost = self.max_cost.max((cost as f64 / seconds * MAX_SECONDS) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_ends_before_it_takes_long() {
        let mut submissions = Submissions::new();
        assert!(!submissions.is_full(u64::MAX), "one operation cannot be cut");
        submissions.record(FIRST_MAX_COST / 2);
        assert!(!submissions.is_full(FIRST_MAX_COST / 2));
        assert!(submissions.is_full(FIRST_MAX_COST / 2 + 1));
    }
}

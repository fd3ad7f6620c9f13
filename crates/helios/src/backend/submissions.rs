//! How much work goes into one submission, and which submissions are not done.
//!
//! Drivers reset a device whose submission takes a few seconds (two on Windows), and a step of half a million tokens
//! takes minutes on a small device. So a recording is submitted before its work takes long: at first at
//! [`FIRST_MAX_COST`], then at the cost that the device was seen to handle in [`MAX_SECONDS`]. This changes no value:
//! the operations run in the same order.

use std::{collections::VecDeque, time::Instant};

use alpha_tensor::{OpCall, Program};

/// The cost of a submission on a device of unknown speed: a fifth of a second at 100 GFLOP/s.
const FIRST_MAX_COST: u64 = 20_000_000_000;
/// The most time that a submission should take.
const MAX_SECONDS: f64 = 0.25;
/// Floating-point operations in the time that a byte takes, on devices with little memory bandwidth.
const FLOPS_PER_BYTE: u64 = 8;

/// The cost of each operation of a program, in floating-point operations or the time that as many take.
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

/// The cost of the recording, and the submissions that are not known to be done.
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

    /// Whether the recording must be submitted before an operation of this cost is added.
    pub(crate) fn is_full(&self, cost: u64) -> bool {
        self.recorded_cost > 0 && self.recorded_cost.saturating_add(cost) > self.max_cost
    }

    /// Adds an operation to the recording.
    pub(crate) fn record(&mut self, cost: u64) {
        self.recorded_cost = self.recorded_cost.saturating_add(cost);
    }

    /// Adds a submission: of the recording, or of something else.
    pub(crate) fn submitted(&mut self, index: wgpu::SubmissionIndex, is_recording: bool) -> Submission {
        let cost = if is_recording { std::mem::take(&mut self.recorded_cost) } else { 0 };
        let submission = Submission { number: self.next_number, index };
        self.next_number += 1;
        self.pending.push_back(Pending { submission: submission.clone(), cost, at: Instant::now() });
        submission
    }

    /// The oldest submission that is not known to be done, if it is no newer than `last`.
    pub(crate) fn oldest_until(&self, last: &Submission) -> Option<Submission> {
        let oldest = &self.pending.front()?.submission;
        (oldest.number <= last.number).then(|| oldest.clone())
    }

    /// Removes the oldest submission, which was found done at `now`.
    pub(crate) fn oldest_done(&mut self, now: Instant) {
        let Some(Pending { cost, at, .. }) = self.pending.pop_front() else { return };
        // It took at most the time since it was submitted. Earlier submissions, and a host that asks late, make the
        // device look slower than it is, never faster.
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

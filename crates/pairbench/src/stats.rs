//! The statistics behind a verdict: pure functions of numbers.
//!
//! `d` is always ln(time of A / time of B) of a pair, in the order in which the pairs were measured: positive where B,
//! the candidate, is faster. Nothing here knows of files, clocks or programs, and functions that draw random numbers
//! take a seed.

pub mod robust;
pub mod signed_rank;
pub mod sequential;
pub mod confirmation;
pub mod conditional;
pub mod power;
pub mod e_process;
pub mod equivalence;
pub mod bootstrap;
pub mod change_points;

/// A confidence interval, both ends included. An end that the data do not bound is infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// No bound on either side.
    pub const UNBOUNDED: Interval = Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// Whether every value in it is above `value`.
    pub fn is_above(self, value: f64) -> bool {
        self.low > value
    }

    /// Whether every value in it is below `value`.
    pub fn is_below(self, value: f64) -> bool {
        self.high < value
    }

    /// Whether every value in it is nearer to zero than `margin`.
    pub fn is_within(self, margin: f64) -> bool {
        self.is_above(-margin) && self.is_below(margin)
    }

    /// Whether `value` is in it.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

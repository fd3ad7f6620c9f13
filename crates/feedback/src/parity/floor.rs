//! How much runs of the baseline differ: not at all for a trainer whose bits do not change from run to run.

use serde::{Deserialize, Serialize};

use super::{
    losses::{QUANTITIES, RANGES, differences},
    updates::{Distance, compare},
};
use crate::parity::{trajectory::Trajectory, weights::UpdateCheck};

/// Limits are raised to this many times the floor where that is more …
pub(super) const FLOOR_FACTOR: f64 = 5.0;

/// … but a limit is widened to at most this many times the table's, for any reason: floors are in a file that a build
/// could write, and the drift of losses is only reported by the trainers.
pub(super) const WIDEST: f64 = 2.0;

/// A limit, widened.
pub(super) fn widened(limit: f64, by: f64) -> f64 {
    limit.max(by.min(WIDEST * limit))
}

/// The largest differences between runs of the baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Relative differences in steps 1–5, 6–20 and from 21 on: of the loss and of the gradient norm.
    pub steps: [[f64; 2]; 3],
    /// The largest distance between updates of the weights.
    pub updates: Distance,
}

impl Floor {
    /// Includes two runs of the baseline.
    pub fn include_runs(&mut self, one: &Trajectory, other: &Trajectory) {
        for (range, floors) in RANGES.iter().zip(&mut self.steps) {
            for (quantity, floor) in QUANTITIES.iter().zip(floors) {
                let steps = differences(one, other, quantity).skip(range.first - 1).take(range.last - range.first + 1);
                *floor = steps.fold(*floor, f64::max);
            }
        }
    }

    /// Includes updates over the same steps of two runs of the baseline.
    pub fn include_updates(&mut self, one: &UpdateCheck, other: &UpdateCheck) {
        let found = compare(one, other).largest();
        let Distance { projection, norm, dot } = &mut self.updates;
        *projection = projection.max(found.projection);
        *norm = norm.max(found.norm);
        *dot = dot.max(found.dot);
    }
}

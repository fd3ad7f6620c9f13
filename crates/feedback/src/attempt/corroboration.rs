//! What traces say of counters that fell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the kernels' files of both arms say of exact counters that fell. They are the trainers' own word too, but another
/// one: whoever lowers a counter without doing less must lie twice, and in the trace of each kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Corroboration {
    /// Counters whose fall the traces show.
    pub shown: Vec<String>,
    /// Counters that the traces have no number for.
    pub unseen: Vec<String>,
    /// Counters that fell where the traces show that nothing did.
    pub contradicted: Vec<String>,
}

/// As the rest of a sentence about counters.
impl fmt::Display for Corroboration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.contradicted[..], &self.shown[..]) {
            ([], []) => f.write_str("nothing but the trainer's own counters shows it"),
            ([], shown) => write!(f, "the traces of both arms show it too: {}", shown.join(", ")),
            (contradicted, _) => write!(f, "the traces of both arms do not show it: {}", contradicted.join(", ")),
        }
    }
}

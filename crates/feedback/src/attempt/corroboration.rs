//! Whether traces show that counters fell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Compares the kernel traces of both arms with exact counters that fell. Traces come from the trainers too, but
/// independently: a trainer that lowers a counter without doing less must also falsify the trace of each kernel.
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

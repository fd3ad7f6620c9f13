//! What traces say of counters that fell.

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

impl Corroboration {
    /// As the rest of a sentence about counters.
    pub fn text(&self) -> String {
        match (&self.contradicted[..], &self.shown[..]) {
            ([], []) => "nothing but the trainer's own counters shows it".to_owned(),
            ([], shown) => format!("the traces of both arms show it too: {}", shown.join(", ")),
            (contradicted, _) => format!("the traces of both arms do not show it: {}", contradicted.join(", ")),
        }
    }
}

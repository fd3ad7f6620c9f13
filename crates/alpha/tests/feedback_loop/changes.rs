//! Changes of the toy trainer whose effect is known.

use crate::toy::Toy;

/// A change: pieces of the trainer's source and what they become.
pub(crate) type Edits<'a> = &'a [(&'a str, &'a str)];

/// Takes the waste out of attention: two fifths less time a step, the same bits.
pub(crate) const FASTER: Edits =
    &[("\"attention\": 40_000", "\"attention\": 0"), ("\"attention_backward\": 40_000", "\"attention_backward\": 0")];
/// Four times as much waste there.
pub(crate) const SLOWER: Edits = &[
    ("\"attention\": 40_000", "\"attention\": 160_000"),
    ("\"attention_backward\": 40_000", "\"attention_backward\": 160_000"),
];
/// Another program that does the same in the same time.
pub(crate) const RENAMED: Edits = &[
    ("table, places = s.params[\"embedding\"]", "table, spots = s.params[\"embedding\"]"),
    ("zip(table[token], places[t])] for tokens", "zip(table[token], spots[t])] for tokens"),
];
/// One kernel less, the same bits.
pub(crate) const LEANER: Edits = &[("    (\"optim\", zero_unused),\n", "")];
/// Sums from the other end: the same numbers up to rounding.
pub(crate) const REASSOCIATED: Edits = &[("return sum(map(mul, a, b))", "return sum(list(map(mul, a, b))[::-1])")];
/// The sequences of a batch in another order, as other threads would add them up.
pub(crate) const REORDERED: Edits = &[("s.read(loader.batch(batch))", "s.read(loader.batch(batch)[::-1])")];

impl Toy {
    /// Makes a change.
    #[track_caller]
    pub(crate) fn change(&self, edits: Edits) {
        for (from, to) in edits {
            self.edit(from, to);
        }
    }

    /// Checks that a change on top of a true gain is refused, and that one of `causes` is the reason.
    #[track_caller]
    pub(crate) fn refuses(&self, edits: Edits, causes: &[&str]) {
        self.restore();
        self.change(FASTER);
        self.change(edits);
        self.json(&["compare"]).is_refused_for(causes);
    }

    /// Opens a cycle about attention.
    #[track_caller]
    pub(crate) fn begin(&self) {
        self.alpha(&["start", "attention wastes its time", "--area=attention"]).succeeded();
    }
}

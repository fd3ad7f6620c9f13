//! One rule and its result.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One rule: passes where `found` is at most `allowed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// A stable name, which a refusal shows.
    pub name: String,
    /// Whether the rule holds.
    pub passed: bool,
    /// The worst value found; none if it is not finite or was not measured.
    pub found: Option<f64>,
    /// The most that is allowed.
    pub allowed: f64,
    /// Where the worst value was found, in words.
    pub detail: String,
}

impl Check {
    /// A rule whose evidence is missing, which fails.
    pub(super) fn unmeasured(name: &str, detail: &str) -> Check {
        Check { name: name.into(), passed: false, found: None, allowed: 0.0, detail: detail.into() }
    }

    /// A rule that fails if any fault was found.
    pub(super) fn fails_if_any(name: &str, found: &[String]) -> Check {
        const SHOWN: usize = 3;
        let mut shown: Vec<String> = found.iter().take(SHOWN).cloned().collect();
        if found.len() > SHOWN {
            shown.push(format!("and {} more", found.len() - SHOWN));
        }
        let detail = shown.join("; ");
        Check { name: name.into(), passed: found.is_empty(), found: Some(found.len() as f64), allowed: 0.0, detail }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Check { name, found, allowed, detail, .. } = self;
        match found {
            Some(found) => write!(f, "{name}: found {found:.2e}, allowed {allowed:.2e} ({detail})"),
            None => write!(f, "{name}: {detail}"),
        }
    }
}

/// The worst of several measurements, each with its own limit: the one that is nearest to its limit or furthest beyond
/// it.
#[derive(Debug, Default)]
pub(super) struct Worst {
    found: f64,
    allowed: f64,
    place: Option<String>,
}

impl Worst {
    /// Adds a measurement; NaN exceeds every limit.
    pub(super) fn record(&mut self, found: f64, allowed: f64, place: impl FnOnce() -> String) {
        let found = if found.is_nan() { f64::INFINITY } else { found };
        let share = |found: f64, allowed: f64| if found == 0.0 { 0.0 } else { found / allowed };
        if self.place.is_none() || share(found, allowed) > share(self.found, self.allowed) {
            *self = Worst { found, allowed, place: Some(place()) };
        }
    }

    /// The rule's outcome.
    pub(super) fn check(self, name: &str, unmeasured: &str) -> Check {
        let Worst { found, allowed, place } = self;
        match place {
            None => Check::unmeasured(name, unmeasured),
            Some(detail) => Check {
                name: name.into(),
                passed: found <= allowed,
                found: found.is_finite().then_some(found),
                allowed,
                detail,
            },
        }
    }
}

/// |b − a| / |a|; 0 for equal bits.
pub(super) fn relative_difference(a: f64, b: f64) -> f64 {
    if a.to_bits() == b.to_bits() { 0.0 } else { (b - a).abs() / a.abs() }
}

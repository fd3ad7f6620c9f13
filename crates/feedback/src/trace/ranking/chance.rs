//! How likely an attempt at a kernel succeeds, and what it risks.
//!
//! The chance is the mean of a Beta distribution: a prior for the kind of work, and the attempts in the ledger. The
//! priors are judgements, not measurements: they weigh as much as four attempts, so that a few real ones outweigh them.
//! They prefer removing whole passes over tensors, dispatches, synchronisation and reading back, which is easier; a
//! kernel that computes must be rewritten for the processor, which fails more often, most of all near the roofline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Area;

/// The kind of a kernel's work, which suggests what could make it faster.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bound by bytes: passes over whole tensors, which fusing removes.
    Passes,
    /// Many calls so short that starting them takes most of the time.
    Calls,
    /// Time that no kernel covers: waiting, synchronisation, reading back, the host's own work.
    Waiting,
    /// Bound by floating-point operations.
    Compute,
    /// At two thirds of the roofline or above, whichever limit it has.
    NearFloor,
    /// Not known: peaks or counters are missing.
    Unknown,
}

impl Kind {
    /// Parameters of the Beta distribution: accepted and refused attempts that the prior stands for.
    pub fn prior(self) -> (f64, f64) {
        match self {
            Kind::Passes | Kind::Calls => (2.0, 2.0),
            Kind::Waiting => (1.6, 2.4),
            Kind::Compute | Kind::Unknown => (1.0, 3.0),
            Kind::NearFloor => (0.4, 3.6),
        }
    }
}

/// The ledger's attempts in one area.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PastAttempts {
    /// The area that was declared.
    pub area: String,
    /// The kind of work that they were about, if it was recorded.
    pub kind: Option<Kind>,
    /// Attempts that came to an end.
    pub attempts: u32,
    /// Those that were accepted.
    pub accepted: u32,
}

/// The prospects of an attempt at one kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outlook {
    /// Mean probability of success.
    pub(super) chance: f64,
    /// 1 + failed attempts in its areas + files that it spans.
    pub(super) risk: f64,
    pub(super) areas: Vec<String>,
    pub(super) files: Vec<String>,
    /// Attempts in its areas, of any kind.
    pub(super) attempts: u32,
    pub(super) accepted: u32,
}

/// Areas, their files and their history.
pub(super) struct Prospects<'a> {
    areas: Vec<(&'a str, globset::GlobSet, Vec<&'a str>)>,
    past: &'a [PastAttempts],
}

impl<'a> Prospects<'a> {
    pub(super) fn new(
        areas: &'a BTreeMap<String, Area>,
        files: &'a [String],
        past: &'a [PastAttempts],
    ) -> Prospects<'a> {
        let areas = areas.iter().map(|(name, area)| {
            let globs = area.files();
            let files = files.iter().map(String::as_str).filter(|file| globs.is_match(file)).collect();
            (name.as_str(), area.kernels(), files)
        });
        Prospects { areas: areas.collect(), past }
    }

    /// Attempts of the same kind anywhere, and those of unrecorded kind in the kernel's areas, count for the chance. A
    /// kernel of no area counts as spanning as many files as the widest area, because nothing says that it is narrow.
    pub(super) fn outlook(&self, name: &str, label: &str, kind: Kind) -> Outlook {
        let here: Vec<_> =
            self.areas.iter().filter(|(_, kernels, _)| kernels.is_match(name) || kernels.is_match(label)).collect();
        let is_here = |past: &&PastAttempts| here.iter().any(|(area, ..)| *area == past.area);
        let sum = |past: &mut dyn Iterator<Item = &PastAttempts>| {
            past.fold((0u32, 0u32), |(attempts, accepted), past| {
                (attempts.saturating_add(past.attempts), accepted.saturating_add(past.accepted.min(past.attempts)))
            })
        };
        let (attempts, accepted) = sum(&mut self.past.iter().filter(is_here));
        let is_alike = |past: &&PastAttempts| past.kind.map_or(is_here(past), |other| other == kind);
        let (alike, alike_accepted) = sum(&mut self.past.iter().filter(is_alike));
        let (a, b) = kind.prior();
        let mut files: Vec<String> =
            here.iter().flat_map(|(.., files)| files.iter().map(|file| (*file).to_owned())).collect();
        files.sort_unstable();
        files.dedup();
        let spanned = if here.is_empty() {
            self.areas.iter().map(|(.., files)| files.len()).max().unwrap_or(0)
        } else {
            files.len()
        };
        Outlook {
            chance: (a + f64::from(alike_accepted)) / (a + b + f64::from(alike)),
            risk: 1.0 + f64::from(attempts - accepted) + spanned as f64,
            areas: here.iter().map(|(area, ..)| (*area).to_owned()).collect(),
            files,
            attempts,
            accepted,
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these values are exact")]
mod tests {
    use super::*;

    fn areas() -> BTreeMap<String, Area> {
        let area = |kernels: &str, files: &str| Area { kernels: vec![kernels.into()], files: vec![files.into()] };
        [
            ("attention".to_owned(), area("attention*", "src/attention/*.rs")),
            ("backward".to_owned(), area("bwd/*", "src/attention/bwd.rs")),
        ]
        .into()
    }

    #[test]
    fn history_moves_the_prior() {
        let (areas, files) = (areas(), Vec::new());
        let past = |area: &str, kind, attempts, accepted| PastAttempts { area: area.into(), kind, attempts, accepted };
        let chance = |past: &[PastAttempts], kind| {
            Prospects::new(&areas, &files, past).outlook("attention", "fwd/attention", kind).chance
        };
        assert_eq!(chance(&[], Kind::Passes), 0.5);
        assert_eq!(chance(&[], Kind::Compute), 0.25);
        // Beta(2, 2) and three of four: (2 + 3) / (4 + 4).
        assert_eq!(chance(&[past("attention", None, 4, 3)], Kind::Passes), 0.625);
        assert_eq!(chance(&[past("backward", None, 4, 3)], Kind::Passes), 0.5, "another area");
        assert_eq!(chance(&[past("backward", Some(Kind::Passes), 4, 0)], Kind::Passes), 0.25, "the same kind");
        assert_eq!(chance(&[past("attention", Some(Kind::Calls), 4, 0)], Kind::Passes), 0.5, "another kind");
        assert_eq!(chance(&[past("attention", None, 2, 9)], Kind::Passes), 4.0 / 6.0, "not more than were tried");
    }

    #[test]
    fn risk_counts_failures_and_files_once() {
        let areas = areas();
        let files = ["src/attention/fwd.rs", "src/attention/bwd.rs", "src/other.rs"].map(String::from);
        let past = [PastAttempts { area: "attention".into(), kind: None, attempts: 3, accepted: 1 }];
        let prospects = Prospects::new(&areas, &files, &past);
        let both = prospects.outlook("attention", "bwd/attention", Kind::Compute);
        assert_eq!((both.risk, both.areas.len(), both.files.len()), (1.0 + 2.0 + 2.0, 2, 2));
        assert_eq!((both.attempts, both.accepted), (3, 1));
        let narrow = prospects.outlook("linear", "bwd/linear", Kind::Compute);
        assert_eq!((narrow.risk, narrow.files), (2.0, vec!["src/attention/bwd.rs".to_owned()]));
        let nowhere = prospects.outlook("linear", "fwd/linear", Kind::Compute);
        assert_eq!((nowhere.risk, nowhere.files.len()), (3.0, 0), "as wide as the widest");
    }
}

//! Keeps account of the pairs that an attempt started: no number is used twice, and no pair disappears.
//!
//! A pair is used up when it starts: it is written to disk before its trainers start. A pair that the candidate ended
//! early, or during which the loop itself died, is *lost*: it counts against the candidate as the largest difference
//! there is ([`LOST_D`]). So a trainer gains nothing by ending pairs that look bad for it. A pair that the baseline
//! spoiled does not count; the number of such pairs is limited.
//!
//! A pair that the user interrupted does not count either, in the comparison and up to [`FREE_INTERRUPTIONS`] times;
//! but the loop cannot tell the user's signal from one that a trainer sent, so the confirmation's level pays for each
//! ([`LEVEL_OF_AN_INTERRUPTION`]). By simulation, at worst (20 pairs, no effect, a trainer that knows each pair's
//! number and throws away pairs that look bad, 20 000 comparisons a row):
//!
//! | thrown away in the comparison | FASTER | landed, if the confirmation lets as many go | if its level pays, and it lets none go |
//! | --- | --- | --- | --- |
//! | none | 2.5 % | 0.06 % | 0.06 % |
//! | 1, not counted | 6.9 % | 0.45 % | 0.04 % |
//! | 2, not counted | 12.5 % | 1.5 % | 0.02 % |
//! | 3, not counted | 19.8 % | 3.5 % | 0.01 % |
//! | 1 or 2, lost, and in the confirmation too | 2.4 % | 0.06 % | – |

use std::collections::{BTreeMap, BTreeSet};

use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    pair::plain::PlainMode,
    stats::sequential::Plan,
    verdict::LOST_D,
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    attempt::{Attempt, PairRow, VoidPair, guard::FIRST_NUMBER, plain::PlainRow},
    visible,
};

/// A larger difference between two trainers is not believed, and a file of an attempt that holds one is refused.
const MAX_D: f64 = 50.0;
/// How often the user may interrupt a pair of the comparison so that it does not count; further ones, and those of
/// other series, are lost.
pub const FREE_INTERRUPTIONS: usize = 3;
/// The factor by which each of them lowers the confirmation's level: this costs more than a trainer could gain by it.
pub const LEVEL_OF_AN_INTERRUPTION: f64 = 0.25;
/// No confirmation makes up for more lost pairs than this.
pub const MAX_LOST: usize = 8;
/// The most pairs of a series.
pub const MAX_PAIRS: usize = 1_000;
/// A reason in an attempt is cut to so many characters, because it may hold text from trainers and file names.
const MAX_REASON_CHARS: usize = 600;

/// Numbers of plain runs begin here, away from those of guards and of traced runs.
const FIRST_PLAIN_NUMBER: u64 = 3_000_000;

/// The series of a pair. Each series has its own looks; comparison and confirmation share one sequence of numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Series {
    /// The comparison.
    Comparison,
    /// The fresh pairs after FASTER.
    Confirmation,
    /// A guard with pairs of its own, by its name.
    Guard(String),
    /// Plain runs after the confirmation.
    Plain(PlainMode),
}

/// A pair, by its series and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairOf {
    /// Its series.
    pub series: Series,
    /// Its number.
    pub number: u64,
}

/// A pair that counts against the candidate, without a measured number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostPair {
    /// Which pair.
    #[serde(flatten)]
    pub pair: PairOf,
    /// How it ended.
    pub why: String,
}

/// The pairs of an attempt without a measured number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bookkeeping {
    /// The pair that has started and not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<PairOf>,
    /// Lost pairs; their rows have [`LOST_D`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostPair>,
    /// Pairs that the user interrupted and that do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupted: Vec<PairOf>,
    /// Pairs that do not count, by guard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guard_voids: BTreeMap<String, Vec<VoidPair>>,
    /// How often it started over because its state was gone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: usize,
    /// Attempts on this target that were known when this one was last counted, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_known: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A reason, cut where it is longer than a reason is.
pub fn bounded(reason: &str) -> String {
    visible::cut(reason, MAX_REASON_CHARS)
}

impl PairRow {
    /// A pair of this number that was lost.
    pub fn lost(draws: Randomization, number: u64) -> PairRow {
        PairRow {
            number,
            seed: draws.training_seed(number),
            baseline_first: draws.coin(Purpose::Pair, number, 0),
            log_ratio: LOST_D,
            run_log_ratio: LOST_D,
            ready_ms: [0.0; 2],
            finish_ms: [0.0; 2],
            peak_memory_bytes: [None; 2],
            foreign_cpu_share: [0.0; 2],
            seconds: 0.0,
            turns_s: 0.0,
        }
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.log_ratio <= LOST_D
    }
}

impl Attempt {
    /// The pairs of the comparison that were measured completely.
    pub fn measured(&self) -> impl Iterator<Item = &PairRow> {
        self.pairs.iter().filter(|pair| !pair.is_lost())
    }

    /// The number of the next pair: no number is used twice.
    pub fn next_number_of(&self, series: &Series) -> u64 {
        let book = &self.bookkeeping;
        if let Series::Guard(name) = series {
            let voids = self.voids_of(series).iter().filter(|void| void.arm == Arm::Baseline).count();
            return FIRST_NUMBER + (self.guard_d.get(name).map_or(0, Vec::len) + voids) as u64;
        }
        if let Series::Plain(_) = series {
            let used = self.plain.iter().map(|plain| plain.slices.len() + plain.whole.len() + plain.voids.len());
            return FIRST_PLAIN_NUMBER + used.sum::<usize>() as u64;
        }
        let elsewhere = book.interrupted.iter().chain(&book.begun).chain(book.lost.iter().map(|lost| &lost.pair));
        let elsewhere = elsewhere
            .filter(|pair| !matches!(pair.series, Series::Guard(_) | Series::Plain(_)))
            .map(|pair| pair.number);
        let confirmation = self.confirmation.iter();
        let pairs = self.pairs.iter().chain(confirmation.clone().flat_map(|confirmation| &confirmation.pairs));
        let voids = self.voids.iter().chain(confirmation.flat_map(|confirmation| &confirmation.voids));
        let used = pairs.map(|pair| pair.number).chain(voids.map(|void| void.number)).chain(elsewhere);
        used.max().map_or(0, |last| last + 1)
    }

    /// The spoiled pairs of a series: those that the baseline spoiled do not count, those that the candidate spoiled
    /// are lost.
    pub fn voids_of(&self, series: &Series) -> &[VoidPair] {
        match series {
            Series::Comparison => &self.voids,
            Series::Confirmation => self.confirmation.as_ref().map_or(&[], |confirmation| &confirmation.voids),
            Series::Guard(name) => self.bookkeeping.guard_voids.get(name).map_or(&[], Vec::as_slice),
            Series::Plain(_) => self.plain.as_ref().map_or(&[], |plain| &plain.voids),
        }
    }

    /// How many pairs of a series are lost.
    pub fn lost_in(&self, series: &Series) -> usize {
        self.bookkeeping.lost.iter().filter(|lost| lost.pair.series == *series).count()
    }

    /// Records who spoiled the pair that has started. If it was the baseline, the pair does not count; if it was the
    /// candidate, it counts against the candidate.
    pub(crate) fn spoil(&mut self, pair: PairOf, arm: Arm, why: &str) {
        let row = VoidPair { number: pair.number, arm, why: bounded(why) };
        match &pair.series {
            Series::Comparison => self.voids.push(row),
            Series::Confirmation => self.confirmation.iter_mut().for_each(|found| found.voids.push(row.clone())),
            Series::Guard(name) => self.bookkeeping.guard_voids.entry(name.clone()).or_default().push(row),
            Series::Plain(_) => self.plain.iter_mut().for_each(|plain| plain.voids.push(row.clone())),
        }
        match arm {
            Arm::Baseline => self.bookkeeping.begun = None,
            Arm::Candidate => self.lose(pair, &format!("the candidate {why}")),
        }
    }

    /// Counts the pair that has started against the candidate.
    pub(crate) fn lose(&mut self, pair: PairOf, why: &str) {
        let row = PairRow::lost(self.draws, pair.number);
        match &pair.series {
            Series::Comparison => self.pairs.push(row),
            Series::Confirmation => self.confirmation.iter_mut().for_each(|found| found.pairs.push(row.clone())),
            Series::Guard(name) => self.guard_d.entry(name.clone()).or_default().push(LOST_D),
            Series::Plain(mode) => self.plain.iter_mut().for_each(|plain| {
                let lost = PlainRow::lost(plain.draws, pair.number);
                plain.rows_mut(*mode).push(lost);
            }),
        }
        self.bookkeeping.lost.push(LostPair { pair, why: bounded(why) });
        self.bookkeeping.begun = None;
    }

    /// Records that the user interrupted the pair that has started.
    pub(crate) fn interrupt(&mut self, pair: PairOf) {
        if pair.series == Series::Comparison && self.bookkeeping.interrupted.len() < FREE_INTERRUPTIONS {
            self.bookkeeping.interrupted.push(pair);
            self.bookkeeping.begun = None;
        } else {
            self.lose(pair, "the loop was interrupted in the middle of it");
        }
    }

    /// Counts the pair during which an earlier run of the loop died.
    pub fn settle(&mut self) {
        if let Some(pair) = self.bookkeeping.begun.take() {
            self.lose(pair, "the loop ended in the middle of it");
        }
    }

    /// Refuses a state that no run of the loop can have left, before anything is computed from it.
    ///
    /// # Errors
    /// [`LoopError::failed`] with what is wrong.
    pub fn check(&self) -> Result<(), LoopError> {
        match self.fault() {
            None => Ok(()),
            Some(what) => Err(LoopError::failed(format!("the attempt `{}` cannot be right: {what}", self.key))),
        }
    }

    fn fault(&self) -> Option<String> {
        let is_d = |d: f64| d.is_finite() && (d.abs() <= MAX_D || d.to_bits() == LOST_D.to_bits());
        let is_time = |value: f64| (0.0..1e12).contains(&value);
        let is_row = |row: &PairRow| {
            let times = row.ready_ms.into_iter().chain(row.finish_ms).chain([row.seconds, row.turns_s]);
            is_d(row.log_ratio) && is_d(row.run_log_ratio) && times.chain(row.foreign_cpu_share).all(is_time)
        };
        if let Some(plan) = &self.plan {
            let blocks = plan.blocks;
            let timed =
                blocks.block_steps.checked_mul(blocks.blocks).and_then(|steps| steps.checked_add(blocks.warmup_steps));
            if Plan::for_pairs(plan.pairs).is_none() {
                return Some(format!("a plan of {} pairs, which is none of the loop's", plan.pairs));
            }
            if timed.is_none_or(|timed| timed > blocks.steps) || !is_time(plan.seconds_per_pair) {
                return Some("a plan whose blocks do not fit into the run".to_owned());
            }
        }
        let confirmation = self.confirmation.iter();
        let series = [&self.pairs].into_iter().chain(confirmation.clone().map(|found| &found.pairs));
        let lengths = series.clone().map(Vec::len).chain(self.guard_d.values().map(Vec::len));
        if let Some(pairs) =
            lengths.chain(confirmation.clone().map(|found| found.planned)).find(|pairs| *pairs > MAX_PAIRS)
        {
            return Some(format!("{pairs} pairs, where at most {MAX_PAIRS} are measured"));
        }
        let rows = || series.clone().flatten();
        if let Some(row) = rows().find(|row| !is_row(row)) {
            return Some(format!("impossible numbers in pair {}", row.number));
        }
        let mut numbers = BTreeSet::new();
        if let Some(row) = rows().find(|row| row.number >= FIRST_NUMBER || !numbers.insert(row.number)) {
            return Some(format!("pair {} twice, or with a number that no pair has", row.number));
        }
        let plain = || self.plain.iter().flat_map(|plain| plain.slices.iter().chain(&plain.whole));
        if plain().count() > MAX_PAIRS || !plain().all(|row| is_d(row.log_ratio) && row.ms.into_iter().all(is_time)) {
            return Some("impossible numbers of plain runs".to_owned());
        }
        if !self.guard_d.values().flatten().all(|d| is_d(*d)) {
            return Some("impossible numbers of a guard".to_owned());
        }
        let is_level = |level: f64| level > 0.0 && level <= 0.025;
        if !confirmation.clone().all(|found| is_level(found.level)) || !(0.0..=100.0).contains(&self.epsilon_pct) {
            return Some("a level or a smallest gain that the loop does not use".to_owned());
        }
        let spoiled = self.voids.len() + self.bookkeeping.guard_voids.values().map(Vec::len).sum::<usize>();
        (spoiled.max(self.bookkeeping.lost.len()).max(self.bookkeeping.interrupted.len()) > MAX_PAIRS)
            .then(|| "more spoiled pairs than an attempt has".to_owned())
    }
}

//! An attempt: one candidate against one baseline, from its first pair to its verdict.
//!
//! The state folder keeps open attempts, rewritten after each pair, so that an interrupted comparison continues where
//! it stopped. The ledger keeps them when a stage has ended. An attempt is identified by what ran, not by names:
//! editing a comment starts no new attempt, because the binaries are the same. An attempt with an answer keeps it, so
//! that nobody can try again until lucky.

pub mod bookkeeping;
pub mod confirmation;
pub mod corroboration;
pub mod gaming;
pub mod guard;
pub mod layout;
pub mod plain;
pub mod reference;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pairbench::{
    draws::Randomization,
    pair::plan::PairPlan,
    process::isolation::Protection,
    verdict::{Estimate, LOST_D, Verdict},
};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    LoopError,
    attempt::{
        bookkeeping::{Bookkeeping, bounded},
        guard::GuardResult,
        layout::{Floors, Needs},
        plain::PlainRuns,
    },
    machine::Machine,
    parity::{Parity, Tier, pair_log::PairLog},
    trace::attribution::Attribution,
};

/// Loss of speed that LEANER allows.
const LEANER_MARGIN_PCT: f64 = 0.5;

/// Everything about an attempt; the body of its ledger record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// Hash of what was compared: both binaries, workload, machine.
    pub key: String,
    /// Whether the same program ran on both sides on purpose: never a claim.
    pub is_identical: bool,
    /// The cycle's hypothesis.
    pub hypothesis: Option<String>,
    /// The declared area: the part of the trainer that the change is about.
    pub area: Option<String>,
    /// How equal the training must be.
    pub tier: Tier,
    /// A.
    pub baseline: Revision,
    /// B.
    pub candidate: Revision,
    /// Where it ran.
    pub machine: Machine,
    /// The instrument.
    pub manifest: Manifest,
    /// Smallest gain that counts.
    pub epsilon_pct: f64,
    /// The seed of all draws.
    #[serde(rename = "coins")]
    pub draws: Randomization,
    /// Fixed before the first pair.
    pub plan: Option<PairPlan>,
    /// The pairs that count, in order.
    pub pairs: Vec<PairRow>,
    /// The pairs that do not count.
    pub voids: Vec<VoidPair>,
    /// Whether both arms train the same.
    pub parity: Option<Parity>,
    /// Exact counters of a run that differ between the arms.
    pub counters: Vec<CounterRow>,
    /// Floating-point operations of a baseline's step, if it counts them.
    #[serde(default)]
    pub flops: Option<u64>,
    /// Results of the guards.
    pub guards: Vec<GuardResult>,
    /// For each guard with pairs of its own: ln(baseline / candidate) of each pair.
    #[serde(default)]
    pub guard_d: BTreeMap<String, Vec<f64>>,
    /// Where the gain is.
    pub attribution: Option<Attribution>,
    /// The fresh pairs after FASTER.
    pub confirmation: Option<Confirmation>,
    /// The gain that must be exceeded because of layouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors: Option<Floors>,
    /// Runs without the turn protocol, after the confirmation. Records from before there were any have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<PlainRuns>,
    /// None while it is open.
    pub verdict: Option<Verdict>,
    /// In a sentence.
    pub reason: String,
    /// The estimate of the comparison's pairs.
    pub estimate: Option<Estimate>,
    /// Where the time went.
    pub seconds: Seconds,
    /// The pairs without a measured number.
    #[serde(default)]
    pub bookkeeping: Bookkeeping,
    /// Hash of what its pairs showed of the training, see [`crate::parity::pair_log`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// Whether the traces of both arms show that counters fell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaner: Option<crate::attempt::corroboration::Corroboration>,
    /// The comparison with the best accepted tree of the last commits, if that is not the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<crate::attempt::reference::Reference>,
    /// The rules it was judged by: [`RULES`], or 0 for records from before rules had a number.
    #[serde(default)]
    pub rules: u32,
}

/// The rules of this program: their records are recomputed from their rows, none of which may be missing.
pub const RULES: u32 = 1;

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// The commit that holds the tree; a scratch one for a candidate that is not committed.
    pub commit: String,
    /// Its whole tree.
    pub tree: String,
    /// The tree without unmeasured files.
    pub measured_tree: String,
    /// For the candidate: the id of the change from the baseline.
    pub patch_id: String,
    /// Hash of the artifacts.
    pub binary: String,
}

/// The instrument that measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The target of `loop.toml`, if it is not the file's own workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The workload's command.
    pub command: String,
    /// Tokens of a run.
    pub tokens: u64,
    /// Hash of the configuration file.
    pub config: String,
    /// Hash of the program that judges.
    pub judge: String,
    /// Output of the toolchain's commands.
    pub toolchain: String,
    /// The data that git does not track: names, and hashes of the content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// The walls around builds and trainers. Records from before there were any have none.
    #[serde(default)]
    pub protection: Protection,
}

/// A pair that counts. Arrays are baseline, candidate. Kept as a row of values in this order, so that a record has room
/// for hundreds; the first records had them by name, which is read too.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PairRow {
    /// Its number; its draws depend on it.
    pub number: u64,
    /// Training seed of both.
    pub seed: u64,
    /// Whether the baseline started first.
    pub baseline_first: bool,
    /// `ln(t_baseline / t_candidate)` over steady steps.
    #[serde(rename = "d")]
    pub log_ratio: f64,
    /// The same over everything from start to end.
    #[serde(rename = "whole")]
    pub run_log_ratio: f64,
    /// Start to first step.
    pub ready_ms: [f64; 2],
    /// Last step to end, and writing weights on request.
    pub finish_ms: [f64; 2],
    /// Peak resident memory.
    pub peak_memory_bytes: [Option<u64>; 2],
    /// Processor time of others in the arm's turns.
    pub foreign_cpu_share: [f64; 2],
    /// Wall time of the pair.
    pub seconds: f64,
    /// The part of that in turns.
    pub turns_s: f64,
}

impl Serialize for PairRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let PairRow { number, seed, baseline_first, log_ratio, run_log_ratio, ready_ms, finish_ms, .. } = self;
        let PairRow { peak_memory_bytes, foreign_cpu_share, seconds, turns_s, .. } = self;
        let memory = peak_memory_bytes;
        (
            number,
            seed,
            baseline_first,
            log_ratio,
            run_log_ratio,
            ready_ms,
            finish_ms,
            memory,
            foreign_cpu_share,
            seconds,
            turns_s,
        )
            .serialize(serializer)
    }
}

/// A pair that does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoidPair {
    /// Its number.
    pub number: u64,
    /// `baseline` or `candidate`.
    pub arm: pairbench::Arm,
    /// What it did.
    pub why: String,
}

/// A counter that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Its name in the metrics.
    pub name: String,
    /// Summed over the run.
    pub baseline: u64,
    /// Summed over the run.
    pub candidate: u64,
}

/// The confirmation: fresh pairs, one look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Fixed before the first of them.
    pub planned: usize,
    /// The pairs.
    pub pairs: Vec<PairRow>,
    /// The pairs that do not count.
    #[serde(default)]
    pub voids: Vec<VoidPair>,
    /// The one-sided level.
    pub level: f64,
    /// Attempts on this target that were known when the level was chosen, itself included.
    #[serde(default)]
    pub attempts: usize,
    /// Whether each pair had another layout of both sides; see [`crate::compare::layout`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_layouts: bool,
    /// Exact one-sided p of the signed-rank test.
    pub p: Option<f64>,
    /// Its estimate is the claim.
    pub estimate: Option<Estimate>,
    /// Whether the gain is confirmed; none while pairs are missing.
    pub accepted: Option<bool>,
    /// Why not, if the numbers are not the reason.
    #[serde(default)]
    pub refusal: Option<String>,
}

impl Confirmation {
    /// The numbers of its pairs.
    pub fn d(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.log_ratio).collect()
    }
}

/// Where an attempt's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Building, where it was not cached.
    pub build: f64,
    /// The 5-step test.
    pub smoke: f64,
    /// The instrument's self-test.
    pub selftest: f64,
    /// Planning.
    pub plan: f64,
    /// Pairs of the comparison: both trainers' starts, turns and ends.
    pub pairs: f64,
    /// Parity beside the pairs: evaluation, updates, sampling.
    pub parity: f64,
    /// Guards.
    pub guards: f64,
    /// Traced runs.
    pub attribution: f64,
    /// Pairs of the confirmation.
    pub confirmation: f64,
    /// Plain runs.
    #[serde(default)]
    pub plain: f64,
    /// The loop itself, without trainers and builds.
    pub own: f64,
}

impl Seconds {
    /// Seconds that trainers took in a comparison.
    pub fn of_comparison(&self) -> f64 {
        self.plan + self.pairs + self.parity + self.guards
    }
}

impl Attempt {
    /// The numbers of the pairs that count.
    pub fn d(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.log_ratio).collect()
    }

    /// ln(baseline / candidate) of the peak memory of each pair where both are known; lost pairs count too.
    pub fn memory_d(&self) -> Vec<f64> {
        let of = |pair: &PairRow| match pair.peak_memory_bytes {
            _ if pair.is_lost() => Some(LOST_D),
            [Some(baseline), Some(candidate)] => Some((baseline as f64 / candidate as f64).ln()),
            _ => None,
        };
        self.pairs.iter().filter_map(of).collect()
    }

    /// Ends the attempt.
    pub fn decide(&mut self, verdict: Verdict, reason: impl Into<String>) {
        self.verdict = Some(verdict);
        self.reason = bounded(&reason.into());
    }

    /// Not slower than by 0.5 %, the same numbers up to rounding, and counters that only fell.
    pub fn is_leaner(&self) -> bool {
        let low = self.estimate.and_then(|estimate| estimate.ci_low_pct);
        low.is_some_and(|low| low > -LEANER_MARGIN_PCT) && self.counters_only_fell()
    }

    /// Whether exact counters differ, each of them lower for the candidate.
    pub fn counters_only_fell(&self) -> bool {
        let fell = |row: &CounterRow| row.candidate < row.baseline;
        !self.is_identical && self.tier != Tier::T2 && !self.counters.is_empty() && self.counters.iter().all(fell)
    }

    /// Time of a baseline's step, in seconds, over all of a run.
    pub fn baseline_step_s(&self) -> Option<f64> {
        let steps = self.plan?.blocks.steps as f64;
        // The turns of both arms together, times the baseline's part of them.
        let runs: Vec<f64> =
            self.measured().map(|pair| pair.turns_s / (1.0 + (-pair.log_ratio).exp()) / steps).collect();
        (!runs.is_empty()).then(|| pairbench::stats::robust::median(&runs))
    }

    /// What a gain of its estimate's size needs because of layouts.
    pub fn layout_needs(&self) -> Needs {
        let gain = self.estimate.map(|estimate| estimate.speedup_pct);
        match (self.floors, gain) {
            (Some(floors), Some(gain)) => floors.needs(gain),
            _ => Needs::Nothing,
        }
    }

    /// Whether it may be committed with a percentage: fresh pairs and plain runs agree.
    pub fn is_confirmed(&self) -> bool {
        self.verdict == Some(Verdict::Faster)
            && self.confirmation.as_ref().is_some_and(|confirmation| confirmation.accepted == Some(true))
            && self.plain.as_ref().is_some_and(|plain| plain.accepted == Some(true))
    }
}

/// The folder of open attempts.
#[derive(Clone, Debug)]
pub struct AttemptFolder(PathBuf);

impl AttemptFolder {
    /// The folder of open attempts in the loop's state folder.
    pub fn new(state: &Path) -> AttemptFolder {
        AttemptFolder(state.join("attempts"))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.json"))
    }

    /// Bulk data of an attempt: one JSON object a line.
    pub fn bulk_path(&self, key: &str) -> PathBuf {
        self.0.join(format!("{key}.bulk.jsonl"))
    }

    /// The log of what its pairs showed of the training.
    pub fn pair_log(&self, key: &str) -> PairLog {
        PairLog::new(self.0.join(format!("{key}.parity.jsonl")))
    }

    /// The same for a guard's pairs.
    pub fn guard_pair_log(&self, key: &str, guard: &str) -> PairLog {
        let guard = blake3::hash(guard.as_bytes()).to_hex();
        PairLog::new(self.0.join(format!("{key}.{}.parity.jsonl", &guard[..8])))
    }

    /// Removes the logs of its pairs and its guards' pairs, which are no longer needed.
    pub fn remove_evidence(&self, key: &str, guards: impl Iterator<Item = impl AsRef<str>>) -> Result<(), LoopError> {
        self.pair_log(key).remove()?;
        guards.into_iter().try_for_each(|guard| self.guard_pair_log(key, guard.as_ref()).remove())
    }

    /// The attempt with this key, if there is one.
    pub fn load(&self, key: &str) -> Result<Option<Attempt>, LoopError> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoopError::io("read", &path, &error)),
        };
        let hint =
            "it is the state of a comparison; move it away to begin that one again, which counts as another attempt";
        let attempt: Attempt = serde_json::from_slice(&bytes)
            .map_err(|error| LoopError::failed(format!("`{}` is broken: {error}", path.display())).hint(hint))?;
        attempt.check().map_err(|error| error.hint(hint))?;
        Ok(Some(attempt))
    }

    /// The attempt that was written last.
    pub fn newest(&self) -> Result<Option<Attempt>, LoopError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoopError::io("read", &self.0, &error)),
        };
        let newest = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .max_by_key(|entry| entry.metadata().and_then(|data| data.modified()).ok());
        match newest.and_then(|entry| entry.path().file_stem().map(|key| key.to_string_lossy().into_owned())) {
            Some(key) => self.load(&key),
            None => Ok(None),
        }
    }

    /// Writes the attempt, whole or not at all.
    pub fn save(&self, attempt: &Attempt) -> Result<(), LoopError> {
        let json = serde_json::to_vec(attempt)
            .map_err(|error| LoopError::failed(format!("an attempt cannot be written: {error}")))?;
        pairbench::files::write(&self.path(&attempt.key), &json)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row with the digits that real ones have.
    pub(crate) fn row() -> PairRow {
        PairRow {
            number: 319,
            seed: 1 << 31,
            baseline_first: true,
            log_ratio: -0.012_345,
            run_log_ratio: 0.5,
            ready_ms: [45.1, 46.0],
            finish_ms: [5.1, 0.2],
            peak_memory_bytes: [Some(26_738_688), None],
            foreign_cpu_share: [0.012, 0.0],
            seconds: 1.65,
            turns_s: 1.402,
        }
    }

    #[test]
    fn rows_are_values_and_were_once_named() {
        let json = serde_json::to_string(&row()).unwrap();
        // 160 pairs, the most after a plan of 80, and as many to confirm them leave room for the rest of a record.
        assert!(320 * json.len() < crate::ledger::MAX_RECORD_BYTES - 15_000, "{json}");
        assert!(json.starts_with("[319,"), "{json}");
        assert_eq!(serde_json::from_str::<PairRow>(&json).unwrap(), row());
        let named = r#"{"number":319,"seed":2147483648,"baseline_first":true,"d":-0.012345,"whole":0.5,
            "ready_ms":[45.1,46],"finish_ms":[5.1,0.2],"peak_memory_bytes":[26738688,null],
            "foreign_cpu_share":[0.012,0],"seconds":1.65,"turns_s":1.402}"#;
        assert_eq!(serde_json::from_str::<PairRow>(named).unwrap(), row());
    }
}

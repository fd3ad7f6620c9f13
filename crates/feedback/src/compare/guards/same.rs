//! Guards check what they run: both arms must train the same on a guard's workload, and give the same answers to its
//! command. A trainer that is faster because it does less work there passes no guard.

use super::GuardRequest;
use pairbench::{Arm, pair::PairRun};

use crate::{
    LoopError,
    compare::same_training,
    config::Workload,
    parity::{
        Arms, Evidence, Floor, PairEvidence, Tier,
        pair_log::{PairLog, PairObservation},
        record,
        sampling::{self, Choice, Output},
    },
};

/// Judges whether both arms train the same on a guard's workload, from the records of its pairs.
pub(super) struct GuardTraining<'a> {
    name: &'a str,
    workload: &'a Workload,
    counters: Vec<String>,
    evidence: Evidence,
    pair_log: PairLog,
}

impl<'a> GuardTraining<'a> {
    /// Begins with the evidence of `known` pairs from before an interruption.
    pub(super) fn new(
        name: &'a str,
        workload: &'a Workload,
        request: &GuardRequest<'_>,
        known: usize,
    ) -> Result<GuardTraining<'a>, LoopError> {
        let pair_log = (request.evidence)(name);
        if known == 0 {
            pair_log.remove()?;
        }
        let pairs = pair_log.read_all()?.into_iter().map(|observation| observation.pair).collect();
        let evidence = Evidence {
            tier: request.tier,
            shows: workload.metrics.shows(),
            steps: workload.steps,
            alone: Vec::new(),
            pairs,
            floor: Floor::default(),
            updates: Vec::new(),
        };
        Ok(GuardTraining { name, workload, counters: same_training::counters(workload), evidence, pair_log })
    }

    pub(super) fn judge(&mut self, number: u64, run: &PairRun) -> Result<(), LoopError> {
        let read = |arm: Arm| {
            let folder = &run.arms[arm.index()].folder;
            let read = record::read(&self.workload.metrics, folder, &self.counters, self.workload.steps);
            read.map_err(|error| error.of_trainer(arm))
        };
        let records = Arms { baseline: read(Arm::Baseline)?, candidate: read(Arm::Candidate)? };
        let pair = PairEvidence { seed: run.seed, records, held_out: None };
        let observation = PairObservation { number, pair, updates: Vec::new() };
        self.pair_log.append(&observation, "")?;
        self.evidence.pairs.push(observation.pair);
        // A T2 is judged over all seeds at the end.
        if self.evidence.tier == Tier::T2 { Ok(()) } else { self.judge_all() }
    }

    pub(super) fn judge_all(&self) -> Result<(), LoopError> {
        match same_training::of_records(&self.evidence).failures().next() {
            None => Ok(()),
            Some(check) => Err(LoopError::refused(format!("guard {}: parity: {check}", self.name))),
        }
    }
}

/// The output of a guard's command in both arms: it must be the same, or as near as the tier allows for samples.
pub(super) struct Answers<'a> {
    name: &'a str,
    tier: Tier,
    last: [Option<Output>; 2],
}

impl<'a> Answers<'a> {
    pub(super) fn new(name: &'a str, tier: Tier) -> Answers<'a> {
        Answers { name, tier, last: [None, None] }
    }

    pub(super) fn compare(&mut self, arm: Arm, stdout: &str) -> Result<(), LoopError> {
        self.last[arm.index()] = Some(Output::parse(stdout.as_bytes())?);
        let [Some(baseline), Some(candidate)] = &self.last else { return Ok(()) };
        let pair = [Arms { baseline: baseline.clone(), candidate: candidate.clone() }];
        match sampling::compare(self.tier, Choice::Greedy, &pair).into_iter().find(|check| !check.passed) {
            None => Ok(()),
            Some(check) => Err(LoopError::refused(format!("guard {}: another answer: {check}", self.name))
                .hint("a guard's command prints its answer on stdout, and what differs from run to run on stderr")),
        }
    }
}

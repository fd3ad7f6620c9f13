//! Whether both arms of a comparison train the same, asked of its pairs as they come.
//!
//! Every pair's losses, norms and tokens are compared. Of the first pair and of one drawn later the
//! updates of single steps are too, and the trained weights are evaluated, by the baseline's program.
//! Which step is checked beside the first ones is drawn when the pair runs. Sampling is asked for at
//! the end, from weights that the baseline trained.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{
    LoopError, Watch,
    arm::{self, Arm, ArmFolder, Kit},
    attempt::{Attempt, CounterRow},
    coins::{Coins, Purpose},
    config::{self, Workload},
    contest::Contest,
    once,
    pair::{ArmRun, Blocks, PairRun, Script},
    parity::{
        Arms, Check, Evidence, Floor, PairEvidence, Parity, UpdateEvidence,
        sampling::{self, Choice, Output},
    },
    records::{DEFAULT_COUNTERS, StepRecord, Trajectory},
    selftest,
    session::Session,
    state::Tier,
    weights::{Exempt, UpdateCheck},
};

/// Steps of the warm-up whose updates are checked.
const CHECKED_STEPS: [u64; 3] = [1, 2, 10];
/// The second pair whose updates are checked is one of the first so many after the first.
const SECOND_WITHIN: u64 = 6;
/// Rules that only a trainer that writes its weights on request can pass.
const OF_WEIGHTS: [&str; 2] = ["updates", "zero_gradient"];
/// The training seed of runs outside pairs.
const SEED: &str = "42";

/// What of a pair's updates is checked; nothing of most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    updates: Option<CheckedUpdates>,
    /// Whether the trained weights are evaluated.
    is_evaluated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct CheckedUpdates {
    before_block: u64,
}

impl Checked {
    /// The pair's turns.
    pub fn script(&self, blocks: &Blocks) -> Script {
        match self.updates {
            None => blocks.script(),
            Some(CheckedUpdates { before_block }) => blocks.checked_script(&CHECKED_STEPS, before_block),
        }
    }
}

/// Whether sampling was looked at, which is left for the end.
fn has_sampling(parity: &Parity) -> bool {
    parity.checks.iter().any(|check| check.name.starts_with("sampling"))
}

/// Parity of what is to be committed without a claim: what the pairs showed, and sampling, which a comparison without a gain
/// leaves out. The refusal, if it is not the same training.
pub fn without_a_gain(
    session: &Session,
    contest: &Contest,
    attempt: &mut Attempt,
    watch: &dyn Watch,
) -> Result<Option<String>, LoopError> {
    let Some(parity) = attempt.parity.as_ref().filter(|parity| parity.passed) else {
        return Ok(Some("parity was not shown".into()));
    };
    if has_sampling(parity) {
        return Ok(None);
    }
    SameTraining::new(session, contest, attempt, watch)?.judge_all(attempt, watch)
}

/// Collects what pairs show.
pub struct SameTraining<'a> {
    session: &'a Session,
    contest: &'a Contest,
    exempt: Vec<Exempt>,
    counters: Vec<String>,
    evidence: Evidence,
    /// How many pairs came before the second one that is checked.
    second: u64,
}

impl<'a> SameTraining<'a> {
    /// Nothing was shown yet.
    pub fn new(
        session: &'a Session,
        contest: &'a Contest,
        attempt: &Attempt,
        watch: &dyn Watch,
    ) -> Result<SameTraining<'a>, LoopError> {
        let workload = &session.config.workload;
        for (what, is_missing) in [
            ("weights", workload.weights.is_none()),
            ("eval", workload.eval.is_none() || workload.checkpoint.is_none()),
        ] {
            if is_missing {
                watch.note(&format!(
                    "`workload.{what}` of `loop.toml` is missing: parity rests on losses and norms alone"
                ));
            }
        }
        let exempt = workload.exempt.iter().map(|text| Exempt::parse(text)).collect::<Result<_, _>>()?;
        let floor = selftest::cached(session)?.map(|proof| proof.floor).unwrap_or_default();
        Ok(SameTraining {
            session,
            contest,
            exempt,
            counters: counters(workload),
            evidence: Evidence {
                tier: attempt.tier,
                steps: workload.steps,
                pairs: Vec::new(),
                floor,
                updates: Vec::new(),
            },
            second: 1 + attempt.coins.below(SECOND_WITHIN, Purpose::CheckedPair, attempt.next_number(), 0),
        })
    }

    /// What of the pair with this number is checked.
    pub fn checked(&self, number: u64, blocks: &Blocks, coins: Coins) -> Checked {
        let seen = self.evidence.pairs.len() as u64;
        let is_checked = seen == 0 || seen == self.second;
        let has_weights = self.session.config.workload.weights.is_some() && blocks.blocks > 1;
        let before_block = coins.below(blocks.blocks, Purpose::CheckedStep, number, 0);
        Checked {
            updates: (is_checked && has_weights).then_some(CheckedUpdates { before_block }),
            is_evaluated: is_checked || self.evidence.tier == Tier::T2,
        }
    }

    /// Takes a pair in; the refusal, if it shows that the training is not the same.
    pub fn judge(
        &mut self,
        run: &PairRun,
        checked: &Checked,
        attempt: &mut Attempt,
        watch: &dyn Watch,
    ) -> Result<Option<String>, LoopError> {
        let workload = &self.session.config.workload;
        let read = |arm: &ArmRun| Trajectory::read(&arm.folder.path().join(&workload.metrics), &self.counters);
        let records = Arms { baseline: read(&run.arms[0])?, candidate: read(&run.arms[1])? };
        if attempt.pairs.is_empty() {
            note_counters(attempt, &records);
        }
        let held_out = if checked.is_evaluated { self.held_out(run, watch)? } else { None };
        if let (Some(_), Some(plan)) = (checked.updates, attempt.plan) {
            let updates = self.updates(run, checked, &plan.blocks, attempt.coins)?;
            self.evidence.updates.extend(updates);
        }
        if checked.is_evaluated {
            self.keep_checkpoint(&run.arms[0])?;
        }
        self.evidence.pairs.push(PairEvidence { seed: run.seed, records, held_out });
        let parity = self.parity();
        let refusal = first_failure(&parity);
        attempt.parity = Some(parity);
        // Another precision is judged over all seeds at the end.
        Ok(if self.evidence.tier == Tier::T2 { None } else { refusal })
    }

    /// What only the end shows: equivalence over seeds, and sampling.
    pub fn judge_all(&mut self, attempt: &mut Attempt, watch: &dyn Watch) -> Result<Option<String>, LoopError> {
        let mut parity = if self.evidence.pairs.is_empty() {
            attempt.parity.clone().unwrap_or_else(|| self.parity())
        } else {
            self.parity()
        };
        if parity.passed && !has_sampling(&parity) {
            parity = parity.with(self.sampling(watch)?);
        }
        let refusal = first_failure(&parity);
        attempt.parity = Some(parity);
        Ok(refusal)
    }

    /// Judges what there is; rules that ask for weights are left out where the trainer writes none.
    fn parity(&self) -> Parity {
        let judged = Parity::judge(&self.evidence);
        let workload = &self.session.config.workload;
        let is_asked = |check: &Check| {
            let of_weights = OF_WEIGHTS.iter().any(|name| check.name.starts_with(name));
            let of_held_out = check.name.starts_with("held_out");
            !(of_weights && workload.weights.is_none()
                || of_held_out && (workload.eval.is_none() || workload.checkpoint.is_none()))
        };
        let checks: Vec<Check> = judged.checks.into_iter().filter(is_asked).collect();
        Parity { passed: checks.iter().all(|check| check.passed), checks, tier: judged.tier }
    }

    fn updates(
        &self,
        run: &PairRun,
        checked: &Checked,
        blocks: &Blocks,
        coins: Coins,
    ) -> Result<Vec<UpdateEvidence>, LoopError> {
        let Some(CheckedUpdates { before_block }) = checked.updates else { return Ok(Vec::new()) };
        let seed = coins.bits(Purpose::Projection, run.seed, 0);
        let in_warm_up = CHECKED_STEPS.into_iter().filter(|step| *step <= blocks.warmup_steps);
        let alone = in_warm_up.chain([blocks.step_before(before_block)]).map(|step| (step - 1, step));
        alone
            .chain([(0, blocks.steps - 1)])
            .map(|(from, to)| {
                let of = |arm: &ArmRun| {
                    UpdateCheck::between(&self.weights(arm, from), &self.weights(arm, to), seed, &self.exempt)
                };
                Ok(UpdateEvidence {
                    from,
                    to,
                    moved: Arms { baseline: of(&run.arms[0])?, candidate: of(&run.arms[1])? },
                })
            })
            .collect()
    }

    fn weights(&self, arm: &ArmRun, step: u64) -> PathBuf {
        let name = self.session.config.workload.weights.clone().unwrap_or_default();
        arm.folder.path().join(name.replace("{step}", &step.to_string()))
    }

    /// The loss of both arms' trained weights on other data, by the baseline's program.
    fn held_out(&self, run: &PairRun, watch: &dyn Watch) -> Result<Option<Arms<f64>>, LoopError> {
        let workload = &self.session.config.workload;
        let (Some(command), Some(_)) = (&workload.eval, &workload.checkpoint) else { return Ok(None) };
        let of = |arm: &ArmRun| -> Result<f64, LoopError> {
            let checkpoint = checkpoint_of(workload, arm).display().to_string();
            let ended = self.once(Arm::Baseline, command, &[("checkpoint", &checkpoint)], watch)?;
            loss(command, &ended.stdout)
        };
        Ok(Some(Arms { baseline: of(&run.arms[0])?, candidate: of(&run.arms[1])? }))
    }

    fn keep_checkpoint(&self, arm: &ArmRun) -> Result<(), LoopError> {
        let workload = &self.session.config.workload;
        if workload.checkpoint.is_none() {
            return Ok(());
        }
        let kept = kept_checkpoint_path(self.session);
        arm::remove(&kept)?;
        arm::copy(&checkpoint_of(workload, arm), &kept)
    }

    /// Continuations of both arms from the same weights, and a training with sampling on beside one with it off.
    fn sampling(&self, watch: &dyn Watch) -> Result<Vec<Check>, LoopError> {
        let Some(configured) = &self.session.config.sampling else { return Ok(Vec::new()) };
        let Some(kept) = kept_checkpoint(self.session) else {
            return Err(LoopError::Usage("`[sampling]` needs `workload.checkpoint` in `loop.toml`".into()));
        };
        let checkpoint = kept.display().to_string();
        let (mut checks, mut all) = (Vec::new(), Vec::new());
        for (command, choice) in [(&configured.greedy, Choice::Greedy), (&configured.seeded, Choice::Seeded)] {
            let mut samples = Vec::new();
            for prompt in &configured.prompts {
                let values = [("checkpoint", checkpoint.as_str()), ("prompt", prompt.as_str())];
                let of = |arm| Output::parse(self.once(arm, command, &values, watch)?.stdout.as_bytes());
                samples.push(Arms { baseline: of(Arm::Baseline)?, candidate: of(Arm::Candidate)? });
            }
            checks.extend(sampling::compare(self.evidence.tier, choice, &samples));
            all.extend(samples);
        }
        checks.push(sampling::alive(&all));
        if let Some(training) = &configured.training {
            let sampled = self.trained(training, configured.steps, watch)?;
            let silent = self.trained(&self.session.config.workload.command, configured.steps, watch)?;
            checks.push(sampling::same_losses(&sampled, &silent));
        }
        Ok(checks)
    }

    /// A short training of the candidate.
    fn trained(&self, command: &str, steps: u64, watch: &dyn Watch) -> Result<Trajectory, LoopError> {
        let kit = self.kit(Arm::Candidate);
        let folder = ArmFolder::create(&self.session.work()?.join("t"), &kit)?;
        let words = config::fill(command, &[("steps", &steps.to_string()), ("seed", SEED)])?;
        let limit = self.session.config.workload.turn_timeout;
        once::run(&folder, &kit, &words, limit, watch)?.success("candidate", command)?;
        Trajectory::read(&folder.path().join(&self.session.config.workload.metrics), &self.counters)
    }

    fn once(
        &self,
        arm: Arm,
        command: &str,
        values: &[(&str, &str)],
        watch: &dyn Watch,
    ) -> Result<once::Ended, LoopError> {
        let kit = self.kit(arm);
        let folder = ArmFolder::create(&self.session.work()?.join("e"), &kit)?;
        let words = config::fill(command, values)?;
        let limit = self.session.config.workload.turn_timeout;
        once::run(&folder, &kit, &words, limit, watch)?.success(arm.name(), command)
    }

    fn kit(&self, arm: Arm) -> Kit {
        self.contest.kits[arm.index()].clone()
    }
}

/// How far the baseline is from itself, over pairs of its own runs.
pub fn floor(session: &Session, runs: &[PairRun]) -> Result<Floor, LoopError> {
    let workload = &session.config.workload;
    let counters = counters(workload);
    let mut floor = Floor::default();
    for run in runs {
        let [one, other] =
            run.arms.each_ref().map(|arm| Trajectory::read(&arm.folder.path().join(&workload.metrics), &counters));
        floor.include_runs(&one?, &other?);
    }
    Ok(floor)
}

fn counters(workload: &Workload) -> Vec<String> {
    if workload.counters.is_empty() { DEFAULT_COUNTERS.map(str::to_owned).to_vec() } else { workload.counters.clone() }
}

fn first_failure(parity: &Parity) -> Option<String> {
    parity.failures().next().map(|check| format!("parity: {check}"))
}

/// Exact counts of a steady step that differ, and the baseline's operations.
fn note_counters(attempt: &mut Attempt, records: &Arms<Trajectory>) {
    // The last step but one: the first sets up, and the last may save.
    let steady = |trajectory: &Trajectory| trajectory.rows.iter().rev().nth(1).cloned().unwrap_or_default();
    let (baseline, candidate): (StepRecord, StepRecord) = (steady(&records.baseline), steady(&records.candidate));
    attempt.flops = baseline.counters.get("flops").copied();
    attempt.counters = baseline
        .counters
        .iter()
        .filter_map(|(name, before)| {
            let after = candidate.counters.get(name)?;
            (before != after).then(|| CounterRow { name: name.clone(), baseline: *before, candidate: *after })
        })
        .collect();
}

fn checkpoint_of(workload: &Workload, arm: &ArmRun) -> PathBuf {
    let name = workload.checkpoint.clone().unwrap_or_default();
    arm.folder.path().join(name.replace("{step}", &workload.steps.to_string()))
}

fn kept_checkpoint_path(session: &Session) -> PathBuf {
    session.state.folder().join("checkpoint")
}

/// The weights that the baseline trained last, for sampling and guards.
pub fn kept_checkpoint(session: &Session) -> Option<PathBuf> {
    Some(kept_checkpoint_path(session)).filter(|path| path.exists())
}

fn loss(command: &str, stdout: &str) -> Result<f64, LoopError> {
    #[derive(Deserialize)]
    struct Evaluated {
        loss: f64,
    }
    let json = stdout.find('{').map_or("", |start| &stdout[start..]);
    match serde_json::from_str::<Evaluated>(json) {
        Ok(Evaluated { loss }) => Ok(loss),
        Err(error) => Err(LoopError::Failed(format!("`{command}` printed no object with `loss`: {error}"))
            .hint("`workload.eval` of `loop.toml` names it")),
    }
}

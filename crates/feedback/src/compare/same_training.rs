//! Whether both arms of a comparison train the same, judged pair by pair.
//!
//! Every pair's losses, norms and tokens are compared, in comparison and confirmation. For the first pair and some
//! drawn ones, the updates of single steps and of the whole run are compared too, and the baseline's program evaluates
//! the trained weights. All pairs have the same turns, and the closer look is drawn after a pair has run, so that a
//! trainer cannot tell. Sampling is compared at the end, from weights that the baseline trained.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    files, folder_content,
    pair::{
        ArmRun, PairRun,
        schedule::{Blocks, Script},
        timed_command,
    },
    process::{
        command,
        sandbox::{Sandbox, SandboxSpec},
    },
};
use serde::Deserialize;

use crate::{
    LoopError, Progress,
    attempt::{Attempt, CounterRow},
    compare::{built_arms::BuiltArms, selftest},
    config::{Workload, metrics::Shows},
    parity::{
        self, Arms, Check, Evidence, Floor, PairEvidence, Parity, Tier, UpdateEvidence,
        pair_log::{PairLog, PairObservation},
        record,
        sampling::{self, Choice, Output},
        trajectory::{DEFAULT_COUNTERS, Trajectory},
        weights::{Exempt, UpdateCheck},
    },
    store::session::Session,
};

/// After the first pair, one pair in this many is looked at more closely.
const LOOKED_AT_ONE_IN: u64 = 6;
/// Rules that only a trainer that writes its weights on request can pass.
const OF_WEIGHTS: [&str; 2] = ["updates", "zero_gradient"];
/// Rules that only an evaluation can pass.
const OF_HELD_OUT: &str = "held_out";
/// The training seed of runs outside pairs.
const SEED: &str = "42";

/// The turns of a pair of the primary workload.
pub fn script(workload: &Workload, blocks: &Blocks, draws: Randomization, number: u64) -> Script {
    match workload.weights {
        Some(_) => blocks.script_with_saves(drawn_block(blocks, draws, number)),
        None => blocks.script(),
    }
}

/// The block before which one more step is looked at alone.
fn drawn_block(blocks: &Blocks, draws: Randomization, number: u64) -> u64 {
    draws.below(blocks.blocks, Purpose::CheckedStep, number, 0)
}

/// Begins the names of the rules about sampling.
const SAMPLING: &str = "sampling";

/// Whether sampling was compared already, which happens at the end.
fn has_sampling(parity: &Parity) -> bool {
    parity.checks.iter().any(|check| check.name.starts_with(SAMPLING))
}

/// Parity of a change that is to be committed without a claim: that of its pairs, and of sampling, which a comparison
/// without a gain leaves out. Returns a refusal if the training is not the same.
pub fn without_a_gain(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<Option<String>, LoopError> {
    let Some(parity) = attempt.parity.as_ref().filter(|parity| parity.passed) else {
        return Ok(Some("parity was not shown".into()));
    };
    if has_sampling(parity) {
        return Ok(None);
    }
    SameTraining::new(session, built_arms, attempt, progress)?.judge_all(attempt, progress)
}

/// What a record does not show.
fn unseen(shows: Shows) -> Option<String> {
    let parts = [(shows.grad_norms, "gradient norms"), (shows.data_hashes, "which tokens were consumed")];
    let unseen: Vec<&str> = parts.iter().filter(|(is_shown, _)| !is_shown).map(|(_, what)| *what).collect();
    (!unseen.is_empty()).then(|| unseen.join(" or "))
}

/// Judges losses, norms and tokens, and the loss on other data where it was measured: for runs that did not save
/// weights.
pub fn of_records(evidence: &Evidence) -> Parity {
    let judged = Parity::judge(evidence);
    let is_evaluated = evidence.pairs.iter().any(|pair| pair.held_out.is_some());
    let asks_more = |check: &Check| {
        let is_of_held_out = check.name.starts_with(OF_HELD_OUT);
        OF_WEIGHTS.iter().any(|name| check.name.starts_with(name)) || is_of_held_out && !is_evaluated
    };
    let checks: Vec<Check> = judged.checks.into_iter().filter(|check| !asks_more(check)).collect();
    Parity { passed: checks.iter().all(|check| check.passed), checks, tier: judged.tier }
}

/// Judges the pairs' evidence again; returns a refusal if the training is not the same.
pub fn again(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    progress: &dyn Progress,
) -> Result<Option<String>, LoopError> {
    let same_training = SameTraining::new(session, built_arms, attempt, progress)?;
    // An attempt that only the ledger knows has no evidence left: its recorded judgement stands.
    let is_kept = !same_training.evidence.pairs.is_empty();
    Ok(is_kept.then(|| first_failure(&same_training.parity())).flatten())
}

/// Collects the evidence of pairs and judges it.
pub struct SameTraining<'a> {
    session: &'a Session,
    built_arms: &'a BuiltArms,
    exempt: Vec<Exempt>,
    counters: Vec<String>,
    evidence: Evidence,
    pair_log: PairLog,
}

impl<'a> SameTraining<'a> {
    /// Begins with the evidence of the attempt's earlier pairs.
    pub fn new(
        session: &'a Session,
        built_arms: &'a BuiltArms,
        attempt: &Attempt,
        progress: &dyn Progress,
    ) -> Result<SameTraining<'a>, LoopError> {
        let workload = &session.config.workload;
        let has_weights = workload.weights.is_some();
        let has_eval = workload.eval.is_some() && workload.checkpoint.is_some();
        let missing = match (has_weights, has_eval) {
            (true, true) => None,
            (true, false) => Some(("`workload.eval` of `loop.toml` is", "losses, norms and updates of the weights")),
            (false, true) => {
                Some(("`workload.weights` of `loop.toml` is", "losses, norms and the loss on held-out data"))
            }
            (false, false) => Some(("`workload.weights` and `eval` of `loop.toml` are", "losses and norms alone")),
        };
        if let Some((what, rest)) = missing {
            progress.note(&format!("{what} missing: parity rests on {rest}"));
        }
        if let Some(unseen) = unseen(workload.metrics.shows()) {
            progress.note(&format!("`workload.metrics` does not show {unseen}: no rule looks at that"));
        }
        let floor = selftest::cached(session)?.map(|proof| proof.floor).unwrap_or_default();
        let pair_log = session.attempts().pair_log(&attempt.key);
        let confirmation = attempt.confirmation.iter().flat_map(|confirmation| &confirmation.pairs);
        let measured = attempt.pairs.iter().chain(confirmation).filter(|pair| !pair.is_lost());
        let numbers: Vec<u64> = measured.map(|pair| pair.number).collect();
        let (pairs, updates): (Vec<_>, Vec<_>) =
            pair_log.read(&numbers, &attempt.evidence)?.into_iter().map(|seen| (seen.pair, seen.updates)).unzip();
        Ok(SameTraining {
            session,
            built_arms,
            exempt: exempt(workload)?,
            counters: counters(workload),
            evidence: Evidence {
                tier: attempt.tier,
                shows: workload.metrics.shows(),
                steps: workload.steps,
                alone: attempt.plan.map_or_else(Vec::new, |plan| plan.blocks.steps_alone().collect()),
                pairs,
                floor,
                updates: updates.into_iter().flatten().collect(),
            },
            pair_log,
        })
    }

    /// Adds a pair that has run; returns a refusal if the training is not the same.
    pub fn judge(
        &mut self,
        number: u64,
        run: &PairRun,
        attempt: &mut Attempt,
        progress: &dyn Progress,
    ) -> Result<Option<String>, LoopError> {
        let workload = &self.session.config.workload;
        let records = self.records(run)?;
        if attempt.measured().next().is_none() {
            note_counters(attempt, &records);
        }
        let is_first = self.evidence.pairs.is_empty() || workload.weights.is_some() && self.evidence.updates.is_empty();
        let is_looked_at = is_first || attempt.draws.below(LOOKED_AT_ONE_IN, Purpose::CheckedPair, number, 0) == 0;
        let updates = match attempt.plan.filter(|_| is_looked_at) {
            Some(plan) => {
                let pair = TimedPair { run, blocks: &plan.blocks, draws: attempt.draws, number };
                pair.updates(workload, &self.exempt)?
            }
            None => Vec::new(),
        };
        let is_evaluated = is_looked_at || self.evidence.tier == Tier::T2;
        let held_out = if is_evaluated { self.held_out(run, progress)? } else { None };
        if is_evaluated {
            self.keep_checkpoint(&run.arms[0])?;
        }
        let observation = PairObservation { number, pair: PairEvidence { seed: run.seed, records, held_out }, updates };
        attempt.evidence = self.pair_log.append(&observation, &attempt.evidence)?;
        self.evidence.updates.extend(observation.updates);
        self.evidence.pairs.push(observation.pair);
        let is_kept = |name: &str| name.starts_with(SAMPLING) || name.starts_with(parity::ANCHOR);
        let kept = attempt
            .parity
            .take()
            .map_or_else(Vec::new, |parity| parity.checks.into_iter().filter(|check| is_kept(&check.name)).collect());
        let parity = self.parity().with(kept);
        let refusal = first_failure(&parity);
        attempt.parity = Some(parity);
        // Another precision is judged over all seeds at the end.
        Ok(if self.evidence.tier == Tier::T2 { None } else { refusal })
    }

    /// The checks at the end: equivalence over seeds, and sampling.
    pub fn judge_all(&mut self, attempt: &mut Attempt, progress: &dyn Progress) -> Result<Option<String>, LoopError> {
        let mut parity = if self.evidence.pairs.is_empty() {
            attempt.parity.clone().unwrap_or_else(|| self.parity())
        } else {
            self.parity()
        };
        if parity.passed && !has_sampling(&parity) {
            parity = parity.with(self.sampling(progress)?);
        }
        let refusal = first_failure(&parity);
        attempt.parity = Some(parity);
        Ok(refusal)
    }

    /// Judges the evidence so far; rules about weights are left out where the trainer saves none.
    fn parity(&self) -> Parity {
        let judged = Parity::judge(&self.evidence);
        let workload = &self.session.config.workload;
        let is_asked = |check: &Check| {
            let of_weights = OF_WEIGHTS.iter().any(|name| check.name.starts_with(name));
            let of_held_out = check.name.starts_with(OF_HELD_OUT);
            !(of_weights && workload.weights.is_none()
                || of_held_out && (workload.eval.is_none() || workload.checkpoint.is_none()))
        };
        let checks: Vec<Check> = judged.checks.into_iter().filter(is_asked).collect();
        Parity { passed: checks.iter().all(|check| check.passed), checks, tier: judged.tier }
    }

    /// Evidence of what was learned, from a pair of other trees than the attempt's.
    pub fn learned(
        session: &'a Session,
        built_arms: &'a BuiltArms,
        run: &PairRun,
        progress: &dyn Progress,
    ) -> Result<PairEvidence, LoopError> {
        let workload = &session.config.workload;
        let evidence = Evidence {
            tier: Tier::T2,
            shows: workload.metrics.shows(),
            steps: workload.steps,
            alone: Vec::new(),
            pairs: Vec::new(),
            floor: Floor::default(),
            updates: Vec::new(),
        };
        let pair_log = session.attempts().pair_log("");
        let counters = counters(workload);
        let judged = SameTraining { session, built_arms, exempt: Vec::new(), counters, evidence, pair_log };
        Ok(PairEvidence { seed: run.seed, records: judged.records(run)?, held_out: judged.held_out(run, progress)? })
    }

    /// Both arms' records of their steps.
    fn records(&self, run: &PairRun) -> Result<Arms<Trajectory>, LoopError> {
        let metrics = &self.session.config.workload.metrics;
        let read = |arm: Arm| {
            let folder = &run.arms[arm.index()].folder;
            record::read(metrics, folder, &self.counters, self.evidence.steps).map_err(|error| error.of_trainer(arm))
        };
        Ok(Arms { baseline: read(Arm::Baseline)?, candidate: read(Arm::Candidate)? })
    }

    fn held_out(&self, run: &PairRun, progress: &dyn Progress) -> Result<Option<Arms<f64>>, LoopError> {
        let steps = self.session.config.workload.steps;
        held_out_of(self.session, self.built_arms, run.arms.each_ref().map(|arm| &arm.folder), steps, progress)
    }

    fn keep_checkpoint(&self, arm: &ArmRun) -> Result<(), LoopError> {
        let workload = &self.session.config.workload;
        if workload.checkpoint.is_none() {
            return Ok(());
        }
        let kept = kept_checkpoint_path(self.session);
        files::remove(&kept)?;
        folder_content::copy(&checkpoint_of(workload, &arm.folder, workload.steps)?, &kept)
    }

    /// Compares continuations of both arms from the same weights, and a training with sampling on with one with it off.
    fn sampling(&self, progress: &dyn Progress) -> Result<Vec<Check>, LoopError> {
        let Some(configured) = &self.session.config.sampling else { return Ok(Vec::new()) };
        let Some(kept) = kept_checkpoint(self.session) else {
            return Err(LoopError::usage("`[sampling]` needs `workload.checkpoint` in `loop.toml`"));
        };
        let (mut checks, mut all) = (Vec::new(), Vec::new());
        for (command, choice) in [(&configured.greedy, Choice::Greedy), (&configured.seeded, Choice::Seeded)] {
            let mut samples = Vec::new();
            for prompt in &configured.prompts {
                let values = [("prompt", prompt.as_str())];
                let of = |arm| Output::parse(self.once(arm, command, &kept, &values, progress)?.stdout.as_bytes());
                samples.push(Arms { baseline: of(Arm::Baseline)?, candidate: of(Arm::Candidate)? });
            }
            checks.extend(sampling::compare(self.evidence.tier, choice, &samples));
            all.extend(samples);
        }
        checks.push(sampling::alive(&all));
        if let Some(training) = &configured.training {
            let sampled = self.trained(training, configured.steps, progress)?;
            let silent = self.trained(&self.session.config.workload.command, configured.steps, progress)?;
            checks.push(sampling::same_losses(&sampled, &silent));
        }
        Ok(checks)
    }

    /// A short training of the candidate.
    fn trained(&self, command: &str, steps: u64, progress: &dyn Progress) -> Result<Trajectory, LoopError> {
        let spec = self.spec(Arm::Candidate);
        let folder = Sandbox::create(&self.session.work()?.join("t"), &spec)?;
        let words = timed_command::fill(command, &[("steps", &steps.to_string()), ("seed", SEED)])?;
        let limit = self.session.config.workload.turn_timeout;
        let launch = folder.training(&words, &spec, steps)?;
        command::run(&folder, &launch, limit, progress)?.success("candidate", command)?;
        record::read(&self.session.config.workload.metrics, &folder, &self.counters, steps)
    }

    /// Runs a command on a checkpoint, in a clean folder of an arm.
    fn once(
        &self,
        arm: Arm,
        command: &str,
        checkpoint: &Path,
        values: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<command::Ended, LoopError> {
        let command = OnCheckpoint { arm, command, checkpoint, values };
        command.run(self.session, &self.spec(arm), progress)
    }

    fn spec(&self, arm: Arm) -> SandboxSpec {
        self.built_arms.specs[arm.index()].clone()
    }
}

/// Both arms' loss on other data after `steps` steps, by the baseline's program; none where the configuration has no
/// evaluation.
pub(crate) fn held_out_of(
    session: &Session,
    built_arms: &BuiltArms,
    folders: [&Sandbox; 2],
    steps: u64,
    progress: &dyn Progress,
) -> Result<Option<Arms<f64>>, LoopError> {
    let workload = &session.config.workload;
    let (Some(command), Some(_)) = (&workload.eval, &workload.checkpoint) else { return Ok(None) };
    let spec = &built_arms.specs[Arm::Baseline.index()];
    let of = |arm: Arm| -> Result<f64, LoopError> {
        let found = checkpoint_of(workload, folders[arm.index()], steps);
        let checkpoint = found.map_err(|error| error.of_trainer(arm))?;
        let eval = OnCheckpoint { arm: Arm::Baseline, command, checkpoint: &checkpoint, values: &[] };
        loss(command, &eval.run(session, spec, progress)?.stdout)
    };
    Ok(Some(Arms { baseline: of(Arm::Baseline)?, candidate: of(Arm::Candidate)? }))
}

/// A command of an arm on a checkpoint.
struct OnCheckpoint<'a> {
    arm: Arm,
    command: &'a str,
    checkpoint: &'a Path,
    /// Of its other placeholders.
    values: &'a [(&'a str, &'a str)],
}

impl OnCheckpoint<'_> {
    /// Runs it in a clean folder.
    fn run(&self, session: &Session, spec: &SandboxSpec, progress: &dyn Progress) -> Result<command::Ended, LoopError> {
        let mut folder = Sandbox::create(&session.work()?.join("e"), spec)?;
        let given = folder.give(self.checkpoint).display().to_string();
        let values: Vec<(&str, &str)> = self.values.iter().copied().chain([("checkpoint", given.as_str())]).collect();
        let words = timed_command::fill(self.command, &values)?;
        let limit = session.config.workload.turn_timeout;
        command::run(&folder, &folder.command(&words, spec)?, limit, progress)?.success(self.arm.name(), self.command)
    }
}

/// A pair that has run, and what decides which of its steps are looked at alone.
pub struct TimedPair<'a> {
    /// Both runs.
    pub run: &'a PairRun,
    /// How they were cut.
    pub blocks: &'a Blocks,
    /// Draws the step.
    pub draws: Randomization,
    /// The pair's.
    pub number: u64,
}

impl TimedPair<'_> {
    /// How far the weights of both arms moved: in single steps and over the whole run.
    fn updates(&self, workload: &Workload, exempt: &[Exempt]) -> Result<Vec<UpdateEvidence>, LoopError> {
        let TimedPair { run, blocks, draws, number } = *self;
        let Some(name) = &workload.weights else { return Ok(Vec::new()) };
        let seed = draws.bits(Purpose::Projection, run.seed, 0);
        let drawn = blocks.step_before(drawn_block(blocks, draws, number));
        let alone = blocks.steps_alone().chain([drawn]).map(|step| (step - 1, step));
        let weights =
            |arm: &ArmRun, step: u64| arm.folder.written(Path::new(&name.replace("{step}", &step.to_string())));
        alone
            .chain([(0, blocks.steps - 1)])
            .map(|(from, to)| {
                let of = |arm: Arm| {
                    let ran = &run.arms[arm.index()];
                    let moved = || UpdateCheck::between(&weights(ran, from)?, &weights(ran, to)?, seed, exempt);
                    moved().map_err(|error: LoopError| error.of_trainer(arm))
                };
                let moved = Arms { baseline: of(Arm::Baseline)?, candidate: of(Arm::Candidate)? };
                Ok(UpdateEvidence { from, to, moved })
            })
            .collect()
    }
}

/// Adds a pair of the baseline's own runs to the floor: how far the baseline is from itself.
pub fn include_in_floor(session: &Session, pair: &TimedPair<'_>, floor: &mut Floor) -> Result<(), LoopError> {
    let workload = &session.config.workload;
    let counters = counters(workload);
    let read = |arm: &ArmRun| record::read(&workload.metrics, &arm.folder, &counters, workload.steps);
    let [one, other] = pair.run.arms.each_ref().map(read);
    floor.include_runs(&one?, &other?);
    for update in pair.updates(workload, &exempt(workload)?)? {
        floor.include_updates(&update.moved.baseline, &update.moved.candidate);
    }
    Ok(())
}

fn exempt(workload: &Workload) -> Result<Vec<Exempt>, LoopError> {
    workload.exempt.iter().map(|text| Exempt::parse(text)).collect()
}

pub(crate) fn counters(workload: &Workload) -> Vec<String> {
    if workload.counters.is_empty() { DEFAULT_COUNTERS.map(str::to_owned).to_vec() } else { workload.counters.clone() }
}

fn first_failure(parity: &Parity) -> Option<String> {
    parity.failures().next().map(|check| format!("parity: {check}"))
}

/// Notes counters that differ, summed over the run, and the operations of a step of the baseline. Where only one arm
/// has a counter, none are noted: one that is no longer counted may have grown.
fn note_counters(attempt: &mut Attempt, records: &Arms<Trajectory>) {
    // The last step but one: the first step sets things up, and the last may save.
    attempt.flops = records.baseline.rows.iter().rev().nth(1).and_then(|row| row.counters.get("flops").copied());
    let (baseline, candidate) = (totals(&records.baseline), totals(&records.candidate));
    attempt.counters = if baseline.keys().eq(candidate.keys()) {
        baseline
            .into_iter()
            .zip(candidate.into_values())
            .filter(|((_, before), after)| before != after)
            .map(|(((name, _), baseline), candidate)| CounterRow { name, baseline, candidate })
            .collect()
    } else {
        Vec::new()
    };
}

/// The sum of each counter over the run. The key holds the number of steps that have it: one that some steps lack is
/// another counter.
fn totals(trajectory: &Trajectory) -> BTreeMap<(String, usize), u64> {
    let mut totals: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for (name, count) in trajectory.rows.iter().flat_map(|row| &row.counters) {
        let (sum, steps) = totals.entry(name).or_default();
        *sum = sum.saturating_add(*count);
        *steps += 1;
    }
    totals.into_iter().map(|(name, (sum, steps))| ((name.to_owned(), steps), sum)).collect()
}

fn checkpoint_of(workload: &Workload, folder: &Sandbox, steps: u64) -> Result<PathBuf, LoopError> {
    let name = workload.checkpoint.clone().unwrap_or_default();
    folder.written(Path::new(&name.replace("{step}", &steps.to_string())))
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
        Err(error) => Err(LoopError::failed(format!("`{command}` printed no object with `loss`: {error}"))
            .hint("`workload.eval` of `loop.toml` names it")),
    }
}

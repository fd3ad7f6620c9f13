//! A comparison from the working tree to its verdict.
//!
//! The steps: snapshot, build, check for equal binaries, the instrument's self-test, plan, pairs with a look after each
//! (parity is judged with each pair), guards after FASTER. Every pair is on disk before the next begins. An attempt
//! that has an answer keeps it.

pub mod built_arms;
pub mod identity;
pub mod layout;
pub mod selftest;
pub mod same_training;
pub mod driver;
pub mod pair_source;
pub mod guards;
pub mod smoke;
pub mod smoke_test;
pub mod report;
pub mod trace_runs;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use pairbench::{
    Arm,
    draws::Randomization,
    pair::{
        self, Outcome, PairRequest, PairRun,
        plan::{self, PairPlan},
        schedule::{Blocks, Script},
        timed_command::Sharing,
    },
    process::sandbox::SandboxSpec,
    stats::{power, sequential::Plan},
    verdict::{self, Verdict},
};

use crate::{
    ErrorKind, LoopError, Progress,
    attempt::{
        Attempt, Manifest, RULES, Seconds,
        bookkeeping::{Bookkeeping, Series},
        gaming,
        layout::{Floors, Needs},
    },
    compare::{
        built_arms::BuiltArms,
        driver::PairSource,
        guards::{GuardPairs, GuardRequest, Measure},
        identity::{by_key, for_cycle, key},
        pair_source::TrainerPairs,
        same_training::SameTraining,
    },
    config::{Guard, Workload},
    machine::Machine,
    records::registry::{self, Registry},
    store::session::{Session, hash_file},
};

/// What is compared, and how long it may take.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// A commit; none means the open cycle's baseline, else HEAD.
    pub baseline: Option<String>,
    /// Compare the baseline with itself, on purpose.
    pub is_identical: bool,
    /// Overrides the configuration's.
    pub budget: Option<Duration>,
    /// Overrides the configuration's.
    pub epsilon_pct: Option<f64>,
    /// Overrides the cycle's.
    pub tier: Option<crate::parity::Tier>,
}

/// Compares and records. The verdict is in the attempt; an error means that no verdict could be found.
pub fn compare(session: &mut Session, options: &CompareOptions, progress: &dyn Progress) -> Result<Attempt, LoopError> {
    let built_arms = built_arms::of_working_tree(session, options, progress)?;
    let mut attempt = open_attempt(session, &built_arms, options)?;
    if !options.is_identical {
        if let Some(finding) = built_arms.sealed(session) {
            // Not saved: nothing was measured, and the same program may come again with another change.
            attempt.decide(Verdict::Refused, finding.to_string());
            return Ok(attempt);
        }
        if built_arms.revisions[0].binary == built_arms.revisions[1].binary {
            attempt.decide(Verdict::Same, "no change: both build the same program");
            return close(session, attempt);
        }
    }
    if attempt.verdict.is_some_and(|verdict| verdict != Verdict::Undecided) {
        progress.note("these two have been compared already: the answer stands");
        return Ok(attempt);
    }
    crate::compare::selftest::ensure(session, &built_arms, progress)?;
    registry::note(session, &mut attempt)?;
    let before = attempt.seconds;
    let began = Instant::now();
    let measured = measure(session, &built_arms, options, &mut attempt, progress);
    let accounted = attempt.seconds.of_comparison() - before.of_comparison();
    attempt.seconds.own += began.elapsed().as_secs_f64() - accounted;
    session.attempts().save(&attempt)?;
    let (verdict, reason) = measured?;
    attempt.decide(verdict, reason);
    close(session, attempt)
}

/// Records the final state of the attempt. A comparison of a program with itself gets no record.
fn close(session: &mut Session, mut attempt: Attempt) -> Result<Attempt, LoopError> {
    // Keep the evidence of attempts that may continue.
    let goes_on = matches!(attempt.verdict, Some(Verdict::Faster | Verdict::Leaner | Verdict::Undecided));
    let needs_evidence = goes_on && !attempt.is_identical;
    if !needs_evidence {
        attempt.evidence.clear();
    }
    session.attempts().save(&attempt)?;
    registry::note(session, &mut attempt)?;
    session.attempts().save(&attempt)?;
    if !attempt.is_identical {
        crate::records::evidence::record(session, &attempt)?;
    }
    if !needs_evidence {
        session.attempts().remove_evidence(&attempt.key, session.config.guards.keys())?;
    }
    Ok(attempt)
}

/// The open attempt at these two programs, or a new one.
fn open_attempt(session: &Session, built_arms: &BuiltArms, options: &CompareOptions) -> Result<Attempt, LoopError> {
    let cycle = session.state.cycle()?;
    let draws = Randomization::fresh();
    let epsilon_pct = options.epsilon_pct.unwrap_or(session.config.epsilon_pct);
    // Each comparison of a program with itself is a new attempt.
    let tier = options.tier.or(cycle.as_ref().map(|cycle| cycle.tier)).unwrap_or_default();
    let key = key(session, built_arms, tier, options.is_identical.then_some(draws));
    if let Some(known) = by_key(session, &key)? {
        let mut known = for_cycle(known, cycle.as_ref());
        // With another ε the same pairs are judged again, and the same plan continues.
        if known.epsilon_pct.to_bits() != epsilon_pct.to_bits()
            && matches!(known.verdict, Some(Verdict::Same | Verdict::Undecided))
        {
            known.epsilon_pct = epsilon_pct;
            known.verdict = None;
        }
        return Ok(known);
    }
    let [baseline, candidate] = built_arms.revisions.clone();
    // An attempt that is registered but has no state here was lost: each start counts as another chance.
    let restarts = Registry::read(session)?.get(&key).map_or(0, |entry| entry.chances);
    Ok(Attempt {
        key,
        is_identical: options.is_identical,
        hypothesis: cycle.as_ref().map(|cycle| cycle.hypothesis.clone()),
        area: cycle.as_ref().and_then(|cycle| cycle.area.clone()),
        tier,
        baseline,
        candidate,
        machine: session.machine.clone(),
        manifest: manifest(session, built_arms)?,
        epsilon_pct,
        draws,
        plan: None,
        pairs: Vec::new(),
        voids: Vec::new(),
        parity: None,
        counters: Vec::new(),
        flops: None,
        guards: Vec::new(),
        guard_d: BTreeMap::new(),
        attribution: None,
        confirmation: None,
        floors: None,
        plain: None,
        verdict: None,
        reason: String::new(),
        estimate: None,
        seconds: Seconds { build: built_arms.build_s, ..Seconds::default() },
        bookkeeping: Bookkeeping { restarts, ..Bookkeeping::default() },
        evidence: String::new(),
        leaner: None,
        reference: None,
        rules: RULES,
    })
}

/// What a new attempt is measured with.
fn manifest(session: &Session, built_arms: &BuiltArms) -> Result<Manifest, LoopError> {
    let config = &session.config;
    Ok(Manifest {
        target: config.target.clone(),
        command: config.workload.command.clone(),
        tokens: config.workload.steps * config.workload.tokens_per_step,
        config: session.config_hash(),
        judge: std::env::current_exe().ok().map(|path| hash_file(&path)).transpose()?.unwrap_or_default(),
        toolchain: built_arms.builds[0].toolchain.clone(),
        data: built_arms.data.clone(),
        protection: session.isolation.protection(),
    })
}

/// Runs pairs until there is an answer, the plan ends, or the budget is spent; then makes the checks that need all
/// pairs. The attempt gets its verdict only after all of that, so that an interrupted one can continue.
fn measure(
    session: &Session,
    built_arms: &BuiltArms,
    options: &CompareOptions,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<(Verdict, String), LoopError> {
    let budget = options.budget.unwrap_or(session.config.budget);
    let began = Instant::now();
    let runner = PairRunner::new(session, built_arms, attempt.draws)?;
    let plan = if let Some(plan) = attempt.plan {
        plan
    } else {
        let plan = plan::plan(&runner.request(0, &Script::default()), budget, progress)?;
        attempt.plan = Some(plan);
        attempt.seconds.plan += began.elapsed().as_secs_f64();
        session.attempts().save(attempt)?;
        plan
    };
    progress.note(&plan_text(session, &plan, budget)?);
    if attempt.pairs.len() >= plan.pairs {
        progress.note("the planned pairs are used up: more pairs follow, judged within the same 5 %");
        registry::note(session, attempt)?;
    }
    let mut pairs = TrainerPairs {
        session,
        runner,
        same_training: SameTraining::new(session, built_arms, attempt, progress)?,
        plan,
        series: Series::Comparison,
        layouts: None,
        index: 0,
        budget: Some(budget),
        began,
        spent_s: 0.0,
        progress,
    };
    let (verdict, reason) = driver::compare(&mut pairs, attempt, &plan)?;
    let TrainerPairs { mut same_training, .. } = pairs;
    let (verdict, reason) = beyond_layouts(session, attempt, verdict, reason)?;
    let leaner = verdict != Verdict::Slower && attempt.is_leaner();
    if attempt.is_identical || !(verdict == Verdict::Faster || leaner && verdict != Verdict::Refused) {
        return Ok((verdict, reason));
    }
    let refusal = match whole_training(session, built_arms, attempt, &mut same_training, progress)? {
        Some(refusal) => Some(refusal),
        None => guarded(session, built_arms, attempt, progress)?,
    };
    Ok(match refusal {
        Some(refusal) => (Verdict::Refused, refusal),
        None if verdict == Verdict::Faster => (verdict, reason),
        None => {
            let rows = attempt.counters.iter().map(|row| format!("{} {} to {}", row.name, row.baseline, row.candidate));
            (Verdict::Leaner, format!("as fast, and leaner: {}", rows.collect::<Vec<_>>().join(", ")))
        }
    })
}

/// The checks of training and gaming that need all pairs; returns the first refusal.
fn whole_training(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    same_training: &mut SameTraining<'_>,
    progress: &dyn Progress,
) -> Result<Option<String>, LoopError> {
    let started = Instant::now();
    let refusal = same_training.judge_all(attempt, progress)?;
    attempt.seconds.parity += started.elapsed().as_secs_f64();
    let findings = [
        gaming::moved_work(attempt),
        gaming::disturbed_baseline(attempt),
        roofline(session, built_arms, attempt, progress)?,
    ];
    Ok(refusal.or_else(|| findings.into_iter().flatten().next().map(|finding| finding.to_string())))
}

/// Finds a step that seems faster than the machine can be. Peaks are measured again first: during the self-test another
/// program may have used the processors.
fn roofline(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    progress: &dyn Progress,
) -> Result<Option<gaming::Finding>, LoopError> {
    let Some(peaks) = crate::compare::selftest::cached(session)?.and_then(|proof| proof.peaks) else { return Ok(None) };
    let beyond = |gflops: f64| {
        let step_s = attempt.baseline_step_s()? / (1.0 + attempt.estimate?.speedup_pct / 100.0);
        gaming::beyond_roofline(step_s, attempt.flops?, gflops)
    };
    if beyond(peaks.gflops).is_none() {
        return Ok(None);
    }
    let now = crate::compare::selftest::peaks(session, built_arms, progress)?;
    Ok(beyond(now.map_or(peaks.gflops, |now| now.gflops.max(peaks.gflops))))
}

/// Runs pairs of the primary workload.
pub struct PairRunner<'a> {
    workload: &'a Workload,
    specs: [&'a SandboxSpec; 2],
    draws: Randomization,
    work: PathBuf,
}

impl<'a> PairRunner<'a> {
    /// For the primary workload.
    ///
    /// # Errors
    /// As [`Session::work`].
    pub fn new(
        session: &'a Session,
        built_arms: &'a BuiltArms,
        draws: Randomization,
    ) -> Result<PairRunner<'a>, LoopError> {
        let [baseline, candidate] = &built_arms.specs;
        Ok(PairRunner {
            workload: &session.config.workload,
            specs: [baseline, candidate],
            draws,
            work: session.work()?,
        })
    }

    /// The same with the baseline as both arms, for the self-test.
    #[must_use]
    pub fn of_baseline(self) -> PairRunner<'a> {
        PairRunner { specs: [self.specs[0]; 2], ..self }
    }

    /// The request for [`pair::run`].
    pub fn request<'s>(&'s self, number: u64, script: &'s Script) -> PairRequest<'s> {
        let PairRunner { workload, specs, draws, work } = self;
        PairRequest { command: workload.timed(), specs: *specs, script, draws: *draws, number, work, slowed: None }
    }

    /// The same with the programs of other layouts.
    #[must_use]
    pub fn with_specs<'k>(&self, specs: [&'k SandboxSpec; 2]) -> PairRunner<'k>
    where
        'a: 'k,
    {
        PairRunner { workload: self.workload, specs, draws: self.draws, work: self.work.clone() }
    }

    /// The turns of a pair. A trainer sees the same turns whatever the pair is for.
    pub fn script(&self, blocks: &Blocks, number: u64) -> Script {
        same_training::script(self.workload, blocks, self.draws, number)
    }

    /// Runs a pair.
    pub fn run(&self, number: u64, script: &Script, progress: &dyn Progress) -> Result<PairRun, LoopError> {
        pair::run(&self.request(number, script), progress)
    }
}

/// Describes the plan, before the first pair.
fn plan_text(session: &Session, plan: &PairPlan, budget: Duration) -> Result<String, LoopError> {
    let PairPlan { pairs, seconds_per_pair, blocks, .. } = plan;
    let resolves = crate::compare::selftest::cached(session)?.map_or_else(String::new, |proof| {
        let size = Plan::for_pairs(*pairs).unwrap_or(Plan::ALL[0]);
        let smallest = power::smallest_effect(verdict::log_of_pct(proof.sd_pct), size);
        format!("; a difference of {:.2} % would be resolved", verdict::pct_of_log(smallest))
    });
    let least = *pairs as f64 * seconds_per_pair;
    let short = if least > budget.as_secs_f64() { "; the budget will not reach for all" } else { "" };
    let how = match session.config.workload.sharing {
        Sharing::Turns => "in turns",
        Sharing::Lines => "in turns, which end with its step lines",
        Sharing::Sequential => "ONE AFTER THE OTHER (noisier than turns)",
        Sharing::Whole if session.config.workload.step_form().is_some() => {
            "ONE AFTER THE OTHER, timed by their step lines (noisier than turns; start, warm-up and end left out)"
        }
        Sharing::Whole => "ONE AFTER THE OTHER, whole processes (noisier than turns, start and end included)",
    };
    let devices = match session.config.workload.sharing {
        Sharing::Lines => of_devices(&Machine::read()),
        Sharing::Turns | Sharing::Sequential | Sharing::Whole => String::new(),
    };
    Ok(format!(
        "at most {pairs} pairs {how}, about {seconds_per_pair:.1} s each: {} blocks of {} steps after {} of warm-up{resolves}{short}{devices}",
        blocks.blocks, blocks.block_steps, blocks.warmup_steps
    ))
}

/// What step lines cannot tell of a device.
fn of_devices(machine: &Machine) -> String {
    if machine.gpu_drivers.is_empty() && !cfg!(target_os = "macos") {
        return String::new();
    }
    "; if the trainer uses a GPU: its queue goes on while the process is stopped, and falls into the other's turn, so that step lines are not enough: `sharing = \"turns\"` (docs/turns.md) waits until the device is idle".to_owned()
}

/// Turns FASTER into UNDECIDED where two layouts of the same program may differ by as much.
fn beyond_layouts(
    session: &Session,
    attempt: &mut Attempt,
    verdict: Verdict,
    reason: String,
) -> Result<(Verdict, String), LoopError> {
    if verdict != Verdict::Faster {
        return Ok((verdict, reason));
    }
    let proof = crate::compare::selftest::cached(session)?;
    let floors = Floors::of(&session.config, proof.and_then(|proof| proof.layout));
    attempt.floors = Some(floors);
    Ok(match attempt.layout_needs() {
        Needs::More => (Verdict::Undecided, format!("{reason}, which may be luck of layout: {floors}")),
        Needs::OtherLayouts | Needs::Nothing => (verdict, reason),
    })
}

/// Runs the configured guards, those that cost nothing first; returns the refusal of the first that fails.
fn guarded(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &mut Attempt,
    progress: &dyn Progress,
) -> Result<Option<String>, LoopError> {
    let began = Instant::now();
    let [baseline, candidate] = &built_arms.specs;
    let work = session.work()?;
    let rebuild = |arm: Arm| {
        let tree = &built_arms.revisions[arm.index()].tree;
        session.builds.rebuild(&session.repository, tree, &session.config, progress)
    };
    let checkpoint = same_training::kept_checkpoint(session);
    let (attempts, key) = (session.attempts(), attempt.key.clone());
    let evidence = |guard: &str| attempts.guard_pair_log(&key, guard);
    let request = GuardRequest {
        config: &session.config,
        specs: [baseline, candidate],
        draws: attempt.draws,
        work: &work,
        checkpoint: checkpoint.as_deref(),
        memory: attempt.memory_d(),
        rebuild: &rebuild,
        tier: attempt.tier,
        evidence: &evidence,
    };
    let is_free = |guard: &Guard| matches!(guard, Guard::PeakMemory { .. });
    let (free, costly): (Vec<_>, Vec<_>) = session.config.guards.iter().partition(|(_, guard)| is_free(guard));
    attempt.guards.clear();
    let mut failed = None;
    for (name, guard) in free.into_iter().chain(costly) {
        let mut pairs = PairsOfGuard { session, attempt, name, progress };
        let result = match guards::run(name, guard, &request, &mut pairs, progress) {
            Ok(result) => result,
            // A refusal by the guard's own pairs is an answer: it is not asked for again.
            Err(error) if error.kind == ErrorKind::Refused => {
                failed = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        failed = (!result.holds).then(|| format!("guard {result}"));
        attempt.guards.push(result);
        if failed.is_some() {
            break;
        }
    }
    attempt.seconds.guards += began.elapsed().as_secs_f64();
    Ok(failed)
}

/// A guard's pairs, kept in the attempt.
struct PairsOfGuard<'a> {
    session: &'a Session,
    attempt: &'a mut Attempt,
    name: &'a str,
    progress: &'a dyn Progress,
}

impl GuardPairs for PairsOfGuard<'_> {
    fn d(&self) -> &[f64] {
        self.attempt.guard_d.get(self.name).map_or(&[], Vec::as_slice)
    }

    fn measure(&mut self, measure: &mut Measure<'_>) -> Result<(), LoopError> {
        let PairsOfGuard { session, name, progress, .. } = *self;
        let mut source = GuardSource { session, name, progress, measure };
        match driver::run_pair(&mut source, self.attempt, &Series::Guard(name.to_owned()))? {
            None => Ok(()),
            Some(refusal) => Err(LoopError::refused(format!("guard {name}: {refusal}"))),
        }
    }
}

struct GuardSource<'a, 'm> {
    session: &'a Session,
    name: &'a str,
    progress: &'a dyn Progress,
    measure: &'a mut Measure<'m>,
}

impl PairSource for GuardSource<'_, '_> {
    type Run = f64;

    fn run(&mut self, number: u64) -> Result<Outcome<f64>, LoopError> {
        (self.measure)(number)
    }

    fn add(&mut self, _number: u64, d: f64, attempt: &mut Attempt) -> Result<Option<String>, LoopError> {
        attempt.guard_d.entry(self.name.to_owned()).or_default().push(d);
        Ok(None)
    }

    fn save(&mut self, attempt: &Attempt) -> Result<(), LoopError> {
        self.session.attempts().save(attempt)
    }

    fn note(&mut self, line: &str) {
        self.progress.note(&format!("guard {}: {line}", self.name));
    }

    fn is_stop_requested(&self) -> bool {
        self.progress.is_stop_requested()
    }
}

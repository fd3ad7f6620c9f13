//! A comparison from the working tree to its verdict.
//!
//! Snapshot, build, equal binaries, the instrument's own test, plan, pairs with a look after each,
//! parity on the way, guards after FASTER. Every pair is on disk before the next begins. An attempt
//! that has an answer keeps it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    LoopError, Watch,
    arm::{Arm, Kit},
    attempt::{Attempt, CounterRow, Manifest, PairRow, Seconds, VoidRow},
    blocks::{Blocks, Script},
    coins::Coins,
    config::{Guard, Sharing, Workload},
    contest::{self, Contest},
    files, gaming,
    guards::{self, GuardRequest, Measured},
    pair::{self, PairRequest, PairRun},
    plan::{self, PairPlan},
    same_training::{self, SameTraining},
    session::{Session, hash_file},
    state::{Cycle, Tier},
    stats::{power, sequential::Plan},
    verdict::{self, Judgement, Verdict},
    watch::PairProgress,
};

/// What is compared, and how long it may take.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// A commit; none: that of the open cycle, else HEAD.
    pub baseline: Option<String>,
    /// The baseline against itself, on purpose.
    pub is_identical: bool,
    /// Instead of the configuration's.
    pub budget: Option<Duration>,
    /// Instead of the configuration's.
    pub epsilon_pct: Option<f64>,
    /// Instead of the cycle's.
    pub tier: Option<crate::state::Tier>,
}

/// Loss of speed that LEANER lets through.
const LEANER_MARGIN_PCT: f64 = 0.5;

/// Compares and records. The verdict is in the attempt; an error is something that kept it from being found.
pub fn compare(session: &mut Session, options: &CompareOptions, watch: &dyn Watch) -> Result<Attempt, LoopError> {
    let contest = contest::of_working_tree(session, options, watch)?;
    let mut attempt = open_attempt(session, &contest, options)?;
    if !options.is_identical {
        if let Some(finding) = contest.sealed(session) {
            // Nothing was measured, and the same program may come with another change: not kept.
            attempt.decide(Verdict::Refused, finding.text());
            return Ok(attempt);
        }
        if contest.sides[0].binary == contest.sides[1].binary {
            attempt.decide(Verdict::Same, "no change: both build the same program");
            return close(session, attempt);
        }
    }
    if attempt.verdict.is_some_and(|verdict| verdict != Verdict::Undecided) {
        watch.note("these two have been compared already: the answer stands");
        return Ok(attempt);
    }
    crate::selftest::ensure(session, &contest, watch)?;
    let before = attempt.seconds;
    let began = Instant::now();
    let measured = measure(session, &contest, options, &mut attempt, watch);
    let accounted = attempt.seconds.of_comparison() - before.of_comparison();
    attempt.seconds.own += began.elapsed().as_secs_f64() - accounted;
    session.attempts().save(&attempt)?;
    let (verdict, reason) = measured?;
    attempt.decide(verdict, reason);
    close(session, attempt)
}

/// Writes the attempt down for good. A program beside itself is no attempt at anything: it has no record.
fn close(session: &mut Session, attempt: Attempt) -> Result<Attempt, LoopError> {
    session.attempts().save(&attempt)?;
    if !attempt.is_identical {
        crate::evidence::record(session, &attempt)?;
    }
    // What may still go on needs what its pairs showed.
    if !matches!(attempt.verdict, Some(Verdict::Faster | Verdict::Leaner | Verdict::Undecided)) || attempt.is_identical
    {
        session.attempts().kept_evidence(&attempt.key).remove()?;
    }
    Ok(attempt)
}

/// The attempt of these two, if there is one, open or ended. It may have been of other trees that build the same
/// programs; what it is of now are these, for the cycle that is open now.
pub fn known(session: &Session, contest: &Contest) -> Result<Option<Attempt>, LoopError> {
    let cycle = session.state.cycle()?;
    let tiers = match &cycle {
        Some(cycle) => vec![cycle.tier],
        None => vec![Tier::T0, Tier::T1, Tier::T2],
    };
    for tier in tiers {
        if let Some(known) = by_key(session, &key(session, contest, tier, None)?)? {
            let [baseline, candidate] = contest.sides.clone();
            return Ok(Some(Attempt { baseline, candidate, ..for_cycle(known, cycle.as_ref()) }));
        }
    }
    Ok(None)
}

/// An attempt as one of the open cycle: where its gain is is asked again if another area was declared meanwhile.
fn for_cycle(known: Attempt, cycle: Option<&Cycle>) -> Attempt {
    let Some(cycle) = cycle else { return known };
    let is_of_area = known.area == cycle.area;
    Attempt {
        hypothesis: Some(cycle.hypothesis.clone()),
        area: cycle.area.clone(),
        attribution: known.attribution.clone().filter(|_| is_of_area),
        ..known
    }
}

/// The last attempt of a cycle: the newest against its baseline.
pub fn last(session: &Session, cycle: Option<&Cycle>) -> Result<Option<Attempt>, LoopError> {
    let Some(cycle) = cycle else { return Ok(None) };
    let newest = session.attempts().newest()?;
    Ok(newest.filter(|attempt| attempt.baseline.commit == cycle.baseline && !attempt.is_identical))
}

fn by_key(session: &Session, key: &str) -> Result<Option<Attempt>, LoopError> {
    match session.attempts().load(key)? {
        Some(known) => Ok(Some(known)),
        None => crate::evidence::find(session, key),
    }
}

/// What makes two comparisons the same: what ran, on what, where, and by which rules. Not the smallest gain that counts:
/// asking for less is no reason to begin anew.
fn key(session: &Session, contest: &Contest, tier: Tier, anew: Option<Coins>) -> Result<String, LoopError> {
    let workload = &session.config.workload;
    let mut parts = contest.sides.each_ref().map(|side| side.binary.clone()).to_vec();
    parts.extend([workload.command.clone(), workload.steps.to_string(), session.machine.fingerprint()]);
    parts.extend([contest.inputs.clone(), session.config_hash()?, tier.to_string()]);
    parts.extend(anew.map(|coins| coins.seed.to_string()));
    Ok(blake3::hash(parts.join("\n").as_bytes()).to_hex()[..32].to_owned())
}

/// The open attempt of these two, or a new one.
fn open_attempt(session: &Session, contest: &Contest, options: &CompareOptions) -> Result<Attempt, LoopError> {
    let config = &session.config;
    let cycle = session.state.cycle()?;
    let coins = Coins::fresh();
    let manifest = Manifest {
        target: config.target.clone(),
        command: config.workload.command.clone(),
        tokens: config.workload.steps * config.workload.tokens_per_step,
        config: session.config_hash()?,
        judge: std::env::current_exe().ok().map(|path| hash_file(&path)).transpose()?.unwrap_or_default(),
        toolchain: contest.built[0].toolchain.clone(),
    };
    let epsilon_pct = options.epsilon_pct.unwrap_or(config.epsilon_pct);
    // A program is compared with itself again and again, each time anew.
    let tier = options.tier.or(cycle.as_ref().map(|cycle| cycle.tier)).unwrap_or_default();
    let key = key(session, contest, tier, options.is_identical.then_some(coins))?;
    if let Some(known) = by_key(session, &key)? {
        let mut known = for_cycle(known, cycle.as_ref());
        // A smaller gain asked for: the same pairs are judged again, and the same plan goes on.
        if known.epsilon_pct.to_bits() != epsilon_pct.to_bits()
            && matches!(known.verdict, Some(Verdict::Same | Verdict::Undecided))
        {
            known.epsilon_pct = epsilon_pct;
            known.verdict = None;
        }
        return Ok(known);
    }
    let [baseline, candidate] = contest.sides.clone();
    Ok(Attempt {
        key,
        is_identical: options.is_identical,
        hypothesis: cycle.as_ref().map(|cycle| cycle.hypothesis.clone()),
        area: cycle.as_ref().and_then(|cycle| cycle.area.clone()),
        tier,
        baseline,
        candidate,
        machine: session.machine.clone(),
        manifest,
        epsilon_pct,
        coins,
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
        verdict: None,
        reason: String::new(),
        estimate: None,
        seconds: Seconds { build: contest.build_s, ..Seconds::default() },
    })
}

/// Runs pairs until there is an answer, the plan ends, or the budget is spent; then asks what only the whole shows.
/// The attempt has its verdict only when all of that is done: what is interrupted goes on.
fn measure(
    session: &Session,
    contest: &Contest,
    options: &CompareOptions,
    attempt: &mut Attempt,
    watch: &dyn Watch,
) -> Result<(Verdict, String), LoopError> {
    let budget = options.budget.unwrap_or(session.config.budget);
    let began = Instant::now();
    let runner = PairRunner::new(session, contest, attempt.coins)?;
    let plan = if let Some(plan) = attempt.plan {
        plan
    } else {
        let plan = plan::plan(&runner.request(0, &Script::default()), budget, watch)?;
        attempt.plan = Some(plan);
        attempt.seconds.plan += began.elapsed().as_secs_f64();
        session.attempts().save(attempt)?;
        plan
    };
    let looks = plan.looks().ok_or_else(|| LoopError::Failed(format!("there is no plan of {} pairs", plan.pairs)))?;
    watch.note(&plan_text(session, &plan, budget));
    // A plan that is done goes on, as many pairs again.
    let most = if attempt.pairs.len() >= plan.pairs { attempt.pairs.len() + plan.pairs } else { plan.pairs };
    let most = most.min(looks.most_pairs());
    if attempt.pairs.len() >= plan.pairs {
        watch.note("the planned pairs are used up: more pairs follow, judged within the same 5 %");
    }
    let mut judgement = verdict::judge(&attempt.d(), looks, attempt.epsilon_pct);
    let mut same_training = SameTraining::new(session, contest, attempt, watch)?;
    let (verdict, reason) = loop {
        let is_planned_end = attempt.pairs.len() == plan.pairs && most > plan.pairs;
        // Where counters fell, pairs go on until it is shown that nothing was lost for it.
        let may_be_leaner =
            judgement.verdict == Some(Verdict::Same) && counters_only_fell(attempt) && !is_leaner(attempt);
        let goes_on = is_planned_end || may_be_leaner && attempt.pairs.len() < plan.pairs;
        if let Some(verdict) = judgement.verdict.filter(|_| !goes_on) {
            attempt.estimate = judgement.estimate;
            break (verdict, judgement.reason);
        }
        if attempt.pairs.len() >= most || began.elapsed() >= budget {
            let why = if attempt.pairs.len() >= most { "all pairs are" } else { "the budget is" };
            attempt.estimate = judgement.estimate.or(attempt.estimate);
            break (Verdict::Undecided, format!("{why} used up without an answer; {}", judgement.reason));
        }
        let number = attempt.next_number();
        let run = runner.run(number, &runner.script(&plan.blocks, number), watch)?;
        attempt.seconds.pairs += run.trainers_s();
        if let Some(void) = run.void {
            watch.note(&format!("pair {number} is void: the {} {}", void.arm.name(), void.why));
            attempt.voids.push(VoidRow { number, arm: void.arm, why: void.why });
            if let Some(refusal) = too_many_voids(&attempt.voids)? {
                break (Verdict::Refused, refusal);
            }
            continue;
        }
        let row = pair_row(number, &run);
        record_blocks(session, attempt, &row, &run)?;
        let started = Instant::now();
        let refusal = same_training.judge(number, &run, attempt, watch)?;
        attempt.seconds.parity += started.elapsed().as_secs_f64();
        attempt.pairs.push(row);
        session.attempts().save(attempt)?;
        if let Some(refusal) = refusal {
            break (Verdict::Refused, refusal);
        }
        judgement = verdict::judge(&attempt.d(), looks, attempt.epsilon_pct);
        attempt.estimate = judgement.estimate.or(attempt.estimate);
        watch.pairs(&progress("compare", &attempt.d(), most, attempt, &judgement, began));
    };
    let leaner = verdict != Verdict::Slower && is_leaner(attempt);
    if attempt.is_identical || !(verdict == Verdict::Faster || leaner && verdict != Verdict::Refused) {
        return Ok((verdict, reason));
    }
    let refusal = match whole_training(session, attempt, &mut same_training, watch)? {
        Some(refusal) => Some(refusal),
        None => guarded(session, contest, attempt, watch)?,
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

/// What only the whole comparison shows.
fn whole_training(
    session: &Session,
    attempt: &mut Attempt,
    same_training: &mut SameTraining<'_>,
    watch: &dyn Watch,
) -> Result<Option<String>, LoopError> {
    let started = Instant::now();
    let refusal = same_training.judge_all(attempt, watch)?;
    attempt.seconds.parity += started.elapsed().as_secs_f64();
    let findings = [gaming::moved_work(attempt), gaming::disturbed_baseline(attempt), roofline(session, attempt)];
    Ok(refusal.or_else(|| findings.into_iter().flatten().next().map(|finding| finding.text())))
}

/// Not slower than by 0.5 %, the same numbers up to rounding, and counters that only fell.
fn is_leaner(attempt: &Attempt) -> bool {
    let low = attempt.estimate.and_then(|estimate| estimate.ci_low_pct);
    low.is_some_and(|low| low > -LEANER_MARGIN_PCT) && counters_only_fell(attempt)
}

fn counters_only_fell(attempt: &Attempt) -> bool {
    let fell = |row: &CounterRow| row.candidate < row.baseline;
    !attempt.is_identical
        && attempt.tier != Tier::T2
        && !attempt.counters.is_empty()
        && attempt.counters.iter().all(fell)
}

fn roofline(session: &Session, attempt: &Attempt) -> Option<gaming::Finding> {
    let peaks = crate::selftest::cached(session).ok().flatten()?.peaks?;
    let flops = attempt.flops?;
    let estimate = attempt.estimate?;
    let step_s = attempt.baseline_step_s()? / (1.0 + estimate.speedup_pct / 100.0);
    gaming::beyond_roofline(step_s, flops, peaks.gflops)
}

/// Runs pairs of a contest's primary workload.
pub struct PairRunner<'a> {
    workload: &'a Workload,
    kits: [&'a Kit; 2],
    coins: Coins,
    work: PathBuf,
}

impl<'a> PairRunner<'a> {
    /// For the primary workload.
    ///
    /// # Errors
    /// As [`Session::work`].
    pub fn new(session: &'a Session, contest: &'a Contest, coins: Coins) -> Result<PairRunner<'a>, LoopError> {
        let [baseline, candidate] = &contest.kits;
        Ok(PairRunner { workload: &session.config.workload, kits: [baseline, candidate], coins, work: session.work()? })
    }

    /// Both arms the baseline, for the instrument's own test.
    #[must_use]
    pub fn of_baseline(self) -> PairRunner<'a> {
        PairRunner { kits: [self.kits[0]; 2], ..self }
    }

    /// What [`pair::run`] takes.
    pub fn request<'s>(&'s self, number: u64, script: &'s Script) -> PairRequest<'s> {
        let PairRunner { workload, kits, coins, work } = self;
        PairRequest { workload, kits: *kits, script, coins: *coins, number, work, slowed: None }
    }

    /// The turns of a pair: the same for a trainer, whatever the pair is for.
    pub fn script(&self, blocks: &Blocks, number: u64) -> Script {
        same_training::script(self.workload, blocks, self.coins, number)
    }

    /// A pair.
    pub fn run(&self, number: u64, script: &Script, watch: &dyn Watch) -> Result<PairRun, LoopError> {
        pair::run(&self.request(number, script), watch)
    }
}

/// What is going to happen, before the first pair.
fn plan_text(session: &Session, plan: &PairPlan, budget: Duration) -> String {
    let PairPlan { pairs, seconds_per_pair, blocks, .. } = plan;
    let resolves = crate::selftest::cached(session).ok().flatten().map_or_else(String::new, |proof| {
        let size = Plan::for_pairs(*pairs).unwrap_or(Plan::ALL[0]);
        let smallest = power::smallest_effect(verdict::log_of_pct(proof.sd_pct), size);
        format!("; a difference of {:.2} % would be resolved", verdict::pct_of_log(smallest))
    });
    let least = *pairs as f64 * seconds_per_pair;
    let short = if least > budget.as_secs_f64() { "; the budget will not reach for all" } else { "" };
    let how = match session.config.workload.sharing {
        Sharing::Turns => "in turns",
        Sharing::Sequential => "ONE AFTER THE OTHER (noisier than turns)",
        Sharing::Whole => "ONE AFTER THE OTHER, whole processes (noisier than turns, start and end included)",
    };
    format!(
        "at most {pairs} pairs {how}, about {seconds_per_pair:.1} s each: {} blocks of {} steps after {} of warm-up{resolves}{short}",
        blocks.blocks, blocks.block_steps, blocks.warmup_steps
    )
}

/// Appends the times of a pair's blocks to the bulk data.
fn record_blocks(session: &Session, attempt: &Attempt, row: &PairRow, run: &PairRun) -> Result<(), LoopError> {
    let blocks_ms = run.arms.each_ref().map(|arm| {
        arm.turns
            .iter()
            .filter(|turn| turn.block.is_some())
            .map(|turn| (turn.ms * 1e3).round() / 1e3)
            .collect::<Vec<f64>>()
    });
    let line = serde_json::json!({ "pair": row.number, "blocks_ms": blocks_ms });
    files::append_line(&session.attempts().bulk_path(&attempt.key), &line.to_string())
}

/// Runs the configured guards, those that cost nothing first; the refusal of the first that fails.
fn guarded(
    session: &Session,
    contest: &Contest,
    attempt: &mut Attempt,
    watch: &dyn Watch,
) -> Result<Option<String>, LoopError> {
    let began = Instant::now();
    let [baseline, candidate] = &contest.kits;
    let ratios = |of: fn(&PairRow) -> Option<[f64; 2]>| {
        attempt
            .pairs
            .iter()
            .filter_map(of)
            .map(|[baseline, candidate]| (baseline / candidate).ln())
            .collect::<Vec<f64>>()
    };
    let memory = ratios(|pair| match pair.peak_memory_bytes {
        [Some(baseline), Some(candidate)] => Some([baseline as f64, candidate as f64]),
        _ => None,
    });
    let work = session.work()?;
    let rebuild = |arm: Arm| {
        let tree = &contest.sides[arm.index()].tree;
        session.builds.rebuild(&session.repository, tree, &session.config, watch)
    };
    let checkpoint = same_training::kept_checkpoint(session);
    let request = GuardRequest {
        config: &session.config,
        kits: [baseline, candidate],
        coins: attempt.coins,
        work: &work,
        checkpoint: checkpoint.as_deref(),
        memory,
        rebuild: &rebuild,
    };
    let is_free = |guard: &Guard| matches!(guard, Guard::PeakMemory { .. });
    let (free, costly): (Vec<_>, Vec<_>) = session.config.guards.iter().partition(|(_, guard)| is_free(guard));
    attempt.guards.clear();
    let mut failed = None;
    for (name, guard) in free.into_iter().chain(costly) {
        let known = attempt.guard_d.get(name).cloned().unwrap_or_default();
        let mut keep = |d: &[f64]| {
            attempt.guard_d.insert(name.clone(), d.to_vec());
            session.attempts().save(attempt)
        };
        let result = match guards::run(name, guard, &request, Measured { d: known, keep: &mut keep }, watch) {
            Ok(result) => result,
            // What the guard's own pairs show of a trainer that plays is an answer, not to be asked for again.
            Err(LoopError::Refused(why)) => {
                failed = Some(why);
                break;
            }
            Err(error) => return Err(error),
        };
        failed = (!result.holds).then(|| format!("guard {}", result.text()));
        attempt.guards.push(result);
        if failed.is_some() {
            break;
        }
    }
    attempt.seconds.guards += began.elapsed().as_secs_f64();
    Ok(failed)
}

/// Voids of the baseline's doing say that the instrument does not work here; those of the candidate's, that it plays.
pub fn too_many_voids(voids: &[VoidRow]) -> Result<Option<String>, LoopError> {
    if let Some(finding) = gaming::voids(voids) {
        return Ok(Some(finding.text()));
    }
    let of_baseline: Vec<_> = voids.iter().filter(|void| void.arm == Arm::Baseline).collect();
    match of_baseline.last() {
        Some(last) if of_baseline.len() >= gaming::MAX_VOIDS => Err(LoopError::Failed(format!(
            "the baseline cannot be measured in turns: in {} pairs it {}",
            of_baseline.len(),
            last.why
        ))
        .hint("`sharing = \"sequential\"` in `loop.toml` runs one trainer at a time")),
        _ => Ok(None),
    }
}

/// The numbers of a pair.
pub fn pair_row(number: u64, run: &PairRun) -> PairRow {
    let rounded = |value: f64, digits: f64| (value * digits).round() / digits;
    let of = |value: fn(&pair::ArmRun) -> f64, digits| run.arms.each_ref().map(|arm| rounded(value(arm), digits));
    PairRow {
        number,
        seed: run.seed,
        baseline_first: run.baseline_first,
        d: verdict::round_log(run.log_ratio()),
        whole: verdict::round_log(run.whole_log_ratio()),
        ready_ms: of(|arm| arm.ready_ms, 1e1),
        finish_ms: of(|arm| arm.finish_ms, 1e1),
        peak_memory_bytes: run.arms.each_ref().map(|arm| arm.peak_memory_bytes),
        foreign_cpu_share: of(|arm| arm.foreign_cpu_share, 1e3),
        seconds: rounded(run.seconds, 1e2),
        turns_s: rounded(run.turns_s, 1e3),
    }
}

/// Where a series of pairs stands.
pub fn progress(
    stage: &str,
    d: &[f64],
    planned: usize,
    attempt: &Attempt,
    judgement: &Judgement,
    began: Instant,
) -> PairProgress {
    let elapsed_s = began.elapsed().as_secs_f64();
    let seconds_per_pair = attempt.plan.map_or(0.0, |plan| plan.seconds_per_pair);
    PairProgress {
        stage: stage.to_owned(),
        pairs: d.len(),
        planned,
        estimate_pct: (!d.is_empty())
            .then(|| verdict::pct_of_log(crate::stats::signed_rank::WalshAverages::of(d).estimate())),
        interval_pct: attempt.estimate.and_then(|estimate| estimate.ci_low_pct.zip(estimate.ci_high_pct)),
        elapsed_s,
        left_s: planned.saturating_sub(d.len()) as f64 * seconds_per_pair,
        needs: judgement.reason.clone(),
    }
}

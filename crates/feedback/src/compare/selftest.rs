//! The instrument's self-test on this machine: it finds no effect where there is none, and finds a known effect.
//!
//! The baseline runs against itself, with a known delay injected into each turn of one arm: with the delay the pairs must
//! find it, without it they must find nothing. An instrument that fails refuses to judge. The result holds for a week, for this machine, kernel, toolchain and workload.

use std::{fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use pairbench::{
    Arm,
    draws::Randomization,
    files,
    pair::{
        self, PairRequest, PairRun,
        plan::{self, PairPlan},
        schedule::Script,
        timed_command,
    },
    process::{
        command,
        sandbox::{Sandbox, SandboxSpec},
    },
    stats::{
        power, robust,
        sequential::Plan,
        signed_rank::{WalshAverages, p_greater, p_two_sided},
    },
    verdict::{log_of_pct, pct_of_log},
};
use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Progress,
    attempt::{
        gaming::MAX_VOIDS,
        layout::{Floors, LayoutNoise, layouts_within},
    },
    compare::{
        PairRunner,
        built_arms::BuiltArms,
        layout,
        same_training::{self, TimedPair},
    },
    config::{LoopConfig, is_layout_varied},
    parity::Floor,
    store::session::Session,
    trace::ranking::{Peaks, parse_peaks},
};

/// Version of the kept file.
pub const SCHEMA: &str = "alpha.loop.selftest/1";
/// Pairs.
const PAIRS: u64 = 8;
/// Pairs that show how far the baseline is from itself.
const FLOOR_PAIRS: u64 = 2;
/// Both questions' one-sided level: at eight pairs the seven heaviest must agree.
const LEVEL: f64 = 0.025;
/// Smallest injected delay, in per cent of a turn.
const INJECTED_DELAY_PCT: f64 = 3.0;
/// Largest delay that is tried before the instrument counts as blind.
const MAX_INJECTED_DELAY_PCT: f64 = 100.0;
/// The known effect counts as not found if the estimate is off by more than this many standard errors.
const MAX_ERRORS: f64 = 6.0;
/// Numbers of the pairs that run in several layouts begin here, past all others.
const FIRST_LAYOUT_PAIR: u64 = 1000;
/// How long a result holds.
const HOLDS: Duration = Duration::from_secs(7 * 24 * 3600);

/// The result of a self-test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Hash of everything that it depends on.
    pub holds_for: String,
    /// When it ran.
    pub time: Timestamp,
    /// Standard deviation of a pair, in per cent.
    pub sd_pct: f64,
    /// Estimate of the program against itself, in per cent.
    pub identical_pct: f64,
    /// Two-sided p of the program against itself.
    pub identical_p: f64,
    /// The known slowdown, in per cent of a turn.
    #[serde(rename = "hold_up_pct")]
    pub injected_delay_pct: f64,
    /// Its estimate.
    pub found_pct: f64,
    /// One-sided p of it.
    pub found_p: f64,
    /// Time of a pair.
    pub seconds_per_pair: f64,
    /// Smallest effects that 1, 5 and 20 minutes of pairs resolve, in per cent, with a chance of 80 %.
    pub resolves: Vec<Resolution>,
    /// How far losses and norms of two runs of the baseline differ.
    #[serde(default)]
    pub floor: Floor,
    /// How much layouts of the baseline differ; none where the build command cannot vary them, or pairs take too long.
    #[serde(default)]
    pub layout: Option<LayoutNoise>,
    /// The machine's peaks, where the configuration says how to measure them.
    pub peaks: Option<Peaks>,
    /// Why the instrument refuses to judge, if it does.
    pub failure: Option<String>,
}

/// How thorough a self-test is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfTestOptions {
    /// Layouts that are measured, however long it takes.
    pub layouts: Option<u32>,
}

/// The effect that a time of pairs resolves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Of pairs.
    pub minutes: f64,
    /// Pairs that fit.
    pub pairs: usize,
    /// Smallest effect, in per cent.
    pub effect_pct: f64,
}

/// The result that holds now, if there is one.
pub fn cached(session: &Session) -> Result<Option<SelfTest>, LoopError> {
    let Ok(bytes) = fs::read(path(session)) else { return Ok(None) };
    let Ok(kept) = serde_json::from_slice::<SelfTest>(&bytes) else { return Ok(None) };
    let age = Timestamp::now().duration_since(kept.time);
    // A result from the future, after the clock was set back, is as worthless as an old one.
    let is_fresh = !age.is_negative() && age.unsigned_abs() < HOLDS;
    Ok((is_fresh && kept.schema == SCHEMA && kept.holds_for == holds_for(session)?).then_some(kept))
}

/// The result that holds; runs the test if there is none. An instrument that fails is an error.
pub fn ensure(session: &Session, built_arms: &BuiltArms, progress: &dyn Progress) -> Result<SelfTest, LoopError> {
    if let Some(kept) = cached(session)?.filter(|kept| kept.failure.is_none()) {
        return Ok(kept);
    }
    progress.note("self-test of the instrument (first use on this machine, or a week ago)");
    let made = run(session, built_arms, SelfTestOptions::default(), progress)?;
    match &made.failure {
        None => Ok(made),
        Some(why) => Err(LoopError::refused(format!("the instrument fails its own test here: {why}"))
            .hint("`alpha loop doctor` says what disturbs; then `alpha loop selftest`")),
    }
}

/// Runs the test and keeps the result.
pub fn run(
    session: &Session,
    built_arms: &BuiltArms,
    options: SelfTestOptions,
    progress: &dyn Progress,
) -> Result<SelfTest, LoopError> {
    let runner = PairRunner::new(session, built_arms, Randomization::fresh())?.of_baseline();
    let plan = plan::plan(&runner.request(0, &Script::default()), Duration::ZERO, progress)?;
    let least_s = PAIRS as f64 * plan.seconds_per_pair;
    progress.note(&format!("self-test: about {least_s:.0} s, more where something disturbs"));
    let test = Test { session, built_arms, runner, plan, progress };
    let peaks = peaks(session, built_arms, progress)?;
    let mut floor = Floor::default();
    let first = test.series(1, INJECTED_DELAY_PCT, Some(&mut floor))?;
    let identical = &first.identical;
    let sd = robust::mad_sd(identical).max(f64::MIN_POSITIVE);
    let mut failure = test.differs_from_itself(identical)?;
    let delay = test.find_delay(&first, sd)?;
    failure = failure.or(delay.failure);
    let layout = if failure.is_none() { test.layouts(options)? } else { None };
    let made = SelfTest {
        schema: SCHEMA.to_owned(),
        holds_for: holds_for(session)?,
        time: Timestamp::now(),
        sd_pct: pct_of_log(sd),
        identical_pct: pct_of_log(WalshAverages::of(identical).estimate()),
        identical_p: p_two_sided(identical),
        injected_delay_pct: delay.injected_pct,
        found_pct: pct_of_log(delay.found),
        found_p: delay.found_p,
        seconds_per_pair: plan.seconds_per_pair,
        resolves: resolutions(&plan, sd),
        floor,
        layout,
        peaks,
        failure,
    };
    let json = serde_json::to_vec_pretty(&made)
        .map_err(|error| LoopError::failed(format!("the self-test cannot be written: {error}")))?;
    files::write(&path(session), &json)?;
    Ok(made)
}

/// Context of the parts of the test.
struct Test<'a> {
    session: &'a Session,
    built_arms: &'a BuiltArms,
    /// Both arms are the baseline.
    runner: PairRunner<'a>,
    plan: PairPlan,
    progress: &'a dyn Progress,
}

/// What some pairs showed: ln(baseline / candidate) without the delay, and ln(candidate / baseline) with it.
#[derive(Debug, Default)]
struct Series {
    identical: Vec<f64>,
    slower: Vec<f64>,
}

/// A known delay and its estimate.
struct Delay {
    /// In per cent of a turn.
    injected_pct: f64,
    /// Its estimate, as a logarithm.
    found: f64,
    /// One-sided p of it.
    found_p: f64,
    /// Set where even the largest delay was not found.
    failure: Option<String>,
}

impl Test<'_> {
    /// Runs [`PAIRS`] pairs from number `first`, with each turn of the candidate's delayed by a share of it. The first
    /// pairs also show how far losses and norms of two runs of the baseline differ, if `floor` is to be known.
    fn series(&self, first: u64, injected_pct: f64, mut floor: Option<&mut Floor>) -> Result<Series, LoopError> {
        let mut series = Series::default();
        for number in first..first + PAIRS {
            let script = self.runner.script(&self.plan.blocks, number);
            let slowed = Some((Arm::Candidate, injected_pct / 100.0));
            let request = PairRequest { slowed, ..self.runner.request(number, &script) };
            let run = measured(&request, self.progress)?;
            series.identical.push(run.undelayed_log_ratio());
            series.slower.push(-run.log_ratio());
            if let Some(floor) = floor.as_deref_mut().filter(|_| number < first + FLOOR_PAIRS) {
                let pair = TimedPair { run: &run, blocks: &self.plan.blocks, draws: request.draws, number };
                same_training::include_in_floor(self.session, &pair, floor)?;
            }
        }
        Ok(series)
    }

    /// The failure, if the program differs from itself twice in the same direction.
    fn differs_from_itself(&self, identical: &[f64]) -> Result<Option<String>, LoopError> {
        if p_two_sided(identical) > LEVEL {
            return Ok(None);
        }
        self.progress.note("the program differed from itself: once more");
        let again = self.series(1 + PAIRS, INJECTED_DELAY_PCT, None)?.identical;
        let same_side = (robust::median(identical) > 0.0) == (robust::median(&again) > 0.0);
        Ok((p_two_sided(&again) <= LEVEL && same_side).then(|| {
            let pct = pct_of_log(WalshAverages::of(&again).estimate());
            format!("the same program differed from itself twice, by {pct:+.2} %")
        }))
    }

    /// Judges the delay of the first series, and doubles it until it is found.
    fn find_delay(&self, first: &Series, sd: f64) -> Result<Delay, LoopError> {
        let mut injected_pct = INJECTED_DELAY_PCT;
        let mut slower = first.slower.clone();
        let mut next = 1 + 2 * PAIRS;
        loop {
            let (found, found_p) = (WalshAverages::of(&slower).estimate(), p_greater(&slower));
            let standard_error = robust::mad_sd(&slower).max(sd) / (PAIRS as f64).sqrt();
            let is_off = (found - log_of_pct(injected_pct)).abs() > MAX_ERRORS * standard_error.max(log_of_pct(0.1));
            if found_p <= LEVEL && !is_off {
                return Ok(Delay { injected_pct, found, found_p, failure: None });
            }
            let estimate = pct_of_log(found);
            if injected_pct >= MAX_INJECTED_DELAY_PCT {
                let failure = Some(format!(
                    "a known slowdown of {injected_pct:.1} % was estimated as {estimate:.1} % (p = {found_p:.3})"
                ));
                return Ok(Delay { injected_pct, found, found_p, failure });
            }
            // A noisy hour, or an instrument that is blind: a larger effect tells them apart.
            self.progress.note(&format!(
                "a slowdown of {injected_pct:.1} % was found as {estimate:.1} %: once more with twice as much"
            ));
            injected_pct = (2.0 * injected_pct).min(MAX_INJECTED_DELAY_PCT);
            slower = self.series(next, injected_pct, None)?.slower;
            next += PAIRS;
        }
    }

    /// How much layouts of the baseline differ.
    fn layouts(&self, options: SelfTestOptions) -> Result<Option<LayoutNoise>, LoopError> {
        let Test { session, built_arms, runner, plan, progress } = self;
        if !is_layout_varied(&session.config) {
            progress.note("layout is not varied: `build.command` has no `{layout}` (docs/loop.md says what it is for)");
            return Ok(None);
        }
        let within = layouts_within(layout::LIMIT.as_secs_f64(), plan.seconds_per_pair);
        let Some(layouts) = options.layouts.or(within) else {
            progress.note(&format!(
                "layout is not measured: with {:.0} s for a pair it would take longer than {:.0} s",
                plan.seconds_per_pair,
                layout::LIMIT.as_secs_f64()
            ));
            return Ok(None);
        };
        let run = |specs: [&SandboxSpec; 2], number: u64| {
            let number = FIRST_LAYOUT_PAIR + number;
            let script = runner.script(&plan.blocks, number);
            Ok(measured(&PairRequest { specs, ..runner.request(number, &script) }, *progress)?.log_ratio())
        };
        layout::measure(session, built_arms, layouts, *progress, &run)
    }
}

impl SelfTest {
    /// The smallest gain that cannot be luck of layout.
    pub fn floors(&self, config: &LoopConfig) -> Floors {
        Floors::of(config, self.layout)
    }

    /// Smallest effect that `minutes` of pairs resolve, in per cent.
    pub fn resolves_pct(&self, minutes: f64) -> Option<f64> {
        self.resolves.iter().find(|resolution| resolution.minutes >= minutes).map(|resolution| resolution.effect_pct)
    }
}

/// Runs a pair; repeats it where it is void, as comparisons do.
///
/// # Errors
/// [`LoopError::refused`] where it is void [`MAX_VOIDS`] times in a row.
fn measured(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    let mut voids = 0;
    loop {
        let run = pair::run(request, progress)?;
        let Some(void) = &run.void else { return Ok(run) };
        voids += 1;
        if voids == MAX_VOIDS {
            return Err(LoopError::refused(format!("the instrument cannot be tested: the baseline {}", void.why)));
        }
        progress.note(&format!("a pair of the self-test was void (the baseline {}): once more", void.why));
    }
}

fn resolutions(plan: &PairPlan, sd: f64) -> Vec<Resolution> {
    [1.0, 5.0, 20.0]
        .into_iter()
        .map(|minutes: f64| {
            let fit = (minutes * 60.0 / plan.seconds_per_pair) as usize;
            let size = Plan::largest_within(fit).unwrap_or(Plan::ALL[0]);
            Resolution { minutes, pairs: size.pairs(), effect_pct: pct_of_log(power::smallest_effect(sd, size)) }
        })
        .collect()
}

/// Hash of everything that a result depends on.
fn holds_for(session: &Session) -> Result<String, LoopError> {
    let config = &session.config;
    let parts = [
        session.machine.fingerprint(),
        session.machine.kernel_release.clone().unwrap_or_default(),
        session.builds.toolchain(&session.repository, &session.repository.head()?.tree, config)?,
        format!("{:?}", config.workload),
        format!("{:?}", config.trace),
        config.build.command.clone(),
    ];
    Ok(blake3::hash(parts.join("\n").as_bytes()).to_hex()[..32].to_owned())
}

/// Each target has a file of its own.
fn path(session: &Session) -> PathBuf {
    let of_target = session.config.target.as_ref().map_or(String::new(), |target| format!("-{target}"));
    session.state.folder().join(format!("selftest{of_target}.json"))
}

/// Runs the configuration's command that measures peaks, with the baseline's program.
pub(crate) fn peaks(
    session: &Session,
    built_arms: &BuiltArms,
    progress: &dyn Progress,
) -> Result<Option<Peaks>, LoopError> {
    let Some(command) = session.config.trace.as_ref().and_then(|trace| trace.peaks.as_ref()) else { return Ok(None) };
    let spec = &built_arms.specs[0];
    let folder = Sandbox::create(&session.work()?.join("p"), spec)?;
    let limit = session.config.workload.turn_timeout;
    let ended = command::run(&folder, &folder.command(&timed_command::fill(command, &[])?, spec)?, limit, progress)?
        .success("baseline", command)?;
    let json = ended.stdout.find('{').map_or("", |start| &ended.stdout[start..]);
    parse_peaks(json.as_bytes()).map(Some)
}

//! Guards: non-inferiority tests on the same binaries after FASTER.
//!
//! A guard's numbers are d = ln(baseline / candidate) of time or memory, where lower is better: positive d is better. A
//! guard holds when the exact signed-rank test shows d above −margin, one-sided 2.5 %; without proof it does not hold.
//! One that measures for itself looks up to three times, after few pairs first, and shares that level among its looks.

mod same;

use std::{path::Path, time::Instant};

use self::same::{Answers, GuardTraining};
use pairbench::{
    Arm,
    draws::{Purpose, Randomization},
    pair::{self, Outcome, PairRequest, plan, schedule::Script, timed_command},
    process::{
        command,
        sandbox::{Sandbox, SandboxSpec},
    },
    progress::PairProgress,
    stats::signed_rank::WalshAverages,
    verdict::{LOST_D, pct_of_log, round_log},
};

use crate::{
    LoopError, Progress,
    attempt::{
        bookkeeping::MAX_LOST,
        confirmation::fewest_that_pass,
        guard::{GuardResult, judge},
    },
    config::{Guard, LoopConfig, Workload},
    parity::{Tier, pair_log::PairLog},
    store::adapter,
};

mod again;

pub use self::again::again;

/// Pairs of a workload at each look.
const PAIRS: &[usize] = &[8, 14, 20];
/// Pairs of single processes, which are noisy, and more so if they are short.
const PROCESS_PAIRS: &[usize] = &[8, 16, 24];
const SHORT_PROCESS_PAIRS: &[usize] = &[8, 20, 60];
/// Pairs of builds, which are long.
const BUILD_PAIRS: &[usize] = &[8];
/// A short process runs up to this often in a pair, and the shortest time counts: disturbances only add to it.
const MOST_REPEATS: u64 = 4;
/// A process of at least this many seconds is not repeated.
const LONG_S: f64 = 0.25;
/// One-sided level.
const LEVEL: f64 = 0.025;
/// Above this p at a look, more pairs would not help.
const HOPELESS: f64 = 0.9;
/// Context of the guards of a comparison.
pub struct GuardRequest<'a> {
    /// The whole configuration.
    pub config: &'a LoopConfig,
    /// Sandboxes of both arms, by [`Arm::index`]; the guard sets the inputs.
    pub specs: [&'a SandboxSpec; 2],
    /// The comparison's draws.
    pub draws: Randomization,
    /// Where folders are made.
    pub work: &'a Path,
    /// Tier of parity for training and answers.
    pub tier: Tier,
    /// Weights that the baseline trained, for commands with `{checkpoint}`.
    pub checkpoint: Option<&'a Path>,
    /// ln(baseline / candidate) of the primary workload's peak memory, for each pair.
    pub memory: Vec<f64>,
    /// Builds an arm's tree again after the other arm's, and returns the seconds it took.
    pub rebuild: &'a dyn Fn(Arm) -> Result<f64, LoopError>,
    /// The log with the losses of a guard's pairs, by the guard's name.
    pub evidence: &'a dyn Fn(&str) -> PairLog,
}

/// Measures the pair of a number: ln(baseline / candidate) of a quantity where lower is better.
pub type Measure<'a> = dyn FnMut(u64) -> Result<Outcome<f64>, LoopError> + 'a;

/// A guard's pairs, which survive an interruption.
pub trait GuardPairs {
    /// d of the pairs that count.
    fn d(&self) -> &[f64];

    /// Measures one more pair and keeps its outcome; a void pair adds no number.
    ///
    /// # Errors
    /// [`LoopError::refused`] where the candidate spoils too many.
    fn measure(&mut self, measure: &mut Measure<'_>) -> Result<(), LoopError>;
}

/// Runs the guard, or continues it.
///
/// # Errors
/// [`LoopError::refused`] where a trainer spoils so many pairs that the guard has no answer.
pub fn run(
    name: &str,
    guard: &Guard,
    request: &GuardRequest<'_>,
    pairs: &mut dyn GuardPairs,
    progress: &dyn Progress,
) -> Result<GuardResult, LoopError> {
    let looks = Looks { name, margin_pct: guard.margin_pct(), progress };
    match guard {
        Guard::PeakMemory { .. } => Ok(judge(name, guard.margin_pct(), &request.memory, LEVEL)),
        Guard::FirstStep { .. } => {
            let (workload, work, draws) = (&request.config.workload, request.work, request.draws);
            let script = Script::default();
            let start = PairRequest {
                command: workload.timed(),
                specs: request.specs,
                script: &script,
                draws,
                number: 0,
                work,
                slowed: None,
            };
            let mut time = |arm, place| pair::start_only(&start, arm, place, progress);
            by_process(&looks, request, pairs, &mut time)
        }
        Guard::Workload { workload, .. } => by_workload(&looks, workload, request, pairs),
        Guard::Command { command, inputs, .. } => {
            let mut answers = Answers::new(name, request.tier);
            let specs = request.specs.map(|spec| SandboxSpec { inputs: inputs.clone(), ..spec.clone() });
            let mut time = |arm: Arm, place| {
                let ended = run_command(command, request, (arm, &specs[arm.index()]), place, progress)?;
                answers.compare(arm, &ended.stdout)?;
                Ok(ended.seconds)
            };
            by_process(&looks, request, pairs, &mut time)
        }
        Guard::BuildTime { .. } => {
            let mut rebuild = |arm, _| (request.rebuild)(arm).map_err(|error| error.of_trainer(arm));
            looks.at(BUILD_PAIRS, pairs, &mut |number| pair_of(request, number, 1, progress, &mut rebuild))
        }
    }
}

/// The looks of a guard that measures pairs.
struct Looks<'a> {
    name: &'a str,
    margin_pct: f64,
    progress: &'a dyn Progress,
}

impl Looks<'_> {
    /// Measures pairs until the guard holds, clearly does not hold, or has used its pairs. Where some are lost, a look
    /// waits for as many pairs as can still show that the guard holds.
    fn at(
        &self,
        counts: &[usize],
        pairs: &mut dyn GuardPairs,
        measure: &mut Measure<'_>,
    ) -> Result<GuardResult, LoopError> {
        let Looks { name, margin_pct, progress } = *self;
        let started = Instant::now();
        let level = LEVEL / counts.len() as f64;
        let mut measure = |number| {
            Ok(match measure(number)? {
                Outcome::Measured(d) => Outcome::Measured(round_log(d)),
                void @ Outcome::Void(_) => void,
            })
        };
        let mut found = judge(name, margin_pct, &[], level);
        for count in counts {
            let planned = loop {
                let lost = pairs.d().iter().filter(|d| **d <= LOST_D).count();
                // Beyond MAX_LOST no number of pairs makes up for the lost ones, and the guard does not hold.
                let made_up = if (1..=MAX_LOST).contains(&lost) { fewest_that_pass(level, lost) } else { 0 };
                let planned = made_up.max(*count);
                if pairs.d().len() >= planned {
                    break planned;
                }
                pairs.measure(&mut measure)?;
                report(name, planned, pairs.d(), started, progress);
            };
            found = judge(name, margin_pct, &pairs.d()[..planned], level);
            if found.holds || found.p > HOPELESS {
                break;
            }
        }
        Ok(found)
    }
}

fn by_workload(
    looks: &Looks<'_>,
    workload: &Workload,
    request: &GuardRequest<'_>,
    pairs: &mut dyn GuardPairs,
) -> Result<GuardResult, LoopError> {
    let Looks { name, progress, .. } = *looks;
    let specs = request.specs.map(|spec| adapter::spec_for(spec, workload));
    let script = plan::script_of(&workload.timed(), &specs, request.work, request.draws, progress)?;
    let mut training = GuardTraining::new(name, workload, request, pairs.d().len())?;
    let found = looks.at(PAIRS, pairs, &mut |number| {
        let pair = PairRequest {
            command: workload.timed(),
            specs: [&specs[0], &specs[1]],
            script: &script,
            draws: request.draws,
            number,
            work: request.work,
            slowed: None,
        };
        let mut run = pair::run(&pair, progress)?;
        if let Some(void) = run.void.take() {
            return Ok(Outcome::Void(void));
        }
        training.judge(number, &run)?;
        Ok(Outcome::Measured(run.log_ratio()))
    })?;
    training.judge_all()?;
    Ok(found)
}

/// Compares single processes; the first run decides how many pairs there are.
fn by_process(
    looks: &Looks<'_>,
    request: &GuardRequest<'_>,
    pairs: &mut dyn GuardPairs,
    time: &mut dyn FnMut(Arm, usize) -> Result<f64, LoopError>,
) -> Result<GuardResult, LoopError> {
    let seconds = time(Arm::Baseline, 0)?;
    let counts = if seconds < LONG_S { SHORT_PROCESS_PAIRS } else { PROCESS_PAIRS };
    looks.at(counts, pairs, &mut |number| pair_of(request, number, repeats(seconds), looks.progress, time))
}

/// How often a process of this length runs in a pair.
fn repeats(seconds: f64) -> u64 {
    ((LONG_S / seconds.max(1e-3)).ceil() as u64).clamp(1, MOST_REPEATS)
}

/// ln(baseline / candidate) of the shortest of `repeats` measurements each; a coin decides each time who goes first.
fn pair_of(
    request: &GuardRequest<'_>,
    number: u64,
    repeats: u64,
    progress: &dyn Progress,
    measure: &mut dyn FnMut(Arm, usize) -> Result<f64, LoopError>,
) -> Result<Outcome<f64>, LoopError> {
    let mut shortest = [f64::INFINITY; 2];
    for repeat in 0..repeats {
        for (place, arm) in request.draws.order(Purpose::Pair, number, repeat).into_iter().enumerate() {
            if progress.is_stop_requested() {
                return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
            }
            let found = measure(arm, place)?;
            shortest[arm.index()] = shortest[arm.index()].min(found);
        }
    }
    Ok(Outcome::Measured((shortest[0] / shortest[1]).ln()))
}

/// Runs a guard's command in a fresh process.
fn run_command(
    command: &str,
    request: &GuardRequest<'_>,
    (arm, spec): (Arm, &SandboxSpec),
    place: usize,
    progress: &dyn Progress,
) -> Result<command::Ended, LoopError> {
    let mut folder = Sandbox::create(&request.work.join(["a", "b"][place]), spec)?;
    let checkpoint = request.checkpoint.map(|path| folder.give(path).display().to_string()).unwrap_or_default();
    let values: &[(&str, &str)] = if checkpoint.is_empty() { &[] } else { &[("checkpoint", &checkpoint)] };
    let words = timed_command::fill(command, values)?;
    let limit = request.config.workload.turn_timeout;
    let ended = command::run(&folder, &folder.command(&words, spec)?, limit, progress)?.success(arm.name(), command);
    ended.map_err(|error| error.of_trainer(arm))
}

fn report(name: &str, planned: usize, d: &[f64], started: Instant, progress: &dyn Progress) {
    let elapsed_s = started.elapsed().as_secs_f64();
    progress.pairs(&PairProgress {
        stage: format!("guard {name}"),
        pairs: d.len(),
        planned,
        estimate_pct: (d.len() > 1).then(|| pct_of_log(WalshAverages::of(d).estimate())),
        interval_pct: None,
        elapsed_s,
        left_s: elapsed_s / d.len().max(1) as f64 * (planned - d.len()) as f64,
        needs: String::new(),
    });
}

#[cfg(test)]
mod tests {
    use pairbench::verdict::log_of_pct;

    use super::*;
    use crate::attempt::guard::FIRST_NUMBER;

    #[test]
    fn a_guard_holds_only_when_that_is_shown() {
        let less = |pct: f64| vec![-log_of_pct(pct); 8];
        let judge = |d: &[f64]| judge("memory", 5.0, d, LEVEL);
        assert!(judge(&less(3.0)).holds);
        assert!(judge(&less(-10.0)).holds);
        let worse = judge(&less(8.0));
        assert!(!worse.holds && (worse.worse_pct - 8.0).abs() < 1e-9, "{worse:?}");
        // Five pairs that all agree have p = 1/32, which is not enough.
        assert!(!judge(&less(0.0)[..5]).holds);
        assert!(judge(&less(0.0)[..6]).holds);
        assert!(!judge(&[]).holds);
    }

    /// Pairs that are kept in memory.
    struct Kept(Vec<f64>);

    impl GuardPairs for Kept {
        fn d(&self) -> &[f64] {
            &self.0
        }

        fn measure(&mut self, measure: &mut Measure<'_>) -> Result<(), LoopError> {
            match measure(FIRST_NUMBER + self.0.len() as u64)? {
                Outcome::Measured(d) => self.0.push(d),
                Outcome::Void(_) => self.0.push(LOST_D),
            }
            Ok(())
        }
    }

    /// After how many pairs a guard with a margin of 5 % ends, and whether it holds.
    fn looked(d: impl Fn(u64) -> f64) -> (usize, bool) {
        let looks = Looks { name: "decode", margin_pct: 5.0, progress: &pairbench::progress::Quiet };
        let mut measure = |number| Ok(Outcome::Measured(log_of_pct(d(number - FIRST_NUMBER))));
        let found = looks.at(&[8, 14, 20], &mut Kept(Vec::new()), &mut measure).unwrap();
        (found.pairs, found.holds)
    }

    /// A crash of the candidate, or a power cut, does not end a guard; three of them refuse the attempt.
    #[test]
    fn lost_pairs_count_against_a_guard() {
        let looks = Looks { name: "decode", margin_pct: 5.0, progress: &pairbench::progress::Quiet };
        let held = |counts: &[usize], lost: usize, pct: f64| {
            let mut measure = |_| Ok(Outcome::Measured(log_of_pct(pct)));
            let found = looks.at(counts, &mut Kept(vec![LOST_D; lost]), &mut measure).unwrap();
            (found.pairs, found.holds)
        };
        assert_eq!(held(&[8, 14, 20], 1, 0.0), (14, true));
        assert_eq!(held(&[8], 1, 0.0), (12, true));
        assert_eq!(held(&[8], 3, 0.0), (22, true));
        assert!(!held(&[8], 3, -6.0).1);
    }

    #[test]
    fn a_guard_goes_on_only_where_that_can_help() {
        assert_eq!(looked(|_| 0.0), (8, true));
        assert_eq!(looked(|_| -8.0), (8, false));
        // Two of the first eight far off: not shown yet. The others are clear.
        assert_eq!(looked(|number| if number < 2 { -20.0 } else { 0.0 }), (20, true));
        assert_eq!(looked(|number| if number % 2 == 0 { -20.0 } else { 16.0 }), (20, false));
    }

    #[test]
    fn a_guard_goes_on_with_what_was_measured() {
        let looks = Looks { name: "decode", margin_pct: 5.0, progress: &pairbench::progress::Quiet };
        let mut numbers = Vec::new();
        let mut measure = |number| {
            numbers.push(number - FIRST_NUMBER);
            Ok(Outcome::Measured(0.0))
        };
        let known = vec![log_of_pct(-20.0); 2];
        let mut kept = Kept(known.clone());
        let found = looks.at(&[4, 9, 14], &mut kept, &mut measure).unwrap();
        // Two far off of nine or of fourteen: both are looked at, and nothing is measured twice.
        assert_eq!((found.pairs, numbers), (14, (2..14).collect::<Vec<u64>>()));
        assert_eq!((kept.0.len(), &kept.0[..2]), (14, &known[..]));
    }

    /// Where a guard is exactly at its margin it holds by mistake in at most 2.5 %, all looks together.
    #[test]
    fn looking_again_keeps_the_level() {
        let draws = Randomization { seed: 7 };
        let noise = |guard: u64, number: u64| draws.bits(Purpose::Pair, guard, number) as f64 / u64::MAX as f64 - 0.5;
        let held = (0..20_000).filter(|guard| looked(|number| -5.0 + 6.0 * noise(*guard, number)).1).count();
        assert!(held < 600, "{held} of 20 000");
    }

    #[test]
    fn short_processes_are_repeated() {
        assert_eq!([repeats(0.0), repeats(0.04), repeats(0.1), repeats(0.25), repeats(60.0)], [4, 4, 3, 1, 1]);
    }
}

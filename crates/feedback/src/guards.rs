//! What must not become worse: non-inferiority tests on the same binaries after FASTER.
//!
//! A guard's numbers are d = ln(baseline / candidate) of something of which less is better, time or
//! memory: positive is better. It holds when the exact signed-rank test shows d above −margin, one-sided
//! 2.5 %. What is not shown does not hold: a guard that cannot see does not guard.

use std::{path::Path, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    LoopError, Watch,
    arm::{Arm, ArmFolder, Kit},
    coins::{Coins, Purpose},
    config::{self, Guard, LoopConfig, Workload},
    once,
    pair::{self, PairRequest, Script},
    plan,
    stats::{equivalence::noninferiority_p, signed_rank::WalshAverages},
    verdict::{log_of_pct, pct_of_log},
    watch::PairProgress,
};

/// Pairs of a guard that measures for itself, fixed beforehand: one may go astray.
const PAIRS: u64 = 8;
/// Pairs of short processes, which are quick and uneven.
const PROCESS_PAIRS: u64 = 20;
/// One-sided level.
const LEVEL: f64 = 0.025;
/// Numbers of guards' pairs begin here, away from those of the comparison.
const FIRST_NUMBER: u64 = 1_000_000;

/// What a guard found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardResult {
    /// Its name in `loop.toml`.
    pub name: String,
    /// How much worse is let through.
    pub margin_pct: f64,
    /// How much worse the candidate is, by Hodges–Lehmann; negative is better.
    pub worse_pct: f64,
    /// Exact p against the margin.
    pub p: f64,
    /// Pairs it rests on.
    pub pairs: usize,
    /// Whether it is shown to be within the margin.
    pub holds: bool,
}

impl GuardResult {
    /// `memory: +0.3 % (margin 5 %)`.
    pub fn text(&self) -> String {
        let GuardResult { name, margin_pct, worse_pct, p, pairs, .. } = self;
        format!("{name}: {worse_pct:+.2} % where {margin_pct} % is let through (p = {p:.4}, {pairs} pairs)")
    }
}

/// Judges a guard's numbers.
pub fn judge(name: &str, margin_pct: f64, d: &[f64]) -> GuardResult {
    let p = if d.is_empty() { 1.0 } else { noninferiority_p(d, log_of_pct(margin_pct)) };
    let centre = if d.is_empty() { 0.0 } else { WalshAverages::of(d).estimate() };
    GuardResult {
        name: name.to_owned(),
        margin_pct,
        worse_pct: pct_of_log(-centre),
        p,
        pairs: d.len(),
        holds: p <= LEVEL,
    }
}

/// What guards measure with.
pub struct GuardRequest<'a> {
    /// The whole configuration.
    pub config: &'a LoopConfig,
    /// Both trainers' files, by [`Arm::index`]; inputs are set by the guard.
    pub kits: [&'a Kit; 2],
    /// The comparison's coins.
    pub coins: Coins,
    /// Where folders are made.
    pub work: &'a Path,
    /// Weights that the baseline trained, for commands with `{checkpoint}`.
    pub checkpoint: Option<&'a Path>,
    /// ln(baseline / candidate) of the primary workload's peak memory, a pair each.
    pub memory: Vec<f64>,
    /// Builds an arm's tree again after the other's, and returns the seconds it took.
    pub rebuild: &'a dyn Fn(Arm) -> Result<f64, LoopError>,
}

/// Runs the guard.
pub fn run(name: &str, guard: &Guard, request: &GuardRequest<'_>, watch: &dyn Watch) -> Result<GuardResult, LoopError> {
    let d = match guard {
        Guard::PeakMemory { .. } => request.memory.clone(),
        Guard::FirstStep { .. } => {
            let (workload, work, coins) = (&request.config.workload, request.work, request.coins);
            let script = Script::default();
            let start =
                PairRequest { workload, kits: request.kits, script: &script, coins, number: 0, work, slowed: None };
            pairs(name, PROCESS_PAIRS, request, watch, |arm, place| pair::start_only(&start, arm, place, watch))?
        }
        Guard::Workload { workload, .. } => workload_pairs(name, workload, request, watch)?,
        Guard::Command { command, inputs, .. } => pairs(name, PROCESS_PAIRS, request, watch, |arm, place| {
            time_command(command, inputs, request, arm, place, watch)
        })?,
        Guard::BuildTime { .. } => pairs(name, PAIRS, request, watch, |arm, _| (request.rebuild)(arm))?,
    };
    Ok(judge(name, guard.margin_pct(), &d))
}

fn workload_pairs(
    name: &str,
    workload: &Workload,
    request: &GuardRequest<'_>,
    watch: &dyn Watch,
) -> Result<Vec<f64>, LoopError> {
    let kits = request.kits.map(|kit| Kit { inputs: workload.inputs.clone(), ..kit.clone() });
    let script = plan::script_of(workload, &kits, request.work, request.coins, watch)?;
    let started = Instant::now();
    let mut d = Vec::new();
    let mut voids = 0;
    while d.len() < PAIRS as usize {
        let number = FIRST_NUMBER + (d.len() + voids) as u64;
        let pair = PairRequest {
            workload,
            kits: [&kits[0], &kits[1]],
            script: &script,
            coins: request.coins,
            number,
            work: request.work,
            slowed: None,
        };
        let run = pair::run(&pair, watch)?;
        match run.void {
            None => d.push(run.log_ratio()),
            Some(void) => {
                voids += 1;
                watch.note(&format!("a pair of guard {name} is void: the {} {}", void.arm.name(), void.why));
                if voids >= crate::gaming::MAX_VOIDS {
                    return Err(LoopError::Refused(format!("guard {name}: the {} {}", void.arm.name(), void.why)));
                }
            }
        }
        progress(name, PAIRS, &d, started, watch);
    }
    Ok(d)
}

/// Single measurements of either arm, who goes first being a coin.
fn pairs(
    name: &str,
    count: u64,
    request: &GuardRequest<'_>,
    watch: &dyn Watch,
    mut measure: impl FnMut(Arm, usize) -> Result<f64, LoopError>,
) -> Result<Vec<f64>, LoopError> {
    let started = Instant::now();
    let mut d = Vec::new();
    for number in 0..count {
        let order = request.coins.order(Purpose::Pair, FIRST_NUMBER + number, 0);
        let mut found = [0.0; 2];
        for (place, arm) in order.into_iter().enumerate() {
            if watch.is_stop_requested() {
                return Err(LoopError::Interrupted("interrupted; what was measured so far is kept".into()));
            }
            found[arm.index()] = measure(arm, place)?;
        }
        d.push((found[0] / found[1]).ln());
        progress(name, count, &d, started, watch);
    }
    Ok(d)
}

/// Wall time of a fresh process, in seconds.
fn time_command(
    command: &str,
    inputs: &[std::path::PathBuf],
    request: &GuardRequest<'_>,
    arm: Arm,
    place: usize,
    watch: &dyn Watch,
) -> Result<f64, LoopError> {
    let kit = Kit { inputs: inputs.to_vec(), ..request.kits[arm.index()].clone() };
    let folder = ArmFolder::create(&request.work.join(["a", "b"][place]), &kit)?;
    let checkpoint = request.checkpoint.map(|path| path.display().to_string()).unwrap_or_default();
    let values: &[(&str, &str)] = if checkpoint.is_empty() { &[] } else { &[("checkpoint", &checkpoint)] };
    let words = config::fill(command, values)?;
    let limit = request.config.workload.turn_timeout;
    once::run(&folder, &kit, &words, limit, watch)?.success(arm.name(), command).map(|ended| ended.seconds)
}

fn progress(name: &str, planned: u64, d: &[f64], started: Instant, watch: &dyn Watch) {
    let elapsed_s = started.elapsed().as_secs_f64();
    watch.pairs(&PairProgress {
        stage: format!("guard {name}"),
        pairs: d.len(),
        planned: planned as usize,
        estimate_pct: (d.len() > 1).then(|| pct_of_log(WalshAverages::of(d).estimate())),
        interval_pct: None,
        elapsed_s,
        left_s: elapsed_s / d.len().max(1) as f64 * (planned as usize - d.len()) as f64,
        needs: String::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_holds_only_when_that_is_shown() {
        let less = |pct: f64| vec![-log_of_pct(pct); 8];
        assert!(judge("memory", 5.0, &less(3.0)).holds);
        assert!(judge("memory", 5.0, &less(-10.0)).holds);
        let worse = judge("memory", 5.0, &less(8.0));
        assert!(!worse.holds && (worse.worse_pct - 8.0).abs() < 1e-9, "{worse:?}");
        // Five pairs that all agree have p = 1/32, which is not enough.
        assert!(!judge("memory", 5.0, &less(0.0)[..5]).holds);
        assert!(judge("memory", 5.0, &less(0.0)[..6]).holds);
        assert!(!judge("memory", 5.0, &[]).holds);
    }
}

//! Traced runs: of the baseline for the ranking, of both arms for the attribution.

use std::{fs, path::Path};

use pairbench::{
    Arm,
    draws::Randomization,
    pair::{self, PairRequest, plan, schedule::Script},
    process::sandbox::Sandbox,
};

use crate::{
    LoopError, Progress,
    attempt::{Attempt, CounterRow, VoidPair, corroboration::Corroboration},
    compare::{
        built_arms::{self, BuiltArms},
        driver, selftest,
    },
    config::{Area, TraceConfig, Workload},
    parity::trajectory::{DEFAULT_COUNTERS, Trajectory},
    records::evidence,
    store::session::Session,
    trace::{
        attribution::{self, Attribution, TracedPair},
        ranking::{self, Basis, Kernel, PastAttempts, Report, Trace, TracedRun},
    },
};

/// Traced processes of the baseline.
const PROCESSES: u64 = 4;
/// Traced pairs of an attribution.
const PAIRS: u64 = 5;
/// Their numbers begin here, apart from those of the comparison and of guards.
const FIRST_NUMBER: u64 = 2_000_000;
/// A bottleneck is hidden if this many minutes of comparison could not resolve its gain.
const PATIENCE_MINUTES: f64 = 5.0;
/// The first step, which sets things up, is left out of the mean time of a step.
const FIRST_STEADY: usize = 1;

/// Ranks by new traces of HEAD.
pub fn rank_baseline(session: &Session, progress: &dyn Progress) -> Result<Report, LoopError> {
    let trace = configured(session)?;
    let head = session.repository.head()?.commit;
    let built_arms = built_arms::of_commits(session, &head, &head, progress)?;
    let workload = traced_workload(session, trace);
    let work = session.work()?;
    let specs = [&built_arms.specs[0], &built_arms.specs[0]];
    let script = Script::default();
    let mut runs = Vec::new();
    for number in 0..PROCESSES {
        let request = PairRequest {
            command: workload.timed(),
            specs,
            script: &script,
            draws: Randomization::fresh(),
            number,
            work: &work,
            slowed: None,
        };
        let run = pair::alone(&request, Arm::Baseline, progress)?;
        runs.push(read(&run.folder, trace, &workload)?);
    }
    rank(session, &runs)
}

/// Ranks by the trace of an existing run.
pub fn rank_run(session: &Session, folder: &Path) -> Result<Report, LoopError> {
    let name = Path::new("kernels.json");
    let path = folder.join(configured(session)?.kernels.file_name().map_or(name, Path::new));
    let bytes =
        fs::read(&path).map_err(|error| LoopError::io("read", &path, &error).hint("a run with `--trace` writes it"))?;
    let metrics = session.config.workload.metrics.rows_file().and_then(Path::file_name);
    let metrics = metrics.map(|name| folder.join(name)).filter(|path| path.exists());
    let step_ms = metrics.map(|path| step_ms(&path)).transpose()?.flatten();
    rank(session, &[TracedRun { trace: ranking::parse_kernels(&bytes)?, step_ms }])
}

/// Checks fallen counters against the traces of both arms.
pub fn corroborate(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    progress: &dyn Progress,
) -> Result<Corroboration, LoopError> {
    let trace = configured(session)?;
    let workload = traced_workload(session, trace);
    let work = session.work()?;
    let script = Script::default();
    let request = PairRequest {
        command: workload.timed(),
        specs: [&built_arms.specs[0], &built_arms.specs[1]],
        script: &script,
        draws: attempt.draws,
        number: FIRST_NUMBER,
        work: &work,
        slowed: None,
    };
    let mut runs = Vec::new();
    for arm in Arm::BOTH {
        let run = pair::alone(&request, arm, progress)?;
        runs.push(read(&run.folder, trace, &workload)?);
    }
    Ok(corroboration(&attempt.counters, [&runs[0].trace, &runs[1].trace]))
}

fn corroboration(counters: &[CounterRow], traces: [&Trace; 2]) -> Corroboration {
    let mut found = Corroboration::default();
    for row in counters {
        let of: fn(&Kernel) -> Option<f64> = match row.name.as_str() {
            "kernels" | "gpu_ops_count" => |kernel| kernel.calls,
            "flops" => |kernel| kernel.flops,
            "bytes_moved" => |kernel| kernel.bytes,
            _ => |_| None,
        };
        // For one step; none where a kernel lacks the number.
        let total = |trace: &Trace| -> Option<f64> {
            let sum: Option<f64> = trace.kernels.iter().map(of).sum();
            sum.filter(|_| !trace.kernels.is_empty()).map(|sum| sum / trace.steps.max(1) as f64)
        };
        let list = match (total(traces[0]), total(traces[1])) {
            (Some(before), Some(after)) if after < before => &mut found.shown,
            (Some(_), Some(_)) => &mut found.contradicted,
            _ => &mut found.unseen,
        };
        list.push(row.name.clone());
    }
    found
}

/// Change by phase and kernel, from traced pairs in turns. Where no area was declared, every part is inside.
pub fn attribute(
    session: &Session,
    built_arms: &BuiltArms,
    attempt: &Attempt,
    progress: &dyn Progress,
) -> Result<Attribution, LoopError> {
    let trace = configured(session)?;
    let workload = traced_workload(session, trace);
    let specs = [built_arms.specs[0].clone(), built_arms.specs[1].clone()];
    let work = session.work()?;
    let script = plan::script_of(&workload.timed(), &specs, &work, attempt.draws, progress)?;
    let (mut pairs, mut voids) = (Vec::new(), Vec::new());
    for number in FIRST_NUMBER.. {
        if pairs.len() as u64 == PAIRS {
            break;
        }
        let specs = [&specs[0], &specs[1]];
        let draws = attempt.draws;
        let request =
            PairRequest { command: workload.timed(), specs, script: &script, draws, number, work: &work, slowed: None };
        let run = pair::run(&request, progress)?;
        if let Some(void) = run.void {
            progress.note(&format!("a traced pair is void: the {} {}", void.arm.name(), void.why));
            voids.push(VoidPair { number, arm: void.arm, why: void.why });
            if let Some(refusal) = driver::too_many_voids(&voids)? {
                return Err(LoopError::refused(format!("attribution: {refusal}")));
            }
            continue;
        }
        let [baseline, candidate] = run.arms.each_ref().map(|arm| read(&arm.folder, trace, &workload));
        pairs.push(TracedPair { baseline: baseline?, candidate: candidate? });
    }
    let everything = Area { kernels: vec!["**".to_owned()], ..Area::default() };
    let area = match &attempt.area {
        None => &everything,
        Some(name) => session
            .config
            .areas
            .get(name)
            .ok_or_else(|| LoopError::usage(format!("the cycle's area `{name}` is no longer in `loop.toml`")))?,
    };
    let gain_pct = attempt.estimate.map_or(0.0, |estimate| estimate.speedup_pct);
    Ok(attribution::attribute(&pairs, &[area], gain_pct))
}

fn configured(session: &Session) -> Result<&TraceConfig, LoopError> {
    session.config.trace.as_ref().ok_or_else(|| {
        LoopError::usage("`loop.toml` has no `[trace]`")
            .hint("name the workload's command with tracing on, and the file of kernels that it writes")
    })
}

fn traced_workload(session: &Session, trace: &TraceConfig) -> Workload {
    Workload { command: trace.command.clone(), steps: trace.steps, ..session.config.workload.clone() }
}

fn read(folder: &Sandbox, trace: &TraceConfig, workload: &Workload) -> Result<TracedRun, LoopError> {
    let path = folder.written(&trace.kernels)?;
    let bytes = fs::read(&path).map_err(|error| {
        LoopError::io("read", &path, &error).hint("`trace.kernels` of `loop.toml` names what the traced command writes")
    })?;
    let metrics = workload.metrics.rows_file().map(|file| folder.written(file)).transpose()?;
    let step_ms = metrics.map(|path| step_ms(&path)).transpose()?.flatten();
    Ok(TracedRun { trace: ranking::parse_kernels(&bytes)?, step_ms })
}

/// Mean time of the steps after the first, where the metrics have it.
fn step_ms(metrics: &Path) -> Result<Option<f64>, LoopError> {
    let trajectory = Trajectory::read(metrics, &DEFAULT_COUNTERS)?;
    let steady =
        if trajectory.rows.len() > FIRST_STEADY { &trajectory.rows[FIRST_STEADY..] } else { &trajectory.rows[..] };
    let times: Option<Vec<f64>> = steady.iter().map(|row| row.ms_per_iter).collect();
    Ok(times.filter(|times| !times.is_empty()).map(|times| times.iter().sum::<f64>() / times.len() as f64))
}

fn rank(session: &Session, runs: &[TracedRun]) -> Result<Report, LoopError> {
    let proof = selftest::cached(session)?;
    let files: Vec<String> = session
        .repository
        .files(&session.repository.head()?.tree)?
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    ranking::rank(&Basis {
        runs,
        peaks: proof.as_ref().and_then(|proof| proof.peaks),
        past: &past(session),
        areas: &session.config.areas,
        files: &files,
        resolvable_pct: proof.and_then(|proof| proof.resolves_pct(PATIENCE_MINUTES)),
    })
}

/// The ledger's attempts, by declared area.
fn past(session: &Session) -> Vec<PastAttempts> {
    let mut past: Vec<PastAttempts> = Vec::new();
    for (_, record) in evidence::attempts(session) {
        let Some(area) = record.attempt.area.clone() else { continue };
        let accepted = u32::from(record.attempt.is_confirmed());
        match past.iter_mut().find(|known| known.area == area) {
            Some(known) => {
                known.attempts += 1;
                known.accepted += accepted;
            }
            None => past.push(PastAttempts { area, kind: None, attempts: 1, accepted }),
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(calls: f64, bytes: Option<f64>) -> Trace {
        let kernel = |name: &str| Kernel {
            name: name.into(),
            phase: String::new(),
            time_ms: 1.0,
            calls: Some(calls),
            flops: Some(10.0),
            bytes,
        };
        Trace { steps: 2, kernels: vec![kernel("a"), kernel("b")] }
    }

    #[test]
    fn counters_are_held_against_traces() {
        let row = |name: &str| CounterRow { name: name.into(), baseline: 2, candidate: 1 };
        let rows = ["kernels", "flops", "bytes_moved", "allocations"].map(row);
        let found = corroboration(&rows, [&trace(4.0, Some(8.0)), &trace(3.0, None)]);
        assert_eq!(
            (found.shown.as_slice(), found.contradicted.as_slice()),
            (&["kernels".to_owned()][..], &["flops".to_owned()][..])
        );
        assert_eq!(found.unseen, ["bytes_moved", "allocations"]);
        assert!(found.to_string().contains("do not show it: flops"), "{}", found.to_string());
        assert!(corroboration(&rows[3..], [&trace(4.0, None); 2]).to_string().contains("own counters"));
    }
}

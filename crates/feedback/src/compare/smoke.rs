//! The 5-step test: whether a candidate trains at all, and whether a phase of its step got slow.
//!
//! Pure logic on runs that the caller has made, baseline and candidate alternately. Other load only ever
//! adds time, so a phase's time is the median over the steps of the *quickest* run at each step, not
//! the middle run. A slow phase counts when [`SmokeVerdict::unsettled`] is `None` or the time for
//! smoke is spent; until then one more run of each arm is added and all are judged together.

use std::{collections::BTreeMap, fmt};

use pairbench::Arm;
use serde::Serialize;

mod phases;

pub use self::phases::PhaseChange;

/// How a trainer's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
    /// The caller ended it after this many seconds.
    TimedOut(u64),
}

/// One run of the 5-step command.
#[derive(Clone, Debug, PartialEq)]
pub struct SmokeRun {
    /// How the process ended.
    pub ending: Ending,
    /// The last lines of its standard error.
    pub stderr_tail: String,
    /// The rows that it wrote, in order.
    pub rows: Vec<SmokeRow>,
}

/// The record of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct SmokeRow {
    /// Counted from 1.
    pub step: u64,
    /// `None` where the record has no value or `null`.
    pub loss: Option<f64>,
    /// As the loss.
    pub grad_norm: Option<f64>,
    /// Time of each phase; together they are the step.
    pub phases_ms: BTreeMap<String, f64>,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// No process, or no run at all.
    NotStarted,
    /// A signal killed it, or its exit code is not 0.
    Crashed,
    /// The same, and its last words say that memory ran out.
    OutOfMemory,
    /// It did not end in time.
    TimedOut,
    /// The records are not those of the steps 1, 2, … up to the last.
    StepsMissing,
    /// A loss or grad norm that is not a finite number.
    NonFinite,
    /// A phase became slower than the three criteria allow.
    PhaseRegressed,
}

impl ProblemKind {
    /// Whether a trainer failed (exit code 1), as opposed to a gate that refused (4).
    pub fn is_failure(self) -> bool {
        !matches!(self, ProblemKind::NonFinite | ProblemKind::PhaseRegressed)
    }
}

/// Why the test failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The arm that shows it.
    pub arm: Arm,
    /// The run of that arm, counted from 1; `None` where it is about all of them.
    pub run: Option<usize>,
    /// Its kind.
    pub kind: ProblemKind,
    /// In words.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arm = self.arm.name();
        match self.run {
            Some(run) => write!(f, "{arm}, run {run}: {}", self.what),
            None => write!(f, "{arm}: {}", self.what),
        }
    }
}

/// The result of the 5-step test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SmokeVerdict {
    /// Whether there is no problem.
    pub passed: bool,
    /// Every problem, also of the baseline: nothing can be compared with a baseline that does not train.
    pub problems: Vec<Problem>,
    /// Every phase of both arms, the slowest first; empty without a baseline.
    pub phases: Vec<PhaseChange>,
    /// What was not checked, and why.
    pub notes: Vec<String>,
    /// What another run of each arm may decide; `None` where the runs agree or something failed.
    pub unsettled: Option<String>,
}

/// Judges runs of `steps` steps each; `None` as a baseline where none was accepted yet.
pub fn judge(steps: u64, baseline: Option<&[SmokeRun]>, candidate: &[SmokeRun]) -> SmokeVerdict {
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    let mut phases = Vec::new();
    let mut unsettled = None;
    if let Some(runs) = baseline {
        examine(Arm::Baseline, steps, runs, &mut problems);
    }
    examine(Arm::Candidate, steps, candidate, &mut problems);
    match baseline {
        None => notes.push("no baseline yet: that no phase got slower was not checked".to_owned()),
        Some(_) if !problems.is_empty() => notes.push("phases were not compared: not every run is whole".to_owned()),
        Some(_) if steps < 2 => {
            notes.push("phases were not compared: the first step is warm-up, and there is no other".to_owned());
        }
        Some(baseline) => match phases::compare(baseline, candidate) {
            None => notes.push("phases were not compared: the records have no times of phases".to_owned()),
            Some(comparison) => {
                problems.extend(comparison.phases.iter().filter(|phase| phase.regressed).map(|phase| Problem {
                    arm: Arm::Candidate,
                    run: None,
                    kind: ProblemKind::PhaseRegressed,
                    what: format!("{phase}, in a step of {:.3} ms", comparison.baseline_step_ms),
                }));
                unsettled = match problems.first() {
                    Some(problem) => Some(format!("whether it stays so: {problem}")),
                    None => comparison.disagreement,
                };
                phases = comparison.phases;
            }
        },
    }
    SmokeVerdict { passed: problems.is_empty(), problems, phases, notes, unsettled }
}

fn examine(arm: Arm, steps: u64, runs: &[SmokeRun], problems: &mut Vec<Problem>) {
    if runs.is_empty() {
        problems.push(Problem { arm, run: None, kind: ProblemKind::NotStarted, what: "there is no run".to_owned() });
    }
    for (index, run) in runs.iter().enumerate() {
        if let Some((kind, what)) = problem_of_ending(run).or_else(|| problem_of_rows(steps, &run.rows)) {
            problems.push(Problem { arm, run: Some(index + 1), kind, what });
        }
    }
}

fn problem_of_ending(run: &SmokeRun) -> Option<(ProblemKind, String)> {
    let after = match run.rows.last() {
        Some(row) => format!("after step {}", row.step),
        None => "before the first step".to_owned(),
    };
    let (kind, mut what) = match &run.ending {
        Ending::Exited(0) => return None,
        Ending::Exited(code) => (ProblemKind::Crashed, format!("ended with exit code {code} {after}")),
        // Other senders of SIGKILL are rare enough to name this one.
        Ending::Signalled(9) => {
            (ProblemKind::Crashed, format!("killed by signal 9 {after}, as the kernel does when memory runs out"))
        }
        Ending::Signalled(signal) => (ProblemKind::Crashed, format!("killed by signal {signal} {after}")),
        Ending::NotStarted(why) => (ProblemKind::NotStarted, format!("could not be started: {why}")),
        Ending::TimedOut(seconds) => (ProblemKind::TimedOut, format!("not done within {seconds} s, ended {after}")),
    };
    let tail = run.stderr_tail.trim_end();
    let said = tail.to_ascii_lowercase();
    let out_of_memory = ["out of memory", "memory allocation of", "cannot allocate memory", "bad_alloc"];
    let kind = match kind {
        ProblemKind::Crashed if out_of_memory.iter().any(|words| said.contains(words)) => ProblemKind::OutOfMemory,
        kind => kind,
    };
    if !tail.is_empty() {
        what.push('\n');
        what.push_str(tail);
    }
    Some((kind, what))
}

fn problem_of_rows(steps: u64, rows: &[SmokeRow]) -> Option<(ProblemKind, String)> {
    let finite = |value: Option<f64>| value.is_some_and(f64::is_finite);
    let bad = rows.iter().find(|row| !finite(row.loss) || !finite(row.grad_norm));
    if let Some(row) = bad {
        let what = if finite(row.loss) { "grad norm" } else { "loss" };
        return Some((ProblemKind::NonFinite, format!("the {what} of step {} is not a finite number", row.step)));
    }
    let found: Vec<u64> = rows.iter().map(|row| row.step).collect();
    let whole = found.len() as u64 == steps && found.iter().zip(1..).all(|(step, expected)| *step == expected);
    let what = || format!("ended with exit code 0, and its records are of the steps {found:?}, not of 1 to {steps}");
    (!whole).then(|| (ProblemKind::StepsMissing, what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64) -> SmokeRow {
        let phases_ms = [("fwd", 1.0), ("bwd", 2.0)].map(|(name, ms)| (name.to_owned(), ms));
        SmokeRow { step, loss: Some(4.0), grad_norm: Some(1.0), phases_ms: phases_ms.into() }
    }

    fn good() -> SmokeRun {
        SmokeRun { ending: Ending::Exited(0), stderr_tail: String::new(), rows: (1..=5).map(row).collect() }
    }

    fn only_problem(verdict: &SmokeVerdict) -> (Arm, Option<usize>, ProblemKind) {
        assert!(!verdict.passed);
        assert_eq!(verdict.problems.len(), 1, "{:?}", verdict.problems);
        let problem = &verdict.problems[0];
        (problem.arm, problem.run, problem.kind)
    }

    #[test]
    fn the_same_trainer_passes() {
        let runs = vec![good(); 3];
        let verdict = judge(5, Some(&runs), &runs);
        assert!(verdict.passed && verdict.unsettled.is_none() && verdict.notes.is_empty(), "{verdict:?}");
        let names: Vec<&str> = verdict.phases.iter().map(|phase| phase.phase.as_str()).collect();
        assert_eq!(names, ["bwd", "fwd"]);
    }

    #[test]
    fn without_a_baseline_it_says_what_was_not_checked() {
        let verdict = judge(5, None, &[good()]);
        assert!(verdict.passed);
        assert!(verdict.notes[0].contains("no baseline yet"));
        assert!(!judge(5, None, &[]).passed);
    }

    #[test]
    fn each_way_to_fail_is_named() {
        let killed = |ending, tail: &str| SmokeRun { ending, stderr_tail: tail.to_owned(), rows: vec![row(1)] };
        let with_rows = |rows: Vec<SmokeRow>| SmokeRun { rows, ..good() };
        let broken = |change: fn(&mut SmokeRow)| {
            let mut run = good();
            change(&mut run.rows[3]);
            run
        };
        let cases = [
            (killed(Ending::Exited(1), ""), ProblemKind::Crashed),
            (killed(Ending::Signalled(11), ""), ProblemKind::Crashed),
            (killed(Ending::Signalled(6), "memory allocation of 80 bytes failed"), ProblemKind::OutOfMemory),
            (killed(Ending::Exited(1), "CUDA error: Out of memory\n"), ProblemKind::OutOfMemory),
            (killed(Ending::TimedOut(10), ""), ProblemKind::TimedOut),
            (killed(Ending::NotStarted("no such file".into()), ""), ProblemKind::NotStarted),
            (with_rows((1..5).map(row).collect()), ProblemKind::StepsMissing),
            (with_rows((1..=6).map(row).collect()), ProblemKind::StepsMissing),
            (with_rows([1, 2, 2, 4, 5].map(row).into()), ProblemKind::StepsMissing),
            (with_rows(Vec::new()), ProblemKind::StepsMissing),
            (broken(|row| row.loss = Some(f64::NAN)), ProblemKind::NonFinite),
            (broken(|row| row.loss = None), ProblemKind::NonFinite),
            (broken(|row| row.grad_norm = Some(f64::INFINITY)), ProblemKind::NonFinite),
        ];
        for (run, kind) in cases {
            let verdict = judge(5, Some(&[good(), good(), good()]), &[good(), run.clone(), good()]);
            assert_eq!(only_problem(&verdict), (Arm::Candidate, Some(2), kind));
            assert_eq!(verdict.unsettled, None, "a run more does not mend a failure");
            let verdict = judge(5, Some(&[run]), &[good()]);
            assert_eq!(only_problem(&verdict), (Arm::Baseline, Some(1), kind));
        }
    }

    #[test]
    fn a_failure_shows_what_the_trainer_said() {
        let run =
            SmokeRun { ending: Ending::Signalled(9), stderr_tail: "last words\n".into(), rows: vec![row(1), row(2)] };
        let text = judge(5, None, &[run]).problems[0].to_string();
        assert!(text.starts_with("candidate, run 1: killed by signal 9 after step 2"), "{text}");
        assert!(text.ends_with("\nlast words"), "{text}");
    }

    #[test]
    fn records_without_phases_are_said_to_be_unchecked() {
        let mut run = good();
        run.rows.iter_mut().for_each(|row| row.phases_ms.clear());
        let verdict = judge(5, Some(&[run.clone()]), &[run]);
        assert!(verdict.passed && verdict.notes[0].contains("no times of phases"), "{verdict:?}");
    }
}

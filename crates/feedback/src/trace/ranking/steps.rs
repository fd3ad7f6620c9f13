//! A step as a sum of parts: the mean of each kernel over the processes, and the time that no kernel covers.
//!
//! A process counts once, however many steps it traced. Its step is the recorded wall time; where
//! that is missing in one process, or less than its kernels together, the step is the kernels' sum.

use std::collections::BTreeMap;

use super::{Kernel, REST, Share, TracedRun, share_interval};
use crate::LoopError;

pub(super) struct Steps<'a> {
    runs: &'a [TracedRun],
    /// Time of a step of each run.
    wholes_ms: Vec<f64>,
    pub(super) notes: Vec<String>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(runs: &'a [TracedRun]) -> Result<Steps<'a>, LoopError> {
        let no_time = || {
            LoopError::failed(format!("{} traced runs hold no time at all", runs.len()))
                .hint("trace the workload again: `[trace]` of `loop.toml` says how")
        };
        let mut notes = Vec::new();
        let kernels_ms: Vec<f64> = runs.iter().map(|run| per_step(run, |_| true)).collect();
        let steps_ms: Option<Vec<f64>> = runs.iter().map(|run| run.step_ms.filter(|ms| ms.is_finite())).collect();
        let wholes_ms: Vec<f64> = if let Some(steps_ms) = steps_ms {
            let over = |(step, kernels): (&f64, &f64)| *kernels > 1.03 * step;
            let count = steps_ms.iter().zip(&kernels_ms).filter(|pair| over(*pair)).count();
            if count > 0 {
                notes.push(format!(
                        "in {count} of {} processes the kernels take longer than the step: they overlap, or a time is wrong",
                        runs.len()
                    ));
            }
            steps_ms.iter().zip(&kernels_ms).map(|(step, kernels)| step.max(*kernels)).collect()
        } else {
            notes.push("no times of whole steps: shares are of the kernels together, the rest is unknown".into());
            kernels_ms
        };
        if runs.len() == 1 {
            notes.push("one process: how far the shares vary is unknown".to_owned());
        }
        let is_possible = |ms: &f64| ms.is_finite() && *ms > 0.0;
        if runs.is_empty() || !wholes_ms.iter().all(is_possible) {
            return Err(no_time());
        }
        if runs.iter().all(|run| run.trace.kernels.is_empty()) {
            notes.push("the traces name no kernels".to_owned());
        }
        Ok(Steps { runs, wholes_ms, notes })
    }

    pub(super) fn mean_step_ms(&self) -> f64 {
        self.wholes_ms.iter().sum::<f64>() / self.runs.len() as f64
    }

    /// Each kernel of any process, with the means of its totals in a step. A counter that one process
    /// lacks is unknown.
    pub(super) fn mean_kernels(&self) -> Vec<Kernel> {
        let mut means: BTreeMap<(&str, &str), Kernel> = BTreeMap::new();
        for run in self.runs {
            let scale = 1.0 / (run.trace.steps as f64 * self.runs.len() as f64);
            for kernel in &run.trace.kernels {
                let mean = means.entry((&kernel.phase, &kernel.name)).or_insert_with(|| Kernel {
                    time_ms: 0.0,
                    calls: Some(0.0),
                    flops: Some(0.0),
                    bytes: Some(0.0),
                    ..kernel.clone()
                });
                let add = |sum: Option<f64>, total: Option<f64>| sum.zip(total).map(|(sum, total)| sum + total * scale);
                mean.time_ms += kernel.time_ms * scale;
                mean.calls = add(mean.calls, kernel.calls);
                mean.flops = add(mean.flops, kernel.flops);
                mean.bytes = add(mean.bytes, kernel.bytes);
            }
        }
        means.into_values().collect()
    }

    /// The kernels that `is_part` picks, as a part of the step.
    pub(super) fn share(&self, name: &str, is_part: impl Fn(&Kernel) -> bool) -> Share {
        self.share_of(name, self.runs.iter().map(|run| per_step(run, &is_part)).collect())
    }

    /// The time that no kernel covers; none if there is none.
    pub(super) fn rest(&self) -> Option<Share> {
        let rests_ms: Vec<f64> = self
            .runs
            .iter()
            .zip(&self.wholes_ms)
            .map(|(run, whole)| (whole - per_step(run, |_| true)).max(0.0))
            .collect();
        rests_ms.iter().any(|ms| *ms > 0.0).then(|| self.share_of(REST, rests_ms))
    }

    /// The phases and the rest, the longest first.
    pub(super) fn phases(&self) -> Vec<Share> {
        let kernels = self.mean_kernels();
        let mut names: Vec<&str> = kernels.iter().map(|kernel| kernel.phase.as_str()).collect();
        names.dedup();
        let mut phases: Vec<Share> =
            names.into_iter().map(|name| self.share(name, |kernel| kernel.phase == name)).chain(self.rest()).collect();
        phases.sort_by(|a, b| b.time_ms.total_cmp(&a.time_ms));
        phases
    }

    fn share_of(&self, name: &str, parts_ms: Vec<f64>) -> Share {
        let time_ms = parts_ms.iter().sum::<f64>() / self.runs.len() as f64;
        let processes: Vec<(f64, f64)> = parts_ms.into_iter().zip(self.wholes_ms.iter().copied()).collect();
        Share {
            name: name.to_owned(),
            time_ms,
            share_pct: 100.0 * time_ms / self.mean_step_ms(),
            share_interval_pct: share_interval(&processes).map(|(low, high)| (100.0 * low, 100.0 * high)),
        }
    }
}

/// Time of the kernels that `is_part` picks in one step of a run.
fn per_step(run: &TracedRun, is_part: impl Fn(&Kernel) -> bool) -> f64 {
    let total: f64 = run.trace.kernels.iter().filter(|kernel| is_part(kernel)).map(|kernel| kernel.time_ms).sum();
    total / run.trace.steps as f64
}

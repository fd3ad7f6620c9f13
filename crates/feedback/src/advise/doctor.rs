//! What disturbs measurements on this machine, and what to do about it.
//!
//! [`Probes::take`] reads Linux's `/proc` and `/sys` twice, a while apart, and [`examine`] judges what
//! it read: rules are pure functions of text. Files that the system does not show are a finding of their own.
//! The doctor guesses at causes of noise; the self-test measures the noise.

use serde::Serialize;

mod gpu;
mod load;
mod memory;
mod parse;
mod probes;
mod processor;

pub use self::probes::Probes;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Makes measurements take longer, or resolve less.
    Warning,
    /// No measurement is worth much until it is fixed.
    Severe,
}

/// One thing that disturbs, or that the reader should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// What was found there.
    pub found: String,
    /// Why it matters for measurements.
    pub why_it_matters: &'static str,
    /// What to do.
    pub what_to_do: &'static str,
    /// How much it matters.
    pub severity: Severity,
}

type Rule = fn(&Probes) -> Option<Finding>;

const RULES: [&[Rule]; 5] = [&load::RULES, &processor::RULES, &memory::RULES, &gpu::RULES, &[unseen]];

/// All findings, the severest first.
pub fn examine(probes: &Probes) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.into_iter().flatten().filter_map(|rule| rule(probes)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn unseen(probes: &Probes) -> Option<Finding> {
    let looked_for = [
        ("load", "/proc/stat"),
        ("memory", "/proc/meminfo"),
        ("pressure", "/proc/pressure/memory"),
        ("frequency", "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"),
        ("throttling", "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"),
        ("clock source", probes::CLOCK_SOURCE),
    ];
    let unseen: Vec<&str> =
        looked_for.into_iter().filter(|(_, path)| probes.last.get(path).is_none()).map(|(name, _)| name).collect();
    (!unseen.is_empty()).then(|| Finding {
        what: "what could not be looked at",
        found: format!("this system does not show: {}", unseen.join(", ")),
        why_it_matters: "what is not seen may disturb all the same; a guest does not see its host",
        what_to_do: "trust the self-test, which measures the noise whatever its cause",
        severity: Severity::Info,
    })
}

#[cfg(test)]
mod tests;

//! Other load on this machine.

use super::{Finding, Probes, Rule, Severity, parse};

pub(super) const RULES: [Rule; 6] = [steal, load, pressure_of_disks, quota, affinity, autogroup];

/// Difference of the ticks between the two snapshots: busy, stolen, all.
fn ticks(probes: &Probes) -> Option<(f64, f64, f64)> {
    let of = |text: Option<&str>| text.and_then(parse::cpu_ticks);
    let (first, last) = (of(probes.first.get("/proc/stat"))?, of(probes.last.get("/proc/stat"))?);
    let difference = |first: u64, last: u64| last.saturating_sub(first) as f64;
    let total = difference(first.total, last.total);
    (total > 0.0).then(|| (difference(first.busy, last.busy), difference(first.steal, last.steal), total))
}

fn steal(probes: &Probes) -> Option<Finding> {
    let (_, steal, total) = ticks(probes)?;
    let pct = 100.0 * steal / total;
    (pct >= 1.0).then(|| Finding {
        what: "steal time",
        found: format!("{pct:.1} % of the processors' time went to other guests"),
        why_it_matters: "the host takes the processor away in the middle of steps, from one trainer or the other",
        what_to_do: "measure at a quieter time, or on a machine with processors of its own; a longer budget helps",
        severity: if pct >= 5.0 { Severity::Severe } else { Severity::Warning },
    })
}

fn load(probes: &Probes) -> Option<Finding> {
    let (busy, _, total) = ticks(probes)?;
    let processors = busy / total * probes.machine.cores as f64;
    let others: Vec<String> =
        busiest(probes, total).into_iter().map(|(name, share)| format!("{name} {share:.2}")).collect();
    let by = if others.is_empty() { String::new() } else { format!(": {}", others.join(", ")) };
    (processors >= 0.1).then(|| Finding {
        what: "other load",
        found: format!("{processors:.2} of {} processors are busy{by}", probes.machine.cores),
        why_it_matters: "other processes take processors, caches and memory bandwidth from whoever has its turn",
        what_to_do: "end or pause them, or wait until they are done",
        severity: if processors >= 0.5 { Severity::Severe } else { Severity::Warning },
    })
}

/// The three processes other than this one that computed most, with the processors that they used.
fn busiest(probes: &Probes, total_ticks: f64) -> Vec<(String, f64)> {
    let own = std::process::id().to_string();
    let mut processes: Vec<(String, f64)> = probes
        .last
        .matching("/proc/", "/stat")
        .filter(|(pid, _)| *pid != own)
        .filter_map(|(pid, text)| {
            let (name, last) = parse::process_ticks(text)?;
            let before = probes.first.get(&format!("/proc/{pid}/stat")).and_then(parse::process_ticks);
            let first = before.map_or(0, |(_, ticks)| ticks);
            let processors = last.saturating_sub(first) as f64 / total_ticks * probes.machine.cores as f64;
            (processors >= 0.02).then(|| (format!("{name} ({pid})"), processors))
        })
        .collect();
    processes.sort_by(|a, b| b.1.total_cmp(&a.1));
    processes.truncate(3);
    processes
}

fn pressure_of_disks(probes: &Probes) -> Option<Finding> {
    let pct = parse::pressure_pct(probes.last.get("/proc/pressure/io")?)?;
    (pct >= 10.0).then(|| Finding {
        what: "disks",
        found: format!("in {pct:.0} % of the last 10 s something waited for a disk"),
        why_it_matters: "records, checkpoints and data of a trainer wait too",
        what_to_do: "wait until copies, builds or backups are done",
        severity: Severity::Warning,
    })
}

/// The tightest limit of the control groups, in processors.
fn allowed_processors(probes: &Probes) -> Option<f64> {
    let of_version_2 = probes.last.matching("", "/cpu.max").filter_map(|(_, text)| parse::cpu_max(text));
    let of_version_1 = probes
        .last
        .matching("", "/cpu.cfs_quota_us")
        .filter_map(|(group, quota)| parse::processors(quota, probes.last.get(&format!("{group}/cpu.cfs_period_us"))?));
    of_version_2.chain(of_version_1).min_by(f64::total_cmp)
}

fn quota(probes: &Probes) -> Option<Finding> {
    let allowed = allowed_processors(probes)?;
    (allowed < probes.machine.cores as f64).then(|| Finding {
        what: "quota of the control group",
        found: format!("{allowed:.2} of {} processors are allowed", probes.machine.cores),
        why_it_matters: "who uses up the quota is stopped until the next period begins, for tens of milliseconds",
        what_to_do: "lift the limit (`cpu.max`, or the container's), or train with fewer threads than it allows",
        severity: Severity::Warning,
    })
}

fn affinity(probes: &Probes) -> Option<Finding> {
    let status = probes.last.get("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let allowed = parse::list_len(list)?;
    (allowed < probes.machine.cores as u64).then(|| Finding {
        what: "processors of this process",
        found: format!("it may run on {allowed} of {}", probes.machine.cores),
        why_it_matters: "trainers inherit it; more threads than processors take turns with each other",
        what_to_do: "leave it, if it was meant to keep other load away",
        severity: Severity::Info,
    })
}

fn autogroup(probes: &Probes) -> Option<Finding> {
    (probes.last.get("/proc/sys/kernel/sched_autogroup_enabled")? == "1").then(|| Finding {
        what: "autogroup",
        found: "processes are scheduled by session".to_owned(),
        why_it_matters: "`nice` of a process in another session does not make it yield to a trainer",
        what_to_do: "end other load rather than making it nice",
        severity: Severity::Info,
    })
}

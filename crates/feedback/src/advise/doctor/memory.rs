//! Memory, its layout, and the disk.

use super::{Finding, Probes, Rule, Severity, parse, probes::Disk};

pub(super) const RULES: [Rule; 7] = [swapping, swap, pressure, little, disk, huge_pages, layout];

const MIB: u64 = 1 << 20;

fn swapping(probes: &Probes) -> Option<Finding> {
    let pages =
        |text: Option<&str>| Some(parse::value(text?, "pswpin")?.saturating_add(parse::value(text?, "pswpout")?));
    let (first, last) = (pages(probes.first.get("/proc/vmstat"))?, pages(probes.last.get("/proc/vmstat"))?);
    (last > first).then(|| Finding {
        what: "swapping",
        found: format!("{} pages were moved to or from the disk just now", last - first),
        why_it_matters: "a step that waits for its memory is not the trainer's step",
        what_to_do: "free memory, or make the workload smaller",
        severity: Severity::Severe,
    })
}

fn swap(probes: &Probes) -> Option<Finding> {
    let bytes = |key| parse::memory_bytes(probes.last.get("/proc/meminfo")?, key);
    let used = bytes("SwapTotal")?.saturating_sub(bytes("SwapFree")?);
    (used > 0).then(|| Finding {
        what: "swap",
        found: format!("{} MiB are in use", used / MIB),
        why_it_matters: "memory was short before, and what lies there comes back at an unknown time",
        what_to_do: "`sudo swapoff -a` while measuring, if memory suffices",
        severity: Severity::Info,
    })
}

fn pressure(probes: &Probes) -> Option<Finding> {
    let pct = parse::pressure_pct(probes.last.get("/proc/pressure/memory")?)?;
    (pct >= 1.0).then(|| Finding {
        what: "memory pressure",
        found: format!("in {pct:.0} % of the last 10 s something waited for memory"),
        why_it_matters: "the kernel takes pages away from whoever computes, to give them to others",
        what_to_do: "end what holds much memory, or raise the limit of the control group",
        severity: if pct >= 10.0 { Severity::Severe } else { Severity::Warning },
    })
}

fn little(probes: &Probes) -> Option<Finding> {
    let bytes = |key| parse::memory_bytes(probes.last.get("/proc/meminfo")?, key);
    let (total, available) = (bytes("MemTotal")?, bytes("MemAvailable")?);
    (available < total / 10 || available < 512 * MIB).then(|| Finding {
        what: "free memory",
        found: format!("{} of {} MiB", available / MIB, total / MIB),
        why_it_matters: "in turns, both trainers are in memory at once",
        what_to_do: "end what holds much memory",
        severity: Severity::Warning,
    })
}

fn disk(probes: &Probes) -> Option<Finding> {
    let Disk { free_bytes, total_bytes } = probes.disk?;
    (free_bytes < 1024 * MIB).then(|| Finding {
        what: "free disk space",
        found: format!("{} of {} MiB where builds and records lie", free_bytes / MIB, total_bytes / MIB),
        why_it_matters: "a build or a run that cannot write fails, late",
        what_to_do: "free some",
        severity: if free_bytes < 100 * MIB { Severity::Severe } else { Severity::Warning },
    })
}

fn huge_pages(probes: &Probes) -> Option<Finding> {
    probes.last.get("/sys/kernel/mm/transparent_hugepage/enabled")?.contains("[never]").then(|| Finding {
        what: "huge pages",
        found: "off".to_owned(),
        why_it_matters: "large buffers lie in small pages, and their speed depends on where those happen to be",
        what_to_do: "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled`",
        severity: Severity::Info,
    })
}

fn layout(probes: &Probes) -> Option<Finding> {
    (probes.last.get("/proc/sys/kernel/randomize_va_space")? == "0").then(|| Finding {
        what: "address space layout",
        found: "the same in every process".to_owned(),
        why_it_matters: "a layout that happens to suit one build looks like a gain; fresh processes cannot average it",
        what_to_do: "`echo 2 | sudo tee /proc/sys/kernel/randomize_va_space`",
        severity: Severity::Info,
    })
}

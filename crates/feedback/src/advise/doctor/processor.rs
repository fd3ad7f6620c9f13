//! How steadily the processor runs.

use super::{
    Finding, Probes, Rule, Severity,
    probes::{CLOCK_SOURCE, CPUFREQ, POWER_SUPPLY, Snapshot},
};

pub(super) const RULES: [Rule; 8] =
    [battery, throttling, governor, frequency_limit, turbo, clock_source, threads_of_a_core, hypervisor];

/// Clocks that a process reads without entering the kernel.
const QUICK_CLOCKS: [&str; 8] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "xen",
    "arch_sys_counter",
    "riscv_clocksource",
    "timebase",
    "stable_counter",
];

fn battery(probes: &Probes) -> Option<Finding> {
    let discharging = probes.last.matching(POWER_SUPPLY, "/type").any(|(name, kind)| {
        let status = probes.last.get(&format!("{POWER_SUPPLY}{name}/status"));
        kind == "Battery" && status == Some("Discharging")
    });
    discharging.then(|| Finding {
        what: "power",
        found: "the machine runs on its battery".to_owned(),
        why_it_matters: "the processor is slowed down to save power, more so as the battery empties",
        what_to_do: "plug it in",
        severity: Severity::Severe,
    })
}

fn throttling(probes: &Probes) -> Option<Finding> {
    let count = |snapshot: &Snapshot| {
        let counts = snapshot.matching("/sys/devices/system/cpu/cpu", "/thermal_throttle/core_throttle_count");
        counts.filter_map(|(_, count)| count.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    let (first, last) = (count(&probes.first), count(&probes.last));
    let is_rising = last > first;
    (last > 0).then(|| Finding {
        what: "temperature",
        found: if is_rising {
            "the processor is being slowed down because it is too hot".to_owned()
        } else {
            format!("the processor was slowed down {last} times since the system began, because it was too hot")
        },
        why_it_matters: "speed then depends on what ran before",
        what_to_do: "cool it better, or train with fewer threads",
        severity: if is_rising { Severity::Severe } else { Severity::Info },
    })
}

fn governor(probes: &Probes) -> Option<Finding> {
    let mut others: Vec<&str> = probes
        .last
        .matching(CPUFREQ, "/scaling_governor")
        .map(|(_, governor)| governor)
        .filter(|governor| *governor != "performance")
        .collect();
    others.sort_unstable();
    others.dedup();
    (!others.is_empty()).then(|| Finding {
        what: "frequency governor",
        found: format!("`{}`", others.join("`, `")),
        why_it_matters: "the frequency follows the load: a trainer that wakes up for its turn begins slowly",
        what_to_do: "`sudo cpupower frequency-set -g performance` while measuring",
        severity: Severity::Warning,
    })
}

fn frequency_limit(probes: &Probes) -> Option<Finding> {
    let limits: Vec<(u64, u64)> = probes
        .last
        .matching(CPUFREQ, "/scaling_max_freq")
        .filter_map(|(policy, limit)| {
            let most = probes.last.get(&format!("{CPUFREQ}{policy}/cpuinfo_max_freq"))?;
            Some((limit.parse().ok()?, most.parse().ok()?))
        })
        .collect();
    let (limit, most) = limits.into_iter().find(|(limit, most)| limit < most)?;
    Some(Finding {
        what: "frequency limit",
        found: format!("{} of {} MHz are allowed", limit / 1000, most / 1000),
        why_it_matters: "steady, but not the machine that others measure on; power profiles change it unasked",
        what_to_do: "leave it if it is meant; else choose the power profile `performance`",
        severity: Severity::Info,
    })
}

fn turbo(probes: &Probes) -> Option<Finding> {
    let is_on = match probes.last.get("/sys/devices/system/cpu/intel_pstate/no_turbo") {
        Some(no_turbo) => no_turbo == "0",
        None => probes.last.get("/sys/devices/system/cpu/cpufreq/boost")? == "1",
    };
    is_on.then(|| Finding {
        what: "turbo",
        found: "on".to_owned(),
        why_it_matters: "the frequency depends on temperature and on how many cores are busy; turns share that evenly",
        what_to_do: "leave it with turns; turn it off for trainers that cannot take turns",
        severity: Severity::Info,
    })
}

fn clock_source(probes: &Probes) -> Option<Finding> {
    let source = probes.last.get(CLOCK_SOURCE)?;
    (!QUICK_CLOCKS.contains(&source)).then(|| Finding {
        what: "clock",
        found: format!("`{source}`"),
        why_it_matters: "each reading of the time enters the kernel, and a traced step has many",
        what_to_do: "find out why the kernel gave up its quicker clock (`dmesg | grep -i clocksource`)",
        severity: Severity::Warning,
    })
}

fn threads_of_a_core(probes: &Probes) -> Option<Finding> {
    (probes.last.get("/sys/devices/system/cpu/smt/active")? == "1").then(|| Finding {
        what: "hyper-threading",
        found: "two threads of a core count as two processors".to_owned(),
        why_it_matters: "a thread is slower while the other one of its core is busy, also with another's work",
        what_to_do: "train with as many threads as there are cores",
        severity: Severity::Info,
    })
}

fn hypervisor(probes: &Probes) -> Option<Finding> {
    let name = probes.machine.virtualisation.as_ref()?;
    Some(Finding {
        what: "virtual machine",
        found: format!("a guest of {name}"),
        why_it_matters: "other guests share caches, memory bandwidth and often cores, which no counter here shows",
        what_to_do: "compare in turns; distrust sequential runs",
        severity: Severity::Info,
    })
}

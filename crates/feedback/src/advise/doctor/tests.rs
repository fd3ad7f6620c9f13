//! Each rule on a quiet machine with one disturbance, and on a machine that shows nothing.

use proptest::prelude::*;

use super::{probes::Disk, *};
use crate::machine::Machine;

const GOVERNOR: &str = "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor";
const THROTTLED: &str = "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
const STAT: &str = "/proc/stat";

/// Ticks: busy, idle, steal.
fn stat(busy: u64, idle: u64, steal: u64) -> String {
    format!("cpu  {busy} 0 0 {idle} 0 0 0 {steal} 0 0")
}

fn process(name: &str, ticks: u64) -> String {
    format!("7 ({name}) S 1 7 7 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5 0")
}

/// A machine with four processors on which nothing disturbs; 400 ticks lie between the snapshots.
fn quiet() -> Probes {
    let mut probes = Probes { machine: Machine { cores: 4, ..Machine::default() }, ..Probes::default() };
    let texts = [
        ("/proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nSwapTotal: 100 kB\nSwapFree: 100 kB"),
        ("/proc/vmstat", "pswpin 5\npswpout 5"),
        ("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"),
        ("/proc/pressure/io", "some avg10=1.00 avg60=0.00 avg300=0.00 total=0"),
        ("/proc/self/status", "Name: a\nCpus_allowed_list:\t0-3"),
        ("/proc/sys/kernel/randomize_va_space", "2"),
        ("/proc/sys/kernel/sched_autogroup_enabled", "0"),
        ("/sys/devices/system/cpu/cpufreq/boost", "0"),
        ("/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq", "3000000"),
        ("/sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq", "3000000"),
        ("/sys/devices/system/cpu/smt/active", "0"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
        ("/sys/fs/cgroup/cpu.max", "max 100000"),
        ("/sys/class/power_supply/BAT0/type", "Battery"),
        ("/sys/class/power_supply/BAT0/status", "Charging"),
        ("/proc/7/stat", &process("idler", 10)),
        (probes::CLOCK_SOURCE, "tsc"),
        (GOVERNOR, "performance"),
        (THROTTLED, "0"),
    ];
    for (path, text) in texts {
        probes.first.insert(path, text);
        probes.last.insert(path, text);
    }
    probes.first.insert(STAT, &stat(1000, 1000, 1000));
    probes.last.insert(STAT, &stat(1004, 1396, 1000));
    probes.disk = Some(Disk { free_bytes: 50 << 30, total_bytes: 100 << 30 });
    probes
}

fn only(probes: &Probes) -> Finding {
    let findings = examine(probes);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.into_iter().next().unwrap()
}

#[test]
fn a_quiet_machine_has_no_findings() {
    assert_eq!(examine(&quiet()), []);
}

#[test]
fn each_rule_finds_its_disturbance() {
    let policy = "/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq";
    let little = "MemTotal: 8000000 kB\nMemAvailable: 700000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB";
    let swapped = "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nSwapTotal: 9000 kB\nSwapFree: 4000 kB";
    let cases: [(&str, &str, &str, Severity); 21] = [
        (STAT, &stat(1000, 1390, 1010), "steal time", Severity::Warning),
        (STAT, &stat(1000, 1360, 1040), "steal time", Severity::Severe),
        (STAT, &stat(1020, 1380, 1000), "other load", Severity::Warning),
        (STAT, &stat(1100, 1300, 1000), "other load", Severity::Severe),
        (GOVERNOR, "powersave", "frequency governor", Severity::Warning),
        (THROTTLED, "3", "temperature", Severity::Severe),
        (policy, "2000000", "frequency limit", Severity::Info),
        ("/sys/devices/system/cpu/cpufreq/boost", "1", "turbo", Severity::Info),
        ("/sys/devices/system/cpu/intel_pstate/no_turbo", "0", "turbo", Severity::Info),
        ("/sys/devices/system/cpu/smt/active", "1", "hyper-threading", Severity::Info),
        ("/sys/class/power_supply/BAT0/status", "Discharging", "power", Severity::Severe),
        (probes::CLOCK_SOURCE, "hpet", "clock", Severity::Warning),
        ("/sys/fs/cgroup/cpu.max", "150000 100000", "quota of the control group", Severity::Warning),
        ("/proc/self/status", "Cpus_allowed_list:\t0-1,3", "processors of this process", Severity::Info),
        ("/proc/sys/kernel/sched_autogroup_enabled", "1", "autogroup", Severity::Info),
        ("/proc/pressure/io", "some avg10=35.00 avg60=0 avg300=0 total=0", "disks", Severity::Warning),
        ("/proc/pressure/memory", "some avg10=2.00 avg60=0 avg300=0 total=0", "memory pressure", Severity::Warning),
        ("/proc/meminfo", little, "free memory", Severity::Warning),
        ("/proc/meminfo", swapped, "swap", Severity::Info),
        ("/proc/vmstat", "pswpin 9\npswpout 5", "swapping", Severity::Severe),
        ("/proc/sys/kernel/randomize_va_space", "0", "address space layout", Severity::Info),
    ];
    for (path, text, what, severity) in cases {
        let mut probes = quiet();
        probes.last.insert(path, text);
        let finding = only(&probes);
        assert_eq!((finding.what, finding.severity), (what, severity));
    }
}

#[test]
fn what_is_not_a_text_of_the_system_is_found_too() {
    let mut probes = quiet();
    probes.disk = Some(Disk { free_bytes: 50 << 20, total_bytes: 100 << 30 });
    assert_eq!((only(&probes).what, only(&probes).severity), ("free disk space", Severity::Severe));
    let mut probes = quiet();
    probes.machine.virtualisation = Some("QEMU".into());
    assert_eq!(only(&probes).found, "a guest of QEMU");
    let mut probes = quiet();
    probes.last.insert("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
    assert_eq!(only(&probes).what, "huge pages");
}

#[test]
fn other_load_is_named() {
    let mut probes = quiet();
    probes.last.insert(STAT, &stat(1100, 1300, 1000));
    probes.last.insert("/proc/7/stat", &process("compiler", 90));
    probes.last.insert("/proc/8/stat", &process("new", 20));
    probes.last.insert(&format!("/proc/{}/stat", std::process::id()), &process("doctor", 50));
    assert_eq!(only(&probes).found, "1.00 of 4 processors are busy: compiler (7) 0.80, new (8) 0.20");
}

#[test]
fn a_throttle_of_the_past_is_no_throttle_now() {
    let mut probes = quiet();
    probes.first.insert(THROTTLED, "3");
    probes.last.insert(THROTTLED, "3");
    assert_eq!(only(&probes).severity, Severity::Info);
}

#[test]
fn the_tightest_quota_counts() {
    let mut probes = quiet();
    probes.last.insert("/sys/fs/cgroup/a/cpu.max", "350000 100000");
    probes.last.insert("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000");
    probes.last.insert("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    assert_eq!(only(&probes).found, "0.50 of 4 processors are allowed");
    let mut unlimited = quiet();
    unlimited.last.insert("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
    unlimited.last.insert("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    assert_eq!(examine(&unlimited), []);
}

#[test]
fn the_severest_comes_first() {
    let mut probes = quiet();
    probes.last.insert("/sys/devices/system/cpu/smt/active", "1");
    probes.last.insert(GOVERNOR, "powersave");
    probes.last.insert(THROTTLED, "1");
    let severities: Vec<Severity> = examine(&probes).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Severe, Severity::Warning, Severity::Info]);
}

#[test]
fn a_system_that_shows_nothing_says_so() {
    let finding = only(&Probes::default());
    assert_eq!((finding.what, finding.severity), ("what could not be looked at", Severity::Info));
    assert!(finding.found.contains("load") && finding.found.contains("frequency"), "{}", finding.found);
}

proptest! {
    #[test]
    fn any_text_is_examined(first in "\\PC*|[0-9 .-]*", last in "\\PC*|[0-9 .-]*|cpu  [0-9 ]*", which in 0usize..40) {
        let mut probes = quiet();
        let paths: Vec<String> = probes.last.matching("", "").map(|(path, _)| path.to_owned()).collect();
        let path = &paths[which % paths.len()];
        probes.first.insert(path, &first);
        probes.last.insert(path, &last);
        for finding in examine(&probes) {
            prop_assert!(!finding.found.is_empty());
        }
    }
}

//! Files of the system, as text by path: read twice, because load, steal time and throttling are differences.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use pairbench::gpu::{GpuSample, Gpus};

use crate::machine::Machine;

pub(super) const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
pub(super) const CPUFREQ: &str = "/sys/devices/system/cpu/cpufreq/";
pub(super) const POWER_SUPPLY: &str = "/sys/class/power_supply/";

/// Files with fixed paths.
const PATHS: [&str; 20] = [
    "/proc/stat",
    "/proc/meminfo",
    "/proc/vmstat",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/self/status",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/sched_autogroup_enabled",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "/sys/devices/system/cpu/smt/active",
    "/sys/devices/system/node/online",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    CLOCK_SOURCE,
    // Control groups, version 1, of a container that sees itself as the root.
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
    "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us",
    "/sys/fs/cgroup/cpu.max",
];

/// Everything that the rules read.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    pub(super) machine: Machine,
    pub(super) first: Snapshot,
    pub(super) last: Snapshot,
    pub(super) disk: Option<Disk>,
    pub(super) gpus: Vec<GpuSample>,
}

/// Texts by path, without white space at the ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot(BTreeMap<String, String>);

/// Free space where the loop keeps its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) free_bytes: u64,
    pub(super) total_bytes: u64,
}

impl Probes {
    /// Reads everything twice, `interval` apart; half a second is enough to see a load of a few per cent.
    /// `state` is the folder where the loop keeps builds and records.
    pub fn take(interval: Duration, state: &Path) -> Probes {
        let first = Snapshot::read();
        thread::sleep(interval);
        let disk = statvfs(state).ok().map(|disk| {
            let bytes = |blocks: f64| (blocks * disk.fragment_size() as f64) as u64;
            Disk { free_bytes: bytes(disk.blocks_available() as f64), total_bytes: bytes(disk.blocks() as f64) }
        });
        let gpus = Gpus::of_this_machine().map(Gpus::sample).unwrap_or_default();
        Probes { machine: Machine::read(), first, last: Snapshot::read(), disk, gpus }
    }
}

impl Snapshot {
    fn read() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for path in PATHS {
            snapshot.add(Path::new(path));
        }
        for (folder, names) in [
            (CPUFREQ, &["scaling_governor", "scaling_max_freq", "cpuinfo_max_freq"][..]),
            (POWER_SUPPLY, &["type", "status"][..]),
            ("/sys/devices/system/cpu/", &["thermal_throttle/core_throttle_count"][..]),
            ("/proc/", &["stat"][..]),
        ] {
            let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            for entry in entries.filter(|entry| folder != "/proc/" || is_number(&entry.path())) {
                for name in names {
                    snapshot.add(&entry.path().join(name));
                }
            }
        }
        for path in quota_paths(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()) {
            snapshot.add(&path);
        }
        snapshot
    }

    fn add(&mut self, path: &Path) {
        let (Ok(bytes), Some(name)) = (fs::read(path), path.to_str()) else { return };
        self.insert(name, String::from_utf8_lossy(&bytes).trim());
    }

    pub(super) fn insert(&mut self, path: &str, text: &str) {
        self.0.insert(path.to_owned(), text.to_owned());
    }

    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Texts of the paths `prefix…suffix`, with what stands between.
    pub(super) fn matching<'a>(&'a self, prefix: &'a str, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(path, text)| {
            let between = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
            Some((between, text.as_str()))
        })
    }
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

/// Where the limits of this process's control groups stand: its own group's and those above it.
fn quota_paths(cgroup: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup".to_owned(), &["cpu.max"][..]),
            _ if controllers.split(',').any(|controller| controller == "cpu") => {
                (format!("/sys/fs/cgroup/{controllers}"), &["cpu.cfs_quota_us", "cpu.cfs_period_us"][..])
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        for ancestor in group.ancestors().take(64) {
            paths.extend(names.iter().map(|name| Path::new(&root).join(ancestor).join(name)));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_up_to_the_root() {
        let paths = quota_paths("4:memory:/a\n1:cpu,cpuacct:/b\n0::/user/one\nnonsense\n");
        let names: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us",
                "/sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_period_us",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us",
                "/sys/fs/cgroup/user/one/cpu.max",
                "/sys/fs/cgroup/user/cpu.max",
                "/sys/fs/cgroup/cpu.max",
            ]
        );
    }

    #[test]
    fn matching_gives_what_stands_between() {
        let mut snapshot = Snapshot::default();
        for path in ["/proc/1/stat", "/proc/22/stat", "/proc/22/comm"] {
            snapshot.insert(path, "text");
        }
        let found: Vec<_> = snapshot.matching("/proc/", "/stat").collect();
        assert_eq!(found, [("1", "text"), ("22", "text")]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_answers() {
        let probes = Probes::take(Duration::ZERO, Path::new("."));
        assert!(probes.last.get("/proc/stat").is_some_and(|text| text.starts_with("cpu ")));
        let own = format!("/proc/{}/stat", std::process::id());
        assert!(probes.first.get(&own).is_some());
        assert!(probes.disk.is_some_and(|disk| disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0));
    }
}

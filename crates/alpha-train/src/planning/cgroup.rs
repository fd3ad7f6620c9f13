//! Memory that the process's control groups leave it: its own group and those above, version 2 or 1.
//!
//! The kernel counts pages of files that have not been used for a while as used memory and gives them back when memory is
//! needed. Here they count as free (`inactive_file`; Linux, Documentation/admin-guide/cgroup-v2.rst, section "Memory").

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The names of a version's files.
struct Hierarchy {
    kind: &'static str,
    limit: &'static str,
    used: &'static str,
    given_back: &'static str,
}

const V2: Hierarchy =
    Hierarchy { kind: "cgroup2", limit: "memory.max", used: "memory.current", given_back: "inactive_file" };
const V1: Hierarchy = Hierarchy {
    kind: "cgroup",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    given_back: "total_inactive_file",
};

/// Version 1 writes the largest number there is where it has no limit.
const NO_LIMIT: usize = 1 << 60;

/// The least memory that any of the process's groups leaves; none where none has a limit.
pub(super) fn free() -> Option<usize> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    free_within(&groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo")))
}

/// A folder of a group, the topmost folder that can be seen, and the version.
type Group = (PathBuf, PathBuf, &'static Hierarchy);

/// The process's groups that count memory.
fn groups(memberships: &str, mounts: &str) -> Vec<Group> {
    // The usual folder of version 2, for systems that do not say where it is.
    let custom = PathBuf::from("/sys/fs/cgroup");
    let mut groups = vec![(custom.clone(), custom, &V2)];
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => &V2,
            controllers if controllers.split(',').any(|name| name == "memory") => &V1,
            _ => continue,
        };
        let Some((root, mount_point)) = mount_of(mounts, version) else { continue };
        // In a container the mount shows the container's group as its root, whatever the path says.
        let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        groups.push((mount_point.join(below), mount_point, version));
    }
    groups
}

/// Which part of a hierarchy is mounted, and where (proc(5), `/proc/pid/mountinfo`).
fn mount_of(mounts: &str, version: &Hierarchy) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
        let (root, mount_point) = (before.next()?, before.next()?);
        let kind = after.next()?;
        let counts_memory = kind == "cgroup2" || after.nth(1)?.split(',').any(|option| option == "memory");
        (kind == version.kind && counts_memory).then(|| (root.into(), mount_point.into()))
    })
}

fn free_within(groups: &[Group]) -> Option<usize> {
    let of_group = |(folder, top, version): &Group| {
        folder
            .ancestors()
            .take_while(|folder| folder.starts_with(top))
            .filter_map(|folder| free_in(folder, version))
            .min()
    };
    groups.iter().filter_map(of_group).min()
}

/// The memory that one group leaves; none where it has no limit.
fn free_in(folder: &Path, version: &Hierarchy) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<usize>().ok(); // `max` is not a number
    let limit = number(version.limit).filter(|limit| *limit < NO_LIMIT)?;
    let used = number(version.used)?;
    let stat = read("memory.stat").unwrap_or_default();
    let given_back =
        stat.lines().find_map(|line| line.strip_prefix(version.given_back)?.strip_prefix(' ')?.parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(given_back.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const MOUNTS_V1: &str = "31 23 0:27 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                             32 23 0:28 /docker/abc /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

    #[test]
    fn a_process_belongs_where_its_membership_says() {
        let of = |memberships: &str, mounts: &str| {
            groups(memberships, mounts)
                .into_iter()
                .skip(1)
                .map(|(folder, top, version)| (folder, top, version.kind))
                .collect::<Vec<_>>()
        };
        let system: PathBuf = "/sys/fs/cgroup".into();
        assert_eq!(
            of("0::/user.slice/job.scope\n", MOUNTS_V2),
            [("/sys/fs/cgroup/user.slice/job.scope".into(), system.clone(), "cgroup2")]
        );
        assert_eq!(of("0::/\n", ""), []);
        assert_eq!(groups("", "")[0].0, system);
        let memory: PathBuf = "/sys/fs/cgroup/memory".into();
        assert_eq!(
            of("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/step\n", MOUNTS_V1),
            [(memory.join("step"), memory.clone(), "cgroup")]
        );
        // A path of the host, which the container does not see.
        assert_eq!(of("4:memory:/other\n", MOUNTS_V1), [(memory.join(""), memory, "cgroup")]);
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_above_counts_and_page_cache_is_free() {
        let top = tempfile::tempdir().unwrap();
        let own = top.path().join("slice/job");
        let group = [(own.clone(), top.path().to_owned(), &V2)];
        write(&own, &[("memory.max", "max\n"), ("memory.current", "100\n")]);
        assert_eq!(free_within(&group), None);
        let slice =
            [("memory.max", "1000\n"), ("memory.current", "990\n"), ("memory.stat", "anon 90\ninactive_file 900\n")];
        write(&top.path().join("slice"), &slice);
        assert_eq!(free_within(&group), Some(910));
        write(&own, &[("memory.max", "500\n")]);
        assert_eq!(free_within(&group), Some(400));
        write(&own, &[("memory.current", "700\n")]);
        assert_eq!(free_within(&group), Some(0));
    }

    #[test]
    fn version_1_has_other_names() {
        let top = tempfile::tempdir().unwrap();
        let group = [(top.path().to_owned(), top.path().to_owned(), &V1)];
        let files = [
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.usage_in_bytes", "300"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 200\n"),
        ];
        write(top.path(), &files);
        assert_eq!(free_within(&group), None);
        write(top.path(), &[("memory.limit_in_bytes", "1000")]);
        assert_eq!(free_within(&group), Some(900));
    }
}

//! Control groups, version 2: a family of processes that the kernel freezes, counts and ends as one, even if members
//! left the process group. Where the user may not make control groups (no delegation, another system), families are
//! found through parents instead.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::process::before_exec;

/// Prefix of our groups' names; the number of the process that made the group and a count follow.
const PREFIX: &str = "alpha-loop-";
/// Longest wait for a killed group to be empty.
const SETTLE: Duration = Duration::from_secs(5);

/// The group of this process, in which it may make groups.
#[derive(Clone, Debug)]
pub(crate) struct CgroupRoot(PathBuf);

/// A control group for one family. Its members are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// Kept open: they are read and written in every turn.
    events: File,
    freeze: File,
    cpu: File,
    /// The folder itself, locked while the group is in use.
    _lock: File,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

impl CgroupRoot {
    /// Finds out whether groups can be made, frozen and entered here. Ends groups that killed loops have left.
    pub(crate) fn detect() -> Option<CgroupRoot> {
        let root = CgroupRoot(own_group()?);
        root.clean();
        let probe = root.make()?;
        let mut command = Command::new("true");
        before_exec::set(&mut command, Some(&probe)).ok()?;
        let enters = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let can_kill = probe.folder.join("cgroup.kill").exists();
        (can_kill && enters.is_ok_and(|status| status.success())).then_some(root)
    }

    /// A new group; none where it cannot be made.
    pub(crate) fn make(&self) -> Option<Cgroup> {
        // Another loop may find it in the moment before it is locked.
        (0..3).find_map(|_| self.try_make())
    }

    fn try_make(&self) -> Option<Cgroup> {
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = self.0.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Cgroup::open(folder.clone());
        if group.is_err() {
            // A group that cannot be used must not stay; if this fails, the next loop removes it.
            let _ = fs::remove_dir(&folder);
        }
        group.ok()
    }

    /// Ends and removes groups that no loop holds. The maker's process number alone does not show that it is gone,
    /// because a loop in another container has other numbers: the lock must be free too.
    fn clean(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
            let Some(maker) = maker.and_then(|maker| maker.parse::<u32>().ok()) else { continue };
            if !Path::new("/proc").join(maker.to_string()).exists() && is_let_go(&entry.path()) {
                end(&entry.path());
            }
        }
    }
}

impl Cgroup {
    fn open(folder: PathBuf) -> io::Result<Cgroup> {
        let file = |name: &str| File::open(folder.join(name));
        let (events, cpu) = (file("cgroup.events")?, file("cpu.stat")?);
        let freeze = File::options().write(true).open(folder.join("cgroup.freeze"))?;
        let lock = File::open(&folder)?;
        lock.lock_shared()?;
        Ok(Cgroup { folder, events, freeze, cpu, _lock: lock })
    }

    /// The file through which a process enters by writing 0.
    pub(crate) fn door(&self) -> io::Result<File> {
        File::options().write(true).open(self.folder.join("cgroup.procs"))
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops every member, and waits until all have stopped; false if they have not by `deadline`.
    pub(crate) fn freeze(&self, deadline: Instant) -> io::Result<bool> {
        self.freeze.write_all_at(b"1", 0)?;
        while !has_line(&read_counters(&self.events)?, "frozen 1") {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::yield_now();
        }
        Ok(true)
    }

    /// Lets every member run.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"0", 0)
    }

    /// Processor time of all members, including those that ended, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        let stat = read_counters(&self.cpu).ok()?;
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        micros.trim().parse::<u64>().ok().map(|micros| micros * 1000)
    }

    /// The current members.
    pub(crate) fn members(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Ends all members at once, frozen or not, and waits until they are gone.
    pub(crate) fn kill(&self) {
        kill(&self.folder);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        end(&self.folder);
    }
}

fn kill(folder: &Path) {
    // A group that is gone has no members.
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    let is_populated =
        || fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|events| has_line(&events, "populated 1"));
    let deadline = Instant::now() + SETTLE;
    while is_populated() && Instant::now() < deadline {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Ends the members of a group, and removes it.
fn end(folder: &Path) {
    kill(folder);
    // Zombies keep the group for a moment after they were killed.
    let deadline = Instant::now() + SETTLE;
    while fs::remove_dir(folder).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_micros(200));
    }
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

/// The first lines of a kernel file that is kept open: each read from its start returns the present values.
pub(crate) fn read_counters(file: &File) -> io::Result<String> {
    let mut bytes = [0; 512];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// The folder of the group that this process is in.
fn own_group() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    own_group_in(&mounts, &groups)
}

fn own_group_in(mounts: &str, groups: &str) -> Option<PathBuf> {
    // `36 35 98:0 /root /mount/point rw,noatime master:1 - cgroup2 cgroup2 rw`
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.split(' ').next() == Some("cgroup2")).then_some((root, point))
    })?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, point) = mount;
    // Inside a container the mount may show a part of the hierarchy only.
    let below = Path::new(group).strip_prefix(root).ok()?;
    let folder = Path::new(point).join(below);
    // The watchdog reads one name per line.
    let is_plain = folder.to_str().is_some_and(|text| !text.contains(char::is_whitespace));
    (is_plain && folder.is_dir()).then_some(folder)
}

/// Whether no process holds a group's lock.
fn is_let_go(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|folder| folder.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_its_makers_while_it_lives() {
        let Some(root) = CgroupRoot::detect() else { return };
        let group = root.make().unwrap();
        assert!(!is_let_go(group.folder()));
        let folder = group.folder().to_owned();
        let other = root.0.join(format!("{PREFIX}{}-let-go", u32::MAX));
        fs::create_dir(&other).unwrap();
        root.clean(); // like a loop that sees neither maker
        assert!(folder.exists() && !other.exists());
    }

    #[test]
    fn the_own_group_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().display();
        fs::create_dir_all(dir.path().join("user.slice/x")).unwrap();
        let mounts = format!(
            "24 1 0:22 / /sys rw shared:7 - sysfs sysfs rw\n30 24 0:26 / {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
        );
        let found = |groups: &str| own_group_in(&mounts, groups);
        assert_eq!(found("4:memory:/a\n0::/user.slice/x\n"), Some(dir.path().join("user.slice/x")));
        assert_eq!(found("0::/elsewhere\n"), None);
        assert_eq!(found("4:memory:/a\n"), None);
        assert_eq!(own_group_in("24 1 0:22 / /sys rw - sysfs sysfs rw\n", "0::/\n"), None);
    }

    #[test]
    fn a_family_is_frozen_counted_and_ended_as_one() {
        // Where no group can be made there is nothing to test.
        let Some(root) = CgroupRoot::detect() else { return };
        let group = root.make().unwrap();
        let script = "(setsid sh -c 'while :; do :; done' &) ; while :; do :; done";
        let mut command = Command::new("/bin/sh");
        before_exec::set(&mut command, Some(&group)).unwrap();
        let mut child = command.args(["-c", script]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while group.members().len() < 2 || group.cpu_ns() < Some(2_000_000) {
            assert!(Instant::now() < deadline, "{:?}", group.members());
            thread::yield_now();
        }
        assert!(group.freeze(deadline).unwrap());
        let before = group.cpu_ns().unwrap();
        // Frozen members use no processor time, however long this takes.
        thread::sleep(Duration::from_millis(20));
        assert!(group.cpu_ns().unwrap() - before < 1_000_000);
        group.kill();
        assert!(!child.wait().unwrap().success());
        let folder = group.folder().to_owned();
        drop(group);
        assert!(!folder.exists());
    }
}

//! A trainer's processes: started in their own group, frozen, thawed, watched, ended.
//!
//! A trainer and its children are its *family*. A control group freezes, counts and ends them all. Without control
//! groups, the process group is frozen, and processes that left it are found through their parents: behind walls all of
//! them descend from the first process, elsewhere the loop adopts orphans (it is a "subreaper") while trainers live.
//! Dropping a [`Process`] ends the whole family, stopped or not. If the loop itself is killed, the walls end what is
//! inside, and the watchdog ends the group (`watchdog.rs`).

pub mod before_exec;
mod cgroup;
pub mod command;
pub(crate) mod cpu_usage;
pub mod isolation;
pub mod sandbox;
pub(crate) mod stillness;
mod watchdog;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::{
    LoopError,
    process::{
        cgroup::Cgroup,
        isolation::{Isolation, Launch},
    },
};

/// Longest wait for a frozen process to stop, and for a killed one to be gone.
const SETTLE: Duration = Duration::from_secs(5);
/// Bytes at the end of a trainer's output that are read for a message.
const TAIL_BYTES: u64 = 4_000;
/// Bytes of a command's stdout that are read.
const STDOUT_BYTES: u64 = 16 << 20;
/// Lines of a trainer's last words that are shown.
const TAIL_LINES: usize = 12;

/// A running trainer and its family.
#[derive(Debug)]
pub struct Process {
    child: Child,
    leader: Pid,
    /// Known members beside the leader, in its group or not, and when each started: a process number that the system
    /// has reused is not signalled.
    family: BTreeMap<i32, u64>,
    /// Process groups of members that left the leader's.
    groups: BTreeSet<i32>,
    cgroup: Option<Cgroup>,
    has_walls: bool,
    exit: Option<ExitStatus>,
    outputs: Outputs,
}

/// The files that a process's output goes to.
#[derive(Clone, Debug)]
pub struct Outputs {
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
}

impl Outputs {
    /// Output files in `folder`.
    pub fn within(folder: &Path) -> Outputs {
        Outputs { stdout: folder.join("stdout.log"), stderr: folder.join("stderr.log") }
    }

    /// The content of stdout, at most its first 16 MiB.
    pub fn stdout(&self) -> String {
        part(&self.stdout, 0, STDOUT_BYTES)
    }

    /// For a message: the end of stderr, or of stdout if stderr is empty, indented under a heading.
    pub fn last_words(&self) -> String {
        let words = [&self.stderr, &self.stdout].into_iter().map(|path| tail(path)).find(|words| !words.is_empty());
        let Some(words) = words else { return "; it printed nothing".to_owned() };
        let lines: Vec<&str> = words.lines().rev().take(TAIL_LINES).collect();
        // Bubblewrap says this where it could not start the program.
        let plain = |line: &str| match line.strip_prefix("bwrap: execvp ") {
            Some(what) => format!("cannot start {what}"),
            None => line.to_owned(),
        };
        let lines: Vec<String> = lines.into_iter().rev().map(plain).collect();
        format!("; its last words:\n  {}", lines.join("\n  "))
    }
}

impl Process {
    /// Starts a command in its own process group, inside the walls; its output goes to files in `outputs`.
    pub fn spawn(launch: &Launch, isolation: &Isolation, outputs: &Path) -> Result<Process, LoopError> {
        let outputs = Outputs::within(outputs);
        let create = |path: &Path| fs::File::create(path).map_err(|error| LoopError::io("write", path, &error));
        let files = [create(&outputs.stdout)?.into(), create(&outputs.stderr)?.into()];
        Process::spawn_with(launch, isolation, outputs, files)
    }

    /// The same with this stdout and stderr, from where the output goes to `outputs` somehow.
    pub(crate) fn spawn_with(
        launch: &Launch,
        isolation: &Isolation,
        outputs: Outputs,
        [stdout, stderr]: [Stdio; 2],
    ) -> Result<Process, LoopError> {
        let name = launch.program.display().to_string();
        watchdog::ensure_running()?;
        let cgroup = isolation.cgroup();
        if let Some(cgroup) = &cgroup {
            watchdog::register(&cgroup.folder().display().to_string());
        }
        let spawn = || {
            let mut command = isolation.command(launch, cgroup.as_ref())?;
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0).spawn()
        };
        let child = spawn().map_err(|error| {
            LoopError::failed(format!("cannot start `{name}`: {error}"))
                .hint("is it among `build.artifacts` of `loop.toml`, and executable?")
        })?;
        watchdog::register(&child.id().to_string());
        let leader = Pid::from_raw(child.id() as i32);
        Ok(Process {
            child,
            leader,
            family: BTreeMap::new(),
            groups: BTreeSet::new(),
            cgroup,
            has_walls: isolation.has_walls(),
            exit: None,
            outputs,
        })
    }

    /// The first process.
    pub fn id(&self) -> u32 {
        self.leader.as_raw() as u32
    }

    /// Its exit status, if it has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            let exit = self.child.try_wait().ok().flatten();
            // Like a shell, bubblewrap reports the signal that ended the first process inside as 128 + signal.
            let signal =
                |exit: ExitStatus| exit.code().filter(|code| self.has_walls && *code > 128).map(|code| code - 128);
            self.exit = exit.map(|exit| signal(exit).map_or(exit, ExitStatus::from_raw));
        }
        self.exit
    }

    /// Waits for the end; none if it does not end in time.
    pub fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(exit) = self.try_exit() {
                return Some(exit);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// Looks for new members; true if one of them left the leader's group and neither walls nor a control group hold
    /// it.
    pub fn find_family(&mut self) -> bool {
        if let Some(cgroup) = &self.cgroup {
            for pid in cgroup.members().into_iter().filter(|pid| *pid != self.leader.as_raw()) {
                if let Some(start) = started(pid) {
                    self.family.insert(pid, start);
                }
            }
            return false;
        }
        let mut escaped = false;
        let mut open = vec![self.leader.as_raw()];
        let mut seen = BTreeSet::new();
        while let Some(pid) = open.pop() {
            for child in children(pid) {
                if seen.insert(child) {
                    open.push(child);
                }
            }
        }
        for pid in seen {
            escaped |= self.adopt(pid) && !self.is_in_group(pid);
        }
        escaped && !self.has_walls
    }

    /// Adds a process to the family, so that it is frozen and ended with the others; true if it is new.
    pub fn adopt(&mut self, pid: i32) -> bool {
        if let Ok(group) = nix::unistd::getpgid(Some(Pid::from_raw(pid)))
            && group != self.leader
            && group != nix::unistd::getpgrp()
            && self.groups.insert(group.as_raw())
        {
            watchdog::register(&group.to_string());
        }
        started(pid).is_some_and(|start| self.family.insert(pid, start) != Some(start))
    }

    /// Whether `pid` is known to belong to the family.
    pub fn owns(&self, pid: i32) -> bool {
        pid == self.leader.as_raw() || self.family.contains_key(&pid)
    }

    /// Stops every process of the family and waits until all have stopped.
    pub fn freeze(&mut self) -> Result<(), LoopError> {
        let deadline = Instant::now() + SETTLE;
        let failed = |leader: Pid| LoopError::failed(format!("process {leader} cannot be stopped"));
        if let Some(cgroup) = &self.cgroup {
            let is_still =
                cgroup.freeze(deadline).or_else(|error| if self.exit.is_some() { Ok(true) } else { Err(error) });
            let is_still = is_still.map_err(|error| LoopError::io("stop the processes of", cgroup.folder(), &error))?;
            return if is_still { Ok(()) } else { Err(failed(self.leader)) };
        }
        if self.has_walls {
            // Processes that start while the others are being stopped are found by looking again.
            loop {
                let known = self.family.len();
                self.signal(Signal::SIGSTOP);
                self.find_family();
                if self.family.len() == known {
                    break;
                }
            }
        } else {
            self.signal(Signal::SIGSTOP);
        }
        let members: Vec<i32> = if self.has_walls { self.members().collect() } else { vec![self.leader.as_raw()] };
        for pid in members {
            while !matches!(state(pid), Some('T' | 't' | 'Z' | 'X') | None) {
                if Instant::now() >= deadline {
                    return Err(failed(self.leader));
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Lets the family run.
    pub fn thaw(&mut self) {
        match &self.cgroup {
            // A control group that is gone has no processes to thaw.
            Some(cgroup) => drop(cgroup.thaw()),
            None => self.signal(Signal::SIGCONT),
        }
    }

    /// Processor time of the family so far, in nanoseconds. Without a control group, processes that have ended no
    /// longer count.
    pub fn cpu_ns(&self) -> u64 {
        let counted = self.cgroup.as_ref().and_then(Cgroup::cpu_ns);
        counted.unwrap_or_else(|| self.members().map(cpu_ns).sum())
    }

    /// Whether the kernel itself stops all members.
    pub fn is_held_by_kernel(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Sum of the peak resident memory of the leader and its known children, in bytes; none if it is not known.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let peaks: Vec<u64> = self.members().filter_map(peak_memory_bytes).collect();
        (!peaks.is_empty()).then(|| peaks.iter().sum())
    }

    /// Ends the whole family.
    pub fn kill(&mut self) {
        self.find_family();
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        self.signal(Signal::SIGKILL);
        let deadline = Instant::now() + SETTLE;
        let _ = self.wait(deadline);
        watchdog::unregister(&self.leader.to_string());
        // Processes that left the group are our orphans now; they have to be reaped.
        for pid in std::mem::take(&mut self.family).into_keys() {
            reap(pid, deadline);
        }
        for group in std::mem::take(&mut self.groups) {
            watchdog::unregister(&group.to_string());
        }
        if let Some(cgroup) = self.cgroup.take() {
            watchdog::unregister(&cgroup.folder().display().to_string());
        }
    }

    /// After its end: the name of a process of its family that still runs. Behind walls there is none: all end with the
    /// first process, or a moment later.
    pub fn survivor(&self) -> Option<String> {
        if self.has_walls {
            return None;
        }
        let is_alive =
            |(pid, start): &(&i32, &u64)| started(**pid) == Some(**start) && !matches!(state(**pid), Some('Z' | 'X'));
        self.family.iter().find(is_alive).map(|(pid, _)| program_name(*pid))
    }

    /// Its output.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    fn members(&self) -> impl Iterator<Item = i32> {
        let leader = self.exit.is_none().then(|| self.leader.as_raw());
        leader.into_iter().chain(self.family.keys().copied())
    }

    fn is_in_group(&self, pid: i32) -> bool {
        nix::unistd::getpgid(Some(Pid::from_raw(pid))) == Ok(self.leader)
    }

    fn signal(&self, signal: Signal) {
        // The system may have reused the number of a leader that was waited for, unless a member keeps the group.
        let keeps_group = |(pid, start): (&i32, &u64)| self.is_in_group(*pid) && started(*pid) == Some(*start);
        if self.exit.is_none() || self.family.iter().any(keeps_group) {
            let _ = killpg(self.leader, signal);
        }
        // A process that is gone needs no signal.
        for (pid, start) in &self.family {
            if !self.is_in_group(*pid) && started(*pid) == Some(*start) {
                let _ = kill(Pid::from_raw(*pid), signal);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of a file, as text.
fn tail(path: &Path) -> String {
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    part(path, length.saturating_sub(TAIL_BYTES), TAIL_BYTES).trim().to_owned()
}

/// At most `length` bytes of a file, as text; empty if it cannot be read. A trainer may print without end.
fn part(path: &Path, from: u64, length: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// When dropped, ends the processes that trainers left behind, however their run ended. It is made before they start.
/// Behind walls no process can stay; elsewhere this process is the parent of orphans as long as one of these values
/// exists, and only then: processes that are not a trainer's, such as an agent that git started to sign, are left
/// alone.
#[derive(Debug)]
pub struct ReapOrphansOnDrop {
    before: BTreeSet<i32>,
    adopts: bool,
}

impl ReapOrphansOnDrop {
    /// Starts to collect orphans.
    pub fn new(isolation: &Isolation) -> Result<ReapOrphansOnDrop, LoopError> {
        let adopts = !isolation.has_walls();
        if adopts {
            set_subreaper(true)?;
        }
        let before = if adopts { children(std::process::id() as i32).into_iter().collect() } else { BTreeSet::new() };
        Ok(ReapOrphansOnDrop { before, adopts })
    }

    /// Orphans that none of `known` owns: processes that left a trainer's group.
    pub fn orphans(&self, known: &[&Process]) -> Vec<i32> {
        if !self.adopts {
            return Vec::new();
        }
        let is_orphan = |pid: &i32| {
            !self.before.contains(pid)
                && !watchdog::is_watchdog(*pid)
                && !known.iter().any(|process| process.owns(*pid))
        };
        children(std::process::id() as i32).into_iter().filter(is_orphan).collect()
    }
}

/// Ends an orphan.
pub fn end_orphan(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    reap(pid, Instant::now() + SETTLE);
}

impl Drop for ReapOrphansOnDrop {
    fn drop(&mut self) {
        let deadline = Instant::now() + SETTLE;
        // Children of an orphan become ours only when it ends.
        while Instant::now() < deadline {
            let left = self.orphans(&[]);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(end_orphan);
        }
        if self.adopts {
            // Giving it up cannot fail where taking it succeeded.
            let _ = set_subreaper(false);
        }
    }
}

/// Whether this process becomes the parent of its descendants' orphans, so that they can be found and ended.
fn set_subreaper(on: bool) -> Result<(), LoopError> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(on)
        .map_err(|error| LoopError::failed(format!("cannot become the parent of orphans (prctl): {error}")))?;
    #[cfg(not(target_os = "linux"))]
    let _ = on;
    Ok(())
}

/// The working folder of `pid`.
pub fn working_folder(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The name of the program of `pid`.
pub fn program_name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

fn reap(pid: i32, deadline: Instant) {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(WaitStatus::StillAlive) = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        if Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processor time of one process with all its threads, in nanoseconds; 0 if it has ended.
fn cpu_ns(pid: i32) -> u64 {
    let time = clock_getcpuclockid(Pid::from_raw(pid)).and_then(|clock: ClockId| clock_gettime(clock));
    time.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// The state letter of a process: `R`, `S`, `T` for stopped, …
fn state(pid: i32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

/// When a process started, in clock ticks since boot.
fn started(pid: i32) -> Option<u64> {
    stat_field(pid, 19)?.parse().ok()
}

/// A field of `/proc/<pid>/stat`, counted from the one after the program's name, which may hold any character.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(index).map(str::to_owned)
}

fn peak_memory_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

//! A trainer's processes: started in a group of their own, frozen, thawed, watched, ended.
//!
//! A trainer may have children. A control group freezes, counts and ends them all; where there is none, those in its
//! process group are frozen with it, and those that left the group are found through their parents: behind walls all of
//! them descend from the first process, elsewhere the loop adopts orphans (it is a "subreaper") while trainers live.
//! Dropping a [`Process`] ends the whole family: nothing stays behind, stopped or not. Should the loop itself be killed,
//! the walls end what is inside, and a switch ends the group (`dead_man.rs`).

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

/// Longest wait for a frozen process to stand still, and for a killed one to be gone.
const SETTLE: Duration = Duration::from_secs(5);
/// Bytes of a trainer's last words that are shown.
const TAIL_BYTES: u64 = 4_000;
/// Bytes of a command's answer that are read.
const STDOUT_BYTES: u64 = 16 << 20;
/// Lines of them.
const TAIL_LINES: usize = 12;

/// A running trainer and its family.
#[derive(Debug)]
pub struct Process {
    child: Child,
    leader: Pid,
    /// Known members beside the leader, whether in its group or not, and when each began: a number
    /// that was given to another process since is not signalled.
    family: BTreeMap<i32, u64>,
    /// Groups of members that left the leader's.
    groups: BTreeSet<i32>,
    cgroup: Option<Cgroup>,
    has_walls: bool,
    exit: Option<ExitStatus>,
    outputs: Outputs,
}

/// Where a process's words go.
#[derive(Clone, Debug)]
pub struct Outputs {
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Outputs {
    /// Files in `folder`.
    pub fn within(folder: &Path) -> Outputs {
        Outputs { stdout: folder.join("stdout.log"), stderr: folder.join("stderr.log") }
    }

    /// What went to stdout; of more than 16 MiB the beginning.
    pub fn stdout(&self) -> String {
        part(&self.stdout, 0, STDOUT_BYTES)
    }

    /// The end of stderr, or of stdout where that is empty, indented under a heading; empty if both are.
    pub fn last_words(&self) -> String {
        let words = [&self.stderr, &self.stdout].into_iter().map(|path| tail(path)).find(|words| !words.is_empty());
        let Some(words) = words else { return "; it printed nothing".to_owned() };
        let lines: Vec<&str> = words.lines().rev().take(TAIL_LINES).collect();
        // The walls could not start it.
        let plain = |line: &str| match line.strip_prefix("bwrap: execvp ") {
            Some(what) => format!("cannot start {what}"),
            None => line.to_owned(),
        };
        let lines: Vec<String> = lines.into_iter().rev().map(plain).collect();
        format!("; its last words:\n  {}", lines.join("\n  "))
    }
}

impl Process {
    /// Starts a command in a process group of its own, inside the walls; what it prints goes to files in `outputs`.
    pub fn spawn(launch: &Launch, isolation: &Isolation, outputs: &Path) -> Result<Process, LoopError> {
        let name = launch.program.display().to_string();
        let outputs = Outputs::within(outputs);
        let create = |path: &Path| fs::File::create(path).map_err(|error| LoopError::io("write", path, &error));
        let (stdout, stderr) = (create(&outputs.stdout)?, create(&outputs.stderr)?);
        watchdog::arm()?;
        let cgroup = isolation.cgroup();
        if let Some(cgroup) = &cgroup {
            watchdog::tell('+', &cgroup.folder().display().to_string());
        }
        let spawn = || {
            let mut command = isolation.command(launch, cgroup.as_ref())?;
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0).spawn()
        };
        let child = spawn().map_err(|error| {
            LoopError::failed(format!("cannot start `{name}`: {error}"))
                .hint("is it among `build.artifacts` of `loop.toml`, and executable?")
        })?;
        watchdog::tell('+', &child.id().to_string());
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

    /// How it ended, if it has.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            let exit = self.child.try_wait().ok().flatten();
            // Bubblewrap says like a shell by which signal the first process inside ended.
            let signal =
                |exit: ExitStatus| exit.code().filter(|code| self.has_walls && *code > 128).map(|code| code - 128);
            self.exit = exit.map(|exit| signal(exit).map_or(exit, ExitStatus::from_raw));
        }
        self.exit
    }

    /// Waits for the end; none if it does not come in time.
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

    /// Looks for members that are not known yet; true if one of them left the leader's group and nothing else holds it.
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

    /// Takes a process in, so that it is frozen and ended with the others; true if it was not known.
    pub fn adopt(&mut self, pid: i32) -> bool {
        if let Ok(group) = nix::unistd::getpgid(Some(Pid::from_raw(pid)))
            && group != self.leader
            && group != nix::unistd::getpgrp()
            && self.groups.insert(group.as_raw())
        {
            watchdog::tell('+', &group.to_string());
        }
        started(pid).is_some_and(|start| self.family.insert(pid, start) != Some(start))
    }

    /// Whether `pid` is known to belong to it.
    pub fn owns(&self, pid: i32) -> bool {
        pid == self.leader.as_raw() || self.family.contains_key(&pid)
    }

    /// Stops every process of the family and waits until it stands still.
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
            // Who is born while the others are stopped is found by looking again.
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
            // A group that is gone has nobody to let run.
            Some(cgroup) => drop(cgroup.thaw()),
            None => self.signal(Signal::SIGCONT),
        }
    }

    /// Processor time of the family so far, in nanoseconds. Without a control group, processes that are gone no longer
    /// count.
    pub fn cpu_ns(&self) -> u64 {
        let counted = self.cgroup.as_ref().and_then(Cgroup::cpu_ns);
        counted.unwrap_or_else(|| self.members().map(cpu_ns).sum())
    }

    /// Whether the kernel itself holds all members still.
    pub fn is_held_by_kernel(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Largest resident memory of the leader and its known children together, in bytes; none if it cannot be told.
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
        watchdog::tell('-', &self.leader.to_string());
        // What left the group is an orphan of ours now; its remains have to be collected.
        for pid in std::mem::take(&mut self.family).into_keys() {
            reap(pid, deadline);
        }
        for group in std::mem::take(&mut self.groups) {
            watchdog::tell('-', &group.to_string());
        }
        if let Some(cgroup) = self.cgroup.take() {
            watchdog::tell('-', &cgroup.folder().display().to_string());
        }
    }

    /// After its end: the name of a process of its family that goes on. Behind walls none can: they end with the first
    /// process, at most a moment after it.
    pub fn survivor(&self) -> Option<String> {
        if self.has_walls {
            return None;
        }
        let is_alive =
            |(pid, start): &(&i32, &u64)| started(**pid) == Some(**start) && !matches!(state(**pid), Some('Z' | 'X'));
        self.family.iter().find(is_alive).map(|(pid, _)| program_name(*pid))
    }

    /// What it printed.
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
        // The number of a leader that was waited for may be somebody else's by now, unless a member keeps the group.
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

/// At most `length` bytes of a file, as text; nothing of one that cannot be read. A trainer may print without end.
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

/// Ends what trainers left behind when it is dropped, however their run ended: made before they start. Behind walls
/// nothing can stay; elsewhere this process is the parent of orphans as long as one of these lives, and only then: a
/// process of somebody else's, such as an agent that git started to sign, is left alone.
#[derive(Debug)]
pub struct ReapOrphansOnDrop {
    before: BTreeSet<i32>,
    adopts: bool,
}

impl ReapOrphansOnDrop {
    /// From here on orphans are found.
    pub fn new(isolation: &Isolation) -> Result<ReapOrphansOnDrop, LoopError> {
        let adopts = !isolation.has_walls();
        if adopts {
            set_subreaper(true)?;
        }
        let before = if adopts { children(std::process::id() as i32).into_iter().collect() } else { BTreeSet::new() };
        Ok(ReapOrphansOnDrop { before, adopts })
    }

    /// Orphans that none of `known` owns: a trainer's that wanted out of its group.
    pub fn orphans(&self, known: &[&Process]) -> Vec<i32> {
        if !self.adopts {
            return Vec::new();
        }
        let is_orphan = |pid: &i32| {
            !self.before.contains(pid) && !watchdog::is(*pid) && !known.iter().any(|process| process.owns(*pid))
        };
        children(std::process::id() as i32).into_iter().filter(is_orphan).collect()
    }
}

/// Ends a process that belongs to nobody.
pub fn end_orphan(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    reap(pid, Instant::now() + SETTLE);
}

impl Drop for ReapOrphansOnDrop {
    fn drop(&mut self) {
        let deadline = Instant::now() + SETTLE;
        // The children of one that is ended become ours only then.
        while Instant::now() < deadline {
            let left = self.orphans(&[]);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(end_orphan);
        }
        if self.adopts {
            // What was allowed a moment ago can be given up.
            let _ = set_subreaper(false);
        }
    }
}

/// Makes this process the parent of its descendants' orphans, so that they can be found and ended, or no longer.
fn set_subreaper(on: bool) -> Result<(), LoopError> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_child_subreaper(on)
        .map_err(|error| LoopError::failed(format!("cannot become the parent of orphans (prctl): {error}")))?;
    #[cfg(not(target_os = "linux"))]
    let _ = on;
    Ok(())
}

/// The folder that `pid` works in.
pub fn working_folder(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The name of the program that `pid` runs.
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

/// Processor time of one process with all its threads, in nanoseconds; 0 if it is gone.
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

/// When a process began, in clock ticks since the machine did.
fn started(pid: i32) -> Option<u64> {
    stat_field(pid, 19)?.parse().ok()
}

/// A field of `/proc/<pid>/stat`, counted from the one after the program's name, which may hold anything.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 1..)?.split_whitespace().nth(index).map(str::to_owned)
}

fn peak_memory_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

//! Runs a build command: for a limited time, in a process group that does not outlive the loop.
//!
//! The group's leader is a guard, a shell that waits on a pipe. When this process dies, for whatever reason, the pipe
//! closes and the guard kills the group: a surviving build would write into the stage while the next loop builds there.
//! Until we reap the guard, the system cannot reuse the group's number.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::Environment;
use pairbench::process::before_exec;

use crate::{LoopError, Progress};

const GUARD: &str = "trap '' HUP INT TERM; read -r line; kill -KILL 0";

/// Time from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Longest wait for a killed group to be gone.
const SETTLE: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(5);

/// Time between two signs of life of a build.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 64 << 10;

/// How a build command ended.
pub(super) struct Ended {
    how: How,
    seconds: f64,
    /// Whether its first process ended without being killed. If not, files may be half written.
    pub(super) is_orderly: bool,
}

enum How {
    NotStarted(LoopError),
    Exit(ExitStatus),
    TimedOut,
    Stopped,
}

/// A build command that is ready to run.
pub(super) struct BuildCommand<'a> {
    /// The program and its arguments, with the walls around them.
    pub(super) words: &'a [String],
    /// Where it runs: the root of the tree.
    pub(super) folder: &'a Path,
    /// Its whole environment.
    pub(super) environment: &'a Environment,
    /// Where its output goes.
    pub(super) log: &'a Path,
    /// The time after which it is killed.
    pub(super) timeout: Duration,
}

impl BuildCommand<'_> {
    /// Runs the command. Afterwards no process of its group is left.
    pub(super) fn run(&self, progress: &dyn Progress) -> Result<Ended, LoopError> {
        let mut command = self.command()?;
        let group = Group::start()?;
        let began = Instant::now();
        let spawned = before_exec::give_up_inherited(&mut command)
            .and_then(|()| command.process_group(group.leader.as_raw()).spawn());
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let error = LoopError::failed(format!("cannot start `{}`: {error}", self.words[0]))
                    .hint("`build.command` of `loop.toml` is run in the root of a checkout of what git tracks");
                return Ok(Ended { how: How::NotStarted(error), seconds: 0.0, is_orderly: true });
            }
        };
        let mut next_sign = SIGN_OF_LIFE;
        let how = loop {
            if let Some(exit) = ended(&mut child)? {
                break How::Exit(exit);
            }
            if progress.is_stop_requested() {
                break How::Stopped;
            }
            if began.elapsed() >= self.timeout {
                break How::TimedOut;
            }
            if began.elapsed() >= next_sign {
                progress.note(&sign_of_life(next_sign, self.log));
                next_sign += SIGN_OF_LIFE;
            }
            thread::sleep(POLL);
        };
        let seconds = began.elapsed().as_secs_f64();
        // The system may have killed it, too.
        let mut is_orderly = matches!(&how, How::Exit(exit) if exit.code().is_some());
        if !matches!(how, How::Exit(_)) {
            group.signal(Signal::SIGTERM);
            let deadline = Instant::now() + GRACE;
            while !is_orderly && Instant::now() < deadline {
                is_orderly = ended(&mut child)?.is_some();
                thread::sleep(POLL);
            }
        }
        drop(group);
        let _ = child.wait(); // killed with its group, if it was still there
        Ok(Ended { how, seconds, is_orderly })
    }

    /// The command, with its folder, environment and log.
    fn command(&self) -> Result<Command, LoopError> {
        let failed = |error: io::Error| LoopError::io("write", self.log, &error);
        let out = File::create(self.log).map_err(failed)?;
        let program = Path::new(&self.words[0]);
        // A program of the tree, or one of the system's.
        let program = if self.words[0].contains('/') { self.folder.join(program) } else { program.to_owned() };
        let mut command = Command::new(program);
        command.args(&self.words[1..]).current_dir(self.folder);
        self.environment.apply(&mut command);
        command.env("PWD", self.folder);
        // Hides a repository further up from git.
        if let Some(above) = self.folder.parent() {
            command.env("GIT_CEILING_DIRECTORIES", above);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out);
        Ok(command)
    }
}

fn ended(child: &mut Child) -> Result<Option<ExitStatus>, LoopError> {
    child.try_wait().map_err(|error| LoopError::failed(format!("cannot wait for the build: {error}")))
}

impl Ended {
    /// The time it took, if it succeeded; else an error with the end of the log.
    pub(super) fn into_seconds(self, log: &Path, timeout: Duration) -> Result<f64, LoopError> {
        let last_words = || -> Result<String, LoopError> {
            let tail = tail(log).map_err(|error| LoopError::io("read", log, &error))?;
            Ok(if tail.is_empty() { "; it printed nothing".into() } else { format!("; its last words:{tail}") })
        };
        let whole = format!("all that it printed is in `{}`", log.display());
        match self.how {
            How::NotStarted(error) => Err(error),
            How::Exit(exit) if exit.success() => Ok(self.seconds),
            How::Exit(exit) => {
                Err(LoopError::failed(format!("the build failed ({exit}){}", last_words()?)).hint(&whole))
            }
            How::TimedOut => {
                let message = format!("the build did not end within {timeout:?}{}", last_words()?);
                Err(LoopError::failed(message).hint(format!("`build.timeout` of `loop.toml` is the limit; {whole}")))
            }
            How::Stopped => Err(LoopError::interrupted("interrupted while building")),
        }
    }
}

/// How long a build has run, and what it printed last.
fn sign_of_life(elapsed: Duration, log: &Path) -> String {
    // The log is for the reader's eyes only: without it, the time is still news.
    let text = end_of(log).unwrap_or_default();
    let last = text.trim_end().lines().next_back().map_or(String::new(), |line| format!(": {}", line.trim()));
    format!("building for {} s{last}", elapsed.as_secs())
}

/// The last lines of a file, indented, each on a new line.
fn tail(path: &Path) -> io::Result<String> {
    let text = end_of(path)?;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last.iter().flat_map(|line| ["\n  ", line]).collect())
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A process group, led by its guard. Ends when dropped.
struct Group {
    guard: Child,
    leader: Pid,
}

impl Group {
    fn start() -> Result<Group, LoopError> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD]).current_dir("/").process_group(0);
        let guard = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let guard = guard.map_err(|error| LoopError::failed(format!("cannot start `sh`: {error}")))?;
        let leader = Pid::from_raw(guard.id() as i32);
        Ok(Group { guard, leader })
    }

    fn signal(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = killpg(self.leader, signal);
    }
}

impl Drop for Group {
    /// Kills the rest of the group, and returns when it is gone.
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.guard.wait();
        let deadline = Instant::now() + SETTLE;
        while killpg(self.leader, None) != Err(Errno::ESRCH) && Instant::now() < deadline {
            // Orphans are our children where the loop adopts them; elsewhere the system reaps them.
            let of_group = Pid::from_raw(-self.leader.as_raw());
            while matches!(waitpid(of_group, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
            {
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// The kernel closes the pipe of a process that dies.
    #[test]
    fn the_group_dies_when_the_pipe_to_its_guard_closes() {
        let mut group = Group::start().unwrap();
        let mut member = Command::new("sleep").arg("600").process_group(group.leader.as_raw()).spawn().unwrap();
        assert!(member.try_wait().unwrap().is_none());
        drop(group.guard.stdin.take());
        assert_eq!(member.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn a_sign_of_life_has_the_time_and_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let minute = Duration::from_secs(60);
        assert_eq!(sign_of_life(minute, &path), "building for 60 s");
        std::fs::write(&path, "   Compiling one\n   Compiling two \n\n").unwrap();
        assert_eq!(sign_of_life(minute, &path), "building for 60 s: Compiling two");
    }

    #[test]
    fn the_end_of_a_file_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let check = |content: &[u8], expected: &str| {
            std::fs::write(&path, content).unwrap();
            assert_eq!(tail(&path).unwrap(), expected);
        };
        check(b"", "");
        check(b"\n\n", "");
        check(b"one\ntwo \xff\n", "\n  one\n  two \u{fffd}");
        let many: String = (0..100_000).map(|line| line.to_string() + "\n").collect();
        let last: String = (99_980..100_000).map(|line| format!("\n  {line}")).collect::<Vec<_>>().concat();
        check(many.as_bytes(), &last);
    }
}

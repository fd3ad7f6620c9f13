//! A watchdog: if this process dies, for whatever reason, the trainers that it started are killed.
//!
//! A shell of our own reads from a pipe which process groups and control groups are alive. When this process dies, the
//! system closes the pipe; then the shell kills those groups. A build has its own guard (`build/run.rs`), which leads
//! its group.

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::LoopError;

/// Reads lines `+ GROUP` and `- GROUP`, each with a number or a folder; `-` may be repeated. At the end of the input it
/// kills groups that had no `-`. It ignores signals that the terminal sends to all processes, and is not a member of
/// the groups that it ends.
const SCRIPT: &str = "trap '' HUP INT TERM
groups=' '
while read -r sign group; do
  case $sign in
    +) groups=\"$groups$group \" ;;
    -) case $groups in *\" $group \"*) groups=\"${groups%% $group *} ${groups#* $group }\" ;; esac ;;
  esac
done
for group in $groups; do
  case $group in
    /*) echo 1 >\"$group/cgroup.kill\" ;;
    *) kill -KILL \"-$group\" ;;
  esac
done";

struct Watchdog {
    shell: Child,
    pipe: ChildStdin,
}

static WATCHDOG_OF_THIS_PROCESS: Mutex<Option<Watchdog>> = Mutex::new(None);

fn watchdog() -> MutexGuard<'static, Option<Watchdog>> {
    WATCHDOG_OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the watchdog if it does not run yet.
pub(crate) fn ensure_running() -> Result<(), LoopError> {
    use std::os::unix::process::CommandExt;
    let mut watchdog = watchdog();
    if watchdog.is_none() {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).current_dir("/").process_group(0);
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut shell = shell.map_err(|error| LoopError::failed(format!("cannot start `sh`: {error}")))?;
        let pipe = shell.stdin.take().ok_or_else(|| LoopError::failed("`sh` has no standard input"))?;
        *watchdog = Some(Watchdog { shell, pipe });
    }
    Ok(())
}

/// Has the watchdog kill a process group (its number) or a control group (its folder) if this process dies.
pub(crate) fn register(group: &str) {
    tell('+', group);
}

/// Has it leave a group alone that has ended.
pub(crate) fn unregister(group: &str) {
    tell('-', group);
}

fn tell(sign: char, group: &str) {
    if let Some(watchdog) = watchdog().as_mut() {
        // If somebody has killed the shell, trainers are still ended by us as long as we live.
        let _ = watchdog.pipe.write_all(format!("{sign} {group}\n").as_bytes());
    }
}

/// Whether `pid` is the watchdog's shell: a child of this process that is not a trainer's.
pub(crate) fn is_watchdog(pid: i32) -> bool {
    watchdog().as_ref().is_some_and(|watchdog| watchdog.shell.id() as i32 == pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    use nix::{
        sys::signal::{Signal, killpg},
        unistd::Pid,
    };

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").process_group(0).spawn().unwrap()
    }

    /// Which of three groups the watchdog kills after these lines when the pipe closes.
    fn killed(lines: impl Fn(&[u32]) -> String) -> Vec<bool> {
        let mut groups: Vec<Child> = (0..3).map(|_| sleeper()).collect();
        let ids: Vec<u32> = groups.iter().map(Child::id).collect();
        let mut shell =
            Command::new("sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(lines(&ids).as_bytes()).unwrap();
        shell.wait().unwrap();
        let end = |group: &mut Child| {
            // Groups that were killed have ended by that signal; those alive end by this one.
            killpg(Pid::from_raw(group.id() as i32), Signal::SIGTERM).unwrap();
            group.wait().unwrap().signal()
        };
        groups.iter_mut().map(|group| end(group) == Some(Signal::SIGKILL as i32)).collect()
    }

    #[test]
    fn groups_that_live_are_killed_when_the_pipe_closes() {
        assert_eq!(killed(|_| String::new()), [false; 3]);
        assert_eq!(killed(|ids| format!("+ {}\n+ {}\n", ids[0], ids[2])), [true, false, true]);
        assert_eq!(killed(|ids| format!("+ {0}\n+ {1}\n+ {2}\n- {1}\n", ids[0], ids[1], ids[2])), [true, false, true]);
        let again = |ids: &[u32]| format!("+ {0}\n{1}+ {2}\n", ids[0], format!("- {}\n", ids[0]).repeat(100), ids[1]);
        assert_eq!(killed(again), [false, true, false]);
    }
}

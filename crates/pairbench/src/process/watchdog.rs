//! A dead man's switch: when this process dies, however it dies, the trainers that it started are killed.
//!
//! One shell of our own waits on a pipe, through which it is told which process groups and control groups live. The system closes the pipe
//! of a process that is gone; then the shell kills those groups. A build has a guard of its own (`build/run.rs`), which
//! leads its group.

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::LoopError;

/// Lines `+ GROUP` and `- GROUP`, a number or a folder, the second as often as one likes; at the end of them groups without their `-` are killed.
/// It ignores what the terminal sends to everybody, and is not a member of the groups that it ends.
const SWITCH: &str = "trap '' HUP INT TERM
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

struct Switch {
    shell: Child,
    pipe: ChildStdin,
}

static SWITCH_OF_THIS_PROCESS: Mutex<Option<Switch>> = Mutex::new(None);

fn switch() -> MutexGuard<'static, Option<Switch>> {
    SWITCH_OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes sure that there is a switch before a trainer starts.
pub(crate) fn arm() -> Result<(), LoopError> {
    use std::os::unix::process::CommandExt;
    let mut switch = switch();
    if switch.is_none() {
        let mut command = Command::new("sh");
        command.args(["-c", SWITCH]).current_dir("/").process_group(0);
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut shell = shell.map_err(|error| LoopError::failed(format!("cannot start `sh`: {error}")))?;
        let pipe = shell.stdin.take().ok_or_else(|| LoopError::failed("`sh` has no standard input"))?;
        *switch = Some(Switch { shell, pipe });
    }
    Ok(())
}

/// Tells the switch that a process group (its number) or a control group (its folder) lives (`'+'`) or has ended (`'-'`).
pub(crate) fn tell(sign: char, group: &str) {
    if let Some(switch) = switch().as_mut() {
        // A shell that somebody killed guards nothing any more; the trainers are ended by us as long as we live.
        let _ = switch.pipe.write_all(format!("{sign} {group}\n").as_bytes());
    }
}

/// Whether `pid` is the switch's shell: a child of this process that is not a trainer's.
pub(crate) fn is(pid: i32) -> bool {
    switch().as_ref().is_some_and(|switch| switch.shell.id() as i32 == pid)
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

    /// Which of three groups the switch kills when the pipe closes, told these lines.
    fn killed(lines: impl Fn(&[u32]) -> String) -> Vec<bool> {
        let mut groups: Vec<Child> = (0..3).map(|_| sleeper()).collect();
        let ids: Vec<u32> = groups.iter().map(Child::id).collect();
        let mut shell =
            Command::new("sh").args(["-c", SWITCH]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(lines(&ids).as_bytes()).unwrap();
        shell.wait().unwrap();
        let end = |group: &mut Child| {
            // What was killed before ends by that, whatever comes after; what lives ends by this.
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

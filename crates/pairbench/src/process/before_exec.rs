//! What a child process does before it becomes a build or a trainer: it enters its control group, and it gives up
//! inherited things that no namespace separates.
//!
//! - Open files: an open folder of the user's shell is a way around the walls, a pipe is a way to another run.
//! - The keyring of the user's session (keyrings(7)): a run could use the keys, and could leave one for the next run to find.

use std::{io, os::unix::process::CommandExt, process::Command};

use crate::process::cgroup::Cgroup;

/// Has `command` give up what it would inherit when it is spawned, without a control group.
///
/// # Errors
/// None today; a child that fails is not spawned.
pub fn give_up_inherited(command: &mut Command) -> io::Result<()> {
    set(command, None)
}

/// The same, and has `command` enter a control group.
///
/// # Errors
/// If the group cannot be entered. A child that fails is not spawned.
pub(crate) fn set(command: &mut Command, cgroup: Option<&Cgroup>) -> io::Result<()> {
    let door = cgroup.map(Cgroup::door).transpose()?;
    let enter = move || {
        if let Some(door) = &door {
            nix::unistd::write(door, b"0")?;
        }
        close_files()?;
        leave_keys()
    };
    // SAFETY: the closure makes system calls and nothing else: it neither allocates nor locks, which another thread may have
    // been about to do when this process was copied.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Standard input, output and error stay.
const FIRST_CLOSED: i32 = 3;

/// Marks all other files to be closed at the exec.
#[cfg(target_os = "linux")]
fn close_files() -> io::Result<()> {
    use nix::{
        errno::Errno,
        libc::{CLOSE_RANGE_CLOEXEC, SYS_close_range, c_uint, syscall},
    };
    // SAFETY: three numbers; no file is closed before the exec, after which nothing of this program is left.
    let closed = unsafe { syscall(SYS_close_range, FIRST_CLOSED as c_uint, c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    match Errno::result(closed) {
        Ok(_) => Ok(()),
        // Before Linux 5.11, or where a container does not know the call.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => close_files_one_by_one(),
        Err(error) => Err(error.into()),
    }
}

/// The same.
#[cfg(not(target_os = "linux"))]
fn close_files() -> io::Result<()> {
    close_files_one_by_one()
}

/// The same with one call for each number that a file may have.
fn close_files_one_by_one() -> io::Result<()> {
    use nix::libc::{F_SETFD, FD_CLOEXEC, fcntl};
    // A system's usual limit: a million calls would take longer than a trainer's start.
    const MOST: u64 = 65_536;
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    for number in FIRST_CLOSED..limit.min(MOST) as i32 {
        // SAFETY: it sets a flag of a number; a number that no file has is an error without effect.
        unsafe { fcntl(number, F_SETFD, FD_CLOEXEC) };
    }
    Ok(())
}

/// Joins a session keyring of its own.
#[cfg(target_os = "linux")]
fn leave_keys() -> io::Result<()> {
    use nix::{
        errno::Errno,
        libc::{KEYCTL_JOIN_SESSION_KEYRING, SYS_keyctl, c_char, syscall},
    };
    // SAFETY: the name of the keyring may be null, for one that nobody else can join; nothing is written.
    let joined = unsafe { syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    match Errno::result(joined) {
        // The kernel has no keys, or a container forbids them: the child cannot use any either.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Other systems have no such keys.
#[cfg(not(target_os = "linux"))]
fn leave_keys() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::libc::{SYS_add_key, SYS_keyctl, syscall};

    use super::*;

    #[test]
    fn open_files_are_not_inherited() {
        let folder = std::fs::File::open("/").unwrap();
        // A duplicate is one that a child inherits.
        let inherited = nix::unistd::dup(&folder).unwrap();
        let sees = |prepare: &dyn Fn(&mut Command)| {
            let mut command = Command::new("test");
            command.args(["-e", &format!("/proc/self/fd/{}", inherited.as_raw_fd())]);
            prepare(&mut command);
            command.status().unwrap().success()
        };
        let one_by_one = |command: &mut Command| {
            // SAFETY: as above.
            unsafe { command.pre_exec(close_files_one_by_one) };
        };
        assert!(sees(&|_| ()));
        assert!(!sees(&|command| set(command, None).unwrap()));
        assert!(!sees(&one_by_one));
    }

    /// The session's keyring; in C's `keyutils.h` `KEY_SPEC_SESSION_KEYRING`.
    const SESSION: i32 = -3;

    #[test]
    fn keys_of_the_session_are_not_inherited() {
        // Looks for the key in its session's keyring, as `keyctl search @s user …` does.
        let search = format!(
            "import ctypes; print(ctypes.CDLL(None).syscall({SYS_keyctl}, 10, {SESSION}, b'user', b'alpha', 0) > 0)"
        );
        let finds = |is_set: bool| {
            let mut command = Command::new("python3");
            command.args(["-c", &search]);
            if is_set {
                set(&mut command, None).unwrap();
            }
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        // This thread gets a session's keyring of its own for the test.
        leave_keys().unwrap();
        let (kind, name) = (c"user", c"alpha");
        // SAFETY: both are C strings, and the content has the given length.
        let key = unsafe { syscall(SYS_add_key, kind.as_ptr(), name.as_ptr(), name.as_ptr(), 3_usize, SESSION) };
        if key < 0 {
            return; // this kernel, or this container, has no keys to inherit
        }
        assert_eq!([finds(false), finds(true)], ["True\n", "False\n"]);
    }
}

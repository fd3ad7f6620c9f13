//! What a child does before it becomes a build or a trainer: it enters its control group, and it leaves the keys of the
//! user's session behind (keyrings(7)). Those are no namespace's: whoever inherits them can use them, and leave there what
//! another run finds.

use std::{io, os::unix::process::CommandExt, process::Command};

use crate::cgroup::Cgroup;

/// Has `command` do so when it is spawned.
///
/// # Errors
/// The group's, where it cannot be entered. A child that fails fails to be spawned.
pub(crate) fn set(command: &mut Command, cgroup: Option<&Cgroup>) -> io::Result<()> {
    let door = cgroup.map(Cgroup::door).transpose()?;
    let enter = move || {
        if let Some(door) = &door {
            nix::unistd::write(door, b"0")?;
        }
        leave_keys()
    };
    // SAFETY: the closure makes system calls and nothing else: it neither allocates nor locks, which another thread may have
    // been about to do when this process was copied.
    unsafe { command.pre_exec(enter) };
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
        // A kernel without keys, or a container that forbids them, to the child as well.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// There are none.
#[cfg(not(target_os = "linux"))]
fn leave_keys() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use nix::libc::{SYS_add_key, SYS_keyctl, syscall};

    use super::*;

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
        // SAFETY: both are C strings, and the content is as long as is said.
        let key = unsafe { syscall(SYS_add_key, kind.as_ptr(), name.as_ptr(), name.as_ptr(), 3_usize, SESSION) };
        if key < 0 {
            return; // there are no keys here
        }
        assert_eq!([finds(false), finds(true)], ["True\n", "False\n"]);
    }
}

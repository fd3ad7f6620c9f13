//! Walls around everything that comes from a tree: builds, trainers and the commands of `loop.toml`.
//!
//! Each family of processes sees the system read-only, one folder of its own that it can write to, the files that it is
//! given to read, and nothing else: not the other arm, not the repository, not the loop's state, store, ledger or
//! processes, and no network. The walls are bubblewrap's: namespaces of mounts, processes, IPC, network, host name and
//! users, with every capability dropped. Where the machine does not allow walls, the loop continues without them and
//! says so; see [`Protection`].

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::{
    LoopError,
    process::{
        before_exec,
        cgroup::{Cgroup, CgroupRoot},
    },
};

/// Where a family's own folder is inside the walls: the same place for both arms.
pub const INSIDE: &str = "/alpha/run";
/// Where the socket of the turn protocol is.
pub const INSIDE_TURNS: &str = "/alpha/turns";
/// Where files are that a command is given to read, such as a checkpoint.
const INSIDE_GIVEN: &str = "/alpha/given";

/// Folders of `/` that no family sees: other people's files, the loop's files, temporary files.
const HIDDEN: [&str; 11] = ["boot", "dev", "home", "lost+found", "media", "mnt", "proc", "root", "run", "sys", "tmp"];
/// Devices of GPUs, which a trainer may use.
const DEVICES: [&str; 2] = ["/dev/dri", "/dev/kfd"];
/// Prefix of NVIDIA's device names.
const NVIDIA: &str = "nvidia";

/// How a measurement was isolated, as its record says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The program that made the walls, such as `bubblewrap 0.8.0`; none: there were no walls.
    pub walls: Option<String>,
    /// Whether the kernel froze, counted and ended each family as a control group.
    pub cgroup: bool,
    /// The reason, where there were no walls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Protection {
    /// What was not protected, as a sentence; none where everything was.
    pub fn gap(&self) -> Option<String> {
        let why = self.missing.as_deref().unwrap_or("not recorded");
        self.walls.is_none().then(|| {
            format!(
                "not isolated ({why}): trainers and builds could reach each other, the repository and the loop's files"
            )
        })
    }
}

/// In a few words.
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.walls.as_deref().unwrap_or("none"))?;
        if self.cgroup { f.write_str(", control groups") } else { Ok(()) }
    }
}

/// The walls and control groups of this machine.
#[derive(Clone, Debug)]
pub struct Isolation {
    walls: Result<Walls, NoWalls>,
    cgroups: Option<CgroupRoot>,
}

/// Why there are no walls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWalls {
    /// Another system.
    #[error("bubblewrap needs Linux")]
    NotLinux,
    /// No folder of `PATH` has the program.
    #[error("bubblewrap is not installed (`apt-get install bubblewrap`)")]
    NotInstalled,
    /// The program did not start.
    #[error("`{}` cannot be started: {error}", program.display())]
    CannotStart {
        /// Bubblewrap.
        program: PathBuf,
        /// The system's reason.
        error: String,
    },
    /// The root folder could not be listed.
    #[error("cannot read `/`: {0}")]
    UnreadableRoot(String),
    /// The kernel, or a container, forbids the namespaces; holds bubblewrap's last line.
    #[error("bubblewrap is not allowed here: {0}")]
    NotAllowed(String),
    /// The caller wants none.
    #[error("{0}")]
    Unwanted(&'static str),
}

#[derive(Clone, Debug)]
struct Walls {
    program: PathBuf,
    version: String,
    /// Arguments that are the same for every family.
    system: Vec<OsString>,
}

/// A command that is going to run inside the walls.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program: a path inside the walls, or a name that is looked up there.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// What it sees beside the system.
    pub room: Room,
}

/// What one family sees beside the system. Paths are those outside the walls.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its own folder, where it starts and may write.
    pub folder: PathBuf,
    /// Where that is inside the walls.
    pub inside: PathBuf,
    /// Other folders that it may write to, at their own paths.
    pub writable: Vec<PathBuf>,
    /// Its folder for temporary files, also its `/tmp`.
    pub tmp: PathBuf,
    /// Paths that it may only read: outside and inside the walls.
    pub readable: Vec<(PathBuf, PathBuf)>,
}

impl Isolation {
    /// Tries what this machine allows. `hidden` are folders that no family may see; `visible` are folders that families
    /// may read although they lie in hidden places, such as a data set or a virtual environment in a home.
    pub fn detect(hidden: &[PathBuf], visible: &[PathBuf]) -> Isolation {
        Isolation { walls: Walls::detect(hidden, visible), cgroups: CgroupRoot::detect() }
    }

    /// No walls, with the reason.
    pub fn none(why: &'static str) -> Isolation {
        Isolation { walls: Err(NoWalls::Unwanted(why)), cgroups: None }
    }

    /// For the record.
    pub fn protection(&self) -> Protection {
        Protection {
            walls: self.walls.as_ref().ok().map(|walls| format!("bubblewrap {}", walls.version)),
            cgroup: self.cgroups.is_some(),
            missing: self.walls.as_ref().err().map(NoWalls::to_string),
        }
    }

    /// Whether there are walls.
    pub fn has_walls(&self) -> bool {
        self.walls.is_ok()
    }

    /// A control group for a new family, where the machine has them.
    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        self.cgroups.as_ref().and_then(CgroupRoot::make)
    }

    /// The path of its own folder as a family sees it.
    pub fn inside(&self, room: &Room) -> PathBuf {
        if self.has_walls() { room.inside.clone() } else { room.folder.clone() }
    }

    /// Lets a family read `path`; returns the path that the family sees.
    pub fn give(&self, room: &mut Room, path: &Path) -> PathBuf {
        if !self.has_walls() {
            return path.to_owned();
        }
        let inside = Path::new(INSIDE_GIVEN).join(path.file_name().unwrap_or(OsStr::new("given")));
        room.readable.push((path.to_owned(), inside.clone()));
        inside
    }

    /// The words that go before a command's own to run it behind walls. Empty without walls.
    ///
    /// # Errors
    /// [`LoopError::usage`] where a path is not text.
    pub fn wrapper(&self, room: &Room) -> Result<Vec<String>, LoopError> {
        let words = self.walls.as_ref().map_or_else(|_| Vec::new(), |walls| walls.around(room));
        let text = |word: OsString| {
            word.into_string().map_err(|word| {
                LoopError::usage(format!("`{}` is not text, and commands must name it", word.display()))
                    .hint("rename it, or set `XDG_CACHE_HOME` to another folder")
            })
        };
        words.into_iter().map(text).collect()
    }

    /// The command, ready to be spawned, inside the walls and in the control group.
    ///
    /// # Errors
    /// Where the group cannot be entered.
    pub(crate) fn command(&self, launch: &Launch, cgroup: Option<&Cgroup>) -> io::Result<Command> {
        let mut words: Vec<OsString> = match &self.walls {
            Ok(walls) => walls.around(&launch.room),
            Err(_) => Vec::new(),
        };
        words.push(launch.program.clone());
        words.extend(launch.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        before_exec::set(&mut command, cgroup)?;
        command.current_dir(&launch.room.folder).env_clear();
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

impl Walls {
    fn detect(hidden: &[PathBuf], visible: &[PathBuf]) -> Result<Walls, NoWalls> {
        if !cfg!(target_os = "linux") {
            return Err(NoWalls::NotLinux);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let program = env::split_paths(&path)
            .map(|folder| folder.join("bwrap"))
            .find(|program| program.is_file())
            .ok_or(NoWalls::NotInstalled)?;
        let said = |arguments: &[OsString]| {
            let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
            output.map_err(|error| NoWalls::CannotStart { program: program.clone(), error: error.to_string() })
        };
        let version = said(&["--version".into()])?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.trim().trim_start_matches("bubblewrap ").to_owned();
        let walls = Walls { system: system(hidden, visible)?, program: program.clone(), version };
        let mut arguments = ["--tmpfs", "/tmp"].map(OsString::from).to_vec();
        arguments.extend(walls.system.iter().cloned());
        arguments.extend(["--", "true"].map(OsString::from));
        let tried = said(&arguments)?;
        if tried.status.success() {
            return Ok(walls);
        }
        let why = String::from_utf8_lossy(&tried.stderr);
        Err(NoWalls::NotAllowed(why.trim().lines().next_back().unwrap_or("it failed").to_owned()))
    }

    /// The program and its arguments before those of the command.
    fn around(&self, room: &Room) -> Vec<OsString> {
        let bind = |option: &str, from: &Path, to: &Path| -> [OsString; 3] {
            [option.into(), from.as_os_str().to_owned(), to.as_os_str().to_owned()]
        };
        let mut words = vec![self.program.clone().into_os_string()];
        // Comes before the system's: a visible folder may lie in the real `/tmp`.
        words.extend(bind("--bind", &room.tmp, Path::new("/tmp")));
        words.extend(self.system.iter().cloned());
        words.extend(bind("--bind", &room.folder, &room.inside));
        for folder in &room.writable {
            words.extend(bind("--bind", folder, folder));
        }
        for (from, to) in &room.readable {
            words.extend(bind("--ro-bind", from, to));
        }
        words.extend(["--chdir".into(), room.inside.clone().into_os_string(), "--".into()]);
        words
    }
}

/// The parts of the system that every family sees, as arguments of bubblewrap.
fn system(hidden: &[PathBuf], visible: &[PathBuf]) -> Result<Vec<OsString>, NoWalls> {
    let mut words: Vec<OsString> = [
        "--unshare-user",
        "--disable-userns",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
    ]
    .map(OsString::from)
    .to_vec();
    let hidden: Vec<PathBuf> = hidden.iter().map(|path| real(path)).collect();
    let holds_hidden = |path: &Path| hidden.iter().any(|hidden| hidden.starts_with(path));
    let mut bound: Vec<PathBuf> = Vec::new();
    let failed = |error: io::Error| NoWalls::UnreadableRoot(error.to_string());
    let mut entries = fs::read_dir("/").map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let is_hidden = HIDDEN.iter().any(|name| entry.file_name() == *name);
        if let Ok(target) = fs::read_link(&path) {
            words.extend(["--symlink".into(), target.into_os_string(), path.into_os_string()]);
        } else if path.is_dir() && !is_hidden && !holds_hidden(&path) {
            read_only(&mut words, &path);
            bound.push(path);
        }
    }
    if bound.iter().any(|path| path == Path::new("/var")) {
        words.extend(["--tmpfs", "/var/tmp"].map(OsString::from));
    }
    words.extend(["--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys", "/sys"].map(OsString::from));
    // The names and counters of other families' control groups.
    if Path::new("/sys/fs/cgroup").is_dir() {
        words.extend(["--tmpfs", "/sys/fs/cgroup"].map(OsString::from));
    }
    // The user's terminal: input written to it would run in the user's shell. A separate session would close it too,
    // but the kernel divides the processors between sessions (autogroup), which delays a stop by milliseconds.
    words.extend(["--dev-bind", "/dev/null", "/dev/tty"].map(OsString::from));
    let nvidia = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
    let nvidia = nvidia.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NVIDIA)));
    for device in DEVICES.iter().map(PathBuf::from).chain(nvidia).filter(|path| path.exists()) {
        words.extend(["--dev-bind".into(), device.clone().into_os_string(), device.into_os_string()]);
    }
    for path in toolchains().into_iter().chain(visible.iter().cloned()) {
        let is_seen = bound.iter().any(|seen| path.starts_with(seen));
        if !is_seen && path.exists() && !holds_hidden(&real(&path)) {
            read_only(&mut words, &path);
            bound.push(path);
        }
    }
    Ok(words)
}

fn read_only(words: &mut Vec<OsString>, path: &Path) {
    words.extend(["--ro-bind".into(), path.as_os_str().to_owned(), path.as_os_str().to_owned()]);
}

/// The path without links and dots, or the path itself where nothing is there.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Folders of programs that `PATH` names, with the folder above that they belong to (`~/.pyenv/shims`, `~/venv/bin`);
/// of Rust's folders only those without the user's settings.
fn toolchains() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let of = |name: &str, usual: &str| env::var_os(name).map_or_else(|| home.join(usual), PathBuf::from);
    let (cargo, rustup) = (of("CARGO_HOME", ".cargo"), of("RUSTUP_HOME", ".rustup"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        let is_plain = folder.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let Some(above) = folder.parent().filter(|_| is_plain) else { continue };
        let is_own = above == home || above == cargo || above == Path::new("/");
        found.push(if is_own { folder } else { above.to_owned() });
    }
    found.extend([rustup, cargo.join("registry"), cargo.join("git")]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(folder: &Path) -> Room {
        let tmp = folder.join("tmp");
        fs::create_dir_all(&tmp).unwrap();
        Room { folder: folder.to_owned(), inside: INSIDE.into(), writable: Vec::new(), tmp, readable: Vec::new() }
    }

    /// What a shell script prints inside; none where the machine allows no walls.
    fn said(isolation: &Isolation, room: Room, script: &str) -> Option<String> {
        if !isolation.has_walls() {
            assert!(isolation.protection().gap().is_some_and(|gap| gap.contains("not isolated")));
            return None;
        }
        let launch = Launch {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            room,
        };
        let cgroup = isolation.cgroup();
        let output = isolation.command(&launch, cgroup.as_ref()).unwrap().output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_family_sees_its_own_folder_and_nothing_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("secret"), "").unwrap();
        let isolation = Isolation::detect(&[dir.path().to_owned()], &[]);
        let script = format!(
            "cd {other} 2>/dev/null && echo other; ls /home 2>/dev/null; echo $PPID; pwd; echo x >mine; \
             touch /usr/x 2>/dev/null && echo system; cat /proc/net/dev | grep -c eth; ls /sys/fs/cgroup; kill -0 {pid} 2>/dev/null && echo process; true",
            other = other.display(),
            pid = std::process::id(),
        );
        let Some(seen) = said(&isolation, room(&own), &script) else { return };
        assert_eq!(seen, "1\n/alpha/run\n0\n");
        assert_eq!(fs::read_to_string(own.join("mine")).unwrap(), "x\n");
    }

    #[test]
    fn a_family_changes_the_priority_of_its_own_processes_only() {
        let dir = tempfile::tempdir().unwrap();
        let isolation = Isolation::detect(&[dir.path().to_owned()], &[]);
        let script =
            "python3 -c 'import os; os.setpriority(os.PRIO_USER, 0, 19); print(os.getpriority(os.PRIO_USER, 0))'";
        let Some(seen) = said(&isolation, room(&dir.path().join("own")), script) else { return };
        let own = Command::new("nice").output().unwrap();
        assert_eq!((seen.as_str(), String::from_utf8_lossy(&own.stdout).trim() == "19"), ("19\n", false));
    }

    #[test]
    fn what_is_given_can_be_read_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let given = dir.path().join("checkpoint-7");
        fs::create_dir(&given).unwrap();
        fs::write(given.join("weights"), "w").unwrap();
        let isolation = Isolation::detect(&[dir.path().to_owned()], &[]);
        let mut room = room(&dir.path().join("own"));
        let inside = isolation.give(&mut room, &given);
        let script = format!("cat {0}/weights; echo x 2>/dev/null >{0}/weights || echo ' refused'", inside.display());
        let Some(seen) = said(&isolation, room, &script) else { return };
        assert_eq!((seen.as_str(), inside), ("w refused\n", PathBuf::from("/alpha/given/checkpoint-7")));
    }

    #[test]
    fn a_visible_folder_is_seen_where_nobody_looks() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("text"), "t").unwrap();
        let script = format!("cat {}/text 2>/dev/null || echo nothing", data.display());
        for (visible, expected) in [(vec![], "nothing\n"), (vec![data.clone()], "t")] {
            let isolation = Isolation::detect(&[], &visible);
            let Some(seen) = said(&isolation, room(&dir.path().join("own")), &script) else { return };
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let none = Isolation::none("bubblewrap is not installed").protection();
        assert_eq!(none.to_string(), "none");
        assert!(none.gap().unwrap().starts_with("not isolated (bubblewrap is not installed)"));
        let walls = Protection { walls: Some("bubblewrap 0.8.0".into()), cgroup: true, missing: None };
        assert_eq!((walls.to_string().as_str(), walls.gap()), ("bubblewrap 0.8.0, control groups", None));
    }
}

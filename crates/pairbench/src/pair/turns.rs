//! The loop's side of the turn protocol (`docs/turns.md`): one request line, one answer line.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Arm, LoopError, Progress,
    process::{
        Process,
        isolation::{INSIDE_TURNS, Isolation, Launch},
    },
};

/// The environment variable that names the socket.
pub const VARIABLE: &str = "ALPHA_TURNS";
/// Name of the socket in its folder.
const SOCKET: &str = "s";
/// How often the loop, while it waits, checks that the trainer is still alive.
const POLL: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket.
const MAX_PATH_BYTES: usize = 100;
/// Longest answer.
const MAX_LINE_BYTES: usize = 4_096;

/// A folder for sockets, with a short path of its own; removed when dropped.
#[derive(Debug)]
pub struct SocketFolder(PathBuf);

impl SocketFolder {
    /// Makes a folder that nobody else can enter.
    pub fn create() -> Result<SocketFolder, LoopError> {
        use std::os::unix::fs::DirBuilderExt;
        let base = std::env::temp_dir();
        for attempt in 0..1000 {
            let path = base.join(format!("alpha-loop-{}-{attempt:03}", std::process::id()));
            if path.as_os_str().len() > MAX_PATH_BYTES - 8 {
                return Err(LoopError::failed(format!("`{}` is too long for a socket", path.display()))
                    .hint("set TMPDIR to a short path such as /tmp"));
            }
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(SocketFolder(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(LoopError::io("make", &path, &error)),
            }
        }
        Err(LoopError::failed(format!("`{}` is full of folders of loops that died", base.display()))
            .hint("remove `alpha-loop-*` there"))
    }

    /// A socket that a trainer can connect to, in a folder of its own: behind walls no other trainer sees it.
    pub fn listen(&self, name: &str) -> Result<Listener, LoopError> {
        let folder = self.0.join(name);
        fs::create_dir(&folder).map_err(|error| LoopError::io("make", &folder, &error))?;
        let path = folder.join(SOCKET);
        let listener = UnixListener::bind(&path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        Ok(Listener { listener: listener.map_err(|error| LoopError::io("listen on", &path, &error))?, path })
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A socket that waits for its trainer.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// How often a long wait gives a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// What a wait for a trainer needs: the process to watch, and the deadline.
pub struct Waiting<'a> {
    /// The wait fails when this process ends.
    pub process: &'a mut Process,
    /// The wait fails when the user asks to stop, and says there that it goes on.
    progress: &'a dyn Progress,
    /// The wait fails at this moment.
    pub deadline: Instant,
    /// The arm that is waited for.
    arm: Arm,
    began: Instant,
    signs: u32,
}

impl<'a> Waiting<'a> {
    /// A wait that begins now.
    pub fn new(process: &'a mut Process, progress: &'a dyn Progress, limit: Duration, arm: Arm) -> Waiting<'a> {
        let began = Instant::now();
        Waiting { process, progress, deadline: began + limit, arm, began, signs: 0 }
    }

    /// Whether the time is up, or the user wants to stop.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || self.progress.is_stop_requested()
    }

    /// Fails if there is nothing left to wait for.
    pub(super) fn check(&mut self, what: &str) -> Result<(), LoopError> {
        if self.progress.is_stop_requested() {
            return Err(LoopError::interrupted("interrupted; what was measured so far is kept"));
        }
        if let Some(exit) = self.process.try_exit() {
            return Err(self.failed(&format!("ended ({exit}) {what}")));
        }
        if self.began.elapsed() >= SIGN_OF_LIFE * (self.signs + 1) {
            self.signs += 1;
            let seconds = self.began.elapsed().as_secs();
            self.progress.note(&format!("still waiting for the {}: {seconds} s, {what}", self.arm.name()));
        }
        if Instant::now() >= self.deadline {
            return Err(self
                .failed(&format!("gave no answer {what} within its time"))
                .hint("raise `turn_timeout` in `loop.toml` if its steps are that long"));
        }
        Ok(())
    }

    pub(super) fn failed(&self, what: &str) -> LoopError {
        let message = format!("the {} {what}{}", self.arm.name(), self.process.outputs().last_words());
        LoopError::trainer(self.arm, message)
    }
}

impl Listener {
    /// Makes the socket visible to a trainer; returns the path that the trainer sees.
    pub fn show_to(&self, launch: &mut Launch, isolation: &Isolation) -> PathBuf {
        if !isolation.has_walls() {
            return self.path.clone();
        }
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        launch.room.readable.push((folder, PathBuf::from(INSIDE_TURNS)));
        Path::new(INSIDE_TURNS).join(SOCKET)
    }

    /// Waits for the trainer's `hello`.
    pub fn accept(&self, waiting: &mut Waiting<'_>) -> Result<Turns, LoopError> {
        let mut pause = Duration::from_micros(100);
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    waiting.check("before it said hello").map_err(|error| {
                        error
                            .hint("does it speak the turn protocol (docs/turns.md)? If not: `sharing = \"lines\"` or \"whole\"")
                    })?;
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(2));
                }
                Err(error) => return Err(LoopError::io("accept on", &self.path, &error)),
            }
        };
        let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(POLL)));
        prepared.map_err(|error| LoopError::io("use", &self.path, &error))?;
        let mut turns = Turns { stream, buffer: Vec::new() };
        let hello = turns.line(waiting, "before it said hello")?;
        match hello.as_str() {
            "hello 1" => Ok(turns),
            _ => Err(waiting.failed(&format!("said `{}` where `hello 1` was expected", shown(&hello)))),
        }
    }

    /// Whether a second process has connected, which the protocol forbids.
    pub fn is_disturbed(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

/// The conversation with one trainer.
#[derive(Debug)]
pub struct Turns {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Turns {
    /// Lets the trainer run `steps` steps; returns how many are done since the run began.
    pub fn run_steps(&mut self, steps: u64, waiting: &mut Waiting<'_>) -> Result<u64, LoopError> {
        let answer = self.ask(&format!("go {steps}\n"), waiting)?;
        let done = answer.strip_prefix("done ").and_then(|done| done.parse().ok());
        done.ok_or_else(|| waiting.failed(&format!("said `{}` where `done S` was expected", shown(&answer))))
    }

    /// Has the trainer write its weights.
    pub fn save(&mut self, waiting: &mut Waiting<'_>) -> Result<(), LoopError> {
        match self.ask("save\n", waiting)?.as_str() {
            "saved" => Ok(()),
            answer => Err(waiting.failed(&format!("said `{}` where `saved` was expected", shown(answer)))),
        }
    }

    /// Whether the trainer sent something without being asked.
    pub fn has_unasked(&mut self) -> bool {
        if self.buffer.is_empty() && self.stream.set_nonblocking(true).is_ok() {
            let mut bytes = [0; 64];
            if let Ok(count) = self.stream.read(&mut bytes) {
                self.buffer.extend_from_slice(&bytes[..count]);
            }
            let _ = self.stream.set_nonblocking(false);
        }
        !self.buffer.is_empty()
    }

    fn ask(&mut self, line: &str, waiting: &mut Waiting<'_>) -> Result<String, LoopError> {
        if self.has_unasked() {
            let unasked = String::from_utf8_lossy(&self.buffer).into_owned();
            return Err(waiting.failed(&format!("said `{}` without being asked", shown(&unasked))));
        }
        if self.stream.write_all(line.as_bytes()).is_err() {
            // The trainer is gone: how it ended says more than the socket's error.
            let deadline = Instant::now() + POLL;
            waiting.process.wait(deadline.min(waiting.deadline));
            waiting.check("before its turn")?;
            return Err(waiting.failed("closed its socket before its turn"));
        }
        self.line(waiting, "in its turn")
    }

    /// One line, without its line end.
    fn line(&mut self, waiting: &mut Waiting<'_>, when: &str) -> Result<String, LoopError> {
        let mut bytes = [0; 512];
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..=end);
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(waiting.failed("sent a line without an end"));
            }
            // Closed while the loop's line was not read yet.
            let is_reset =
                |error: io::Error| if error.kind() == io::ErrorKind::ConnectionReset { Ok(0) } else { Err(error) };
            match self.stream.read(&mut bytes).or_else(is_reset) {
                Ok(0) => {
                    waiting.process.wait(Instant::now() + POLL);
                    waiting.check(when)?;
                    return Err(waiting.failed(&format!("closed its socket {when}")));
                }
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) =>
                {
                    waiting.check(when)?;
                }
                Err(error) => return Err(waiting.failed(&format!("broke its socket {when}: {error}"))),
            }
        }
    }
}

/// A line for a message: short, and without control characters.
fn shown(line: &str) -> String {
    let short: String = line.trim_end().chars().take(80).collect();
    short.escape_debug().to_string()
}

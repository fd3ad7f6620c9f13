//! Turns of a trainer that knows nothing of the loop and prints a line for each step.
//!
//! The trainer's output is a pseudo-terminal, so that it is not buffered. A turn of k steps ends when the k-th step line
//! since its beginning arrives; the loop then stops the trainer. What it did of the next step until it stood still counts
//! for its next turn: a step takes as long as the trainer ran between two lines, by a clock that stands still while it is
//! stopped. What a device does while the trainer stands still cannot be stopped so.
//!
//! A thread of its own reads the terminal: it sleeps until something comes, and is then woken on an idle processor. The
//! thread that lets the trainer go on shares a processor with it for some milliseconds, and would read too late.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    pty::{Winsize, openpty},
    sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr},
};

use crate::{LoopError, pair::turns::Waiting, process::Process};

/// How often the loop, while it waits for a line, checks that the trainer is still alive.
const POLL: Duration = Duration::from_millis(100);
/// How often it looks for the end of a process whose output it reads.
const END_POLL: Duration = Duration::from_millis(2);
/// Longest wait for the last words of a process that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A line without an end is cut here.
const MAX_LINE_BYTES: usize = 1 << 16;
/// So wide that no logger breaks a line.
const COLUMNS: u16 = 4_096;

/// Tells which printed lines end a step.
pub trait StepLines: fmt::Debug + Send + Sync {
    /// What a line says of the step that it ends; none for other lines. The line has no colours and no end.
    fn read(&self, line: &str) -> Option<StepLine>;

    /// The form that is looked for, for a message.
    fn form(&self) -> String;
}

/// A line that ends a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLine {
    /// The number of the step, if the line has one.
    pub number: Option<u64>,
}

/// Counts step lines.
#[derive(Clone, Debug, Default)]
pub struct StepCounter {
    last: Option<u64>,
    /// Steps so far.
    pub steps: u64,
}

/// Step lines that cannot be the lines of successive steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// Not every step prints a line.
    #[error("printed step {to} after step {from}: a line for every step is needed; set its log interval to 1")]
    Skipped {
        /// The last step.
        from: u64,
        /// This one.
        to: u64,
    },
    /// Steps are counted back.
    #[error("printed step {to} after step {from}")]
    Back {
        /// The last step.
        from: u64,
        /// This one.
        to: u64,
    },
}

/// What can be wrong with a trainer's output.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Disorder(#[from] Disorder),
    #[error("printed what cannot be written down: {0}")]
    Log(#[from] io::Error),
}

impl StepCounter {
    /// Counts a line; false if it repeats the step before, as where several processes print.
    ///
    /// # Errors
    /// Where the numbers are not those of successive steps.
    pub fn count(&mut self, line: StepLine) -> Result<bool, Disorder> {
        match (self.last, line.number) {
            (Some(from), Some(to)) if to == from => return Ok(false),
            (Some(from), Some(to)) if to > from.saturating_add(1) => return Err(Disorder::Skipped { from, to }),
            (Some(from), Some(to)) if to < from => return Err(Disorder::Back { from, to }),
            _ => {}
        }
        self.last = line.number;
        self.steps += 1;
        Ok(true)
    }
}

/// A line as a reader of text sees it: without escape sequences (ECMA-48: CSI and OSC), other control characters and
/// bytes that are not text.
pub fn plain_text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\u{1b}', Some('[')) => {
                chars.next();
                chars.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
            ('\u{1b}', Some(']')) => {
                chars.by_ref().find(|c| *c == '\u{7}' || *c == '\\');
            }
            ('\u{1b}', _) => drop(chars.next()),
            ('\t', _) => plain.push('\t'),
            (c, _) if c.is_control() => {}
            (c, _) => plain.push(c),
        }
    }
    plain
}

/// The end of a line: progress bars end theirs with a carriage return.
pub fn ends_line(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The other side of a trainer's terminal.
#[derive(Debug)]
pub(super) struct LineTurns {
    chunks: Receiver<Chunk>,
    /// What was read goes there, so that records and messages find it.
    log: File,
    /// The beginning of a line.
    begun: Vec<u8>,
    step_lines: Arc<dyn StepLines>,
    counter: StepCounter,
    /// Steps that the trainer was told to have done by the end of its turn.
    target: u64,
    is_open: bool,
    clock: Clock,
    /// When the line of each step came.
    arrivals: Vec<Instant>,
    /// What was wrong with lines that nobody waited for.
    fault: Option<String>,
}

/// Measures how long a trainer has run.
#[derive(Debug, Default)]
struct Clock {
    /// When it went on, and how long it had run until then; in order.
    starts: Vec<(Instant, Duration)>,
    /// How long it had run when it was stopped; none while it runs.
    stopped: Option<Duration>,
}

impl Clock {
    fn go_on(&mut self, now: Instant) {
        if let Some(ran) = self.stopped.take() {
            self.starts.push((now, ran));
        }
    }

    fn stop(&mut self, now: Instant) {
        self.stopped.get_or_insert(self.starts.last().map_or(Duration::ZERO, |(start, ran)| *ran + (now - *start)));
    }

    /// How long it had run at a moment.
    fn at(&self, moment: Instant) -> Duration {
        let begun = self.starts.partition_point(|(start, _)| *start <= moment);
        let Some((start, ran)) = begun.checked_sub(1).map(|last| self.starts[last]) else { return Duration::ZERO };
        // Lines that come while it stands still were printed before.
        let end = self.starts.get(begun).map(|(_, ran)| *ran).or(self.stopped);
        let at = ran + (moment - start);
        end.map_or(at, |end| at.min(end))
    }
}

/// What was printed, and when.
type Chunk = (Instant, Vec<u8>);

/// Most chunks that wait to be looked at; a trainer that prints more waits.
const MAX_CHUNKS: usize = 1_024;

/// Reads a terminal until nobody holds its other side, or nobody wants to know.
fn read_all(mut terminal: &File, chunks: &SyncSender<Chunk>) {
    let mut bytes = [0; 8_192];
    loop {
        match terminal.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The system answers with an error where nobody holds the other side any more.
            Ok(0) | Err(_) => return,
            Ok(length) if chunks.send((Instant::now(), bytes[..length].to_vec())).is_err() => return,
            Ok(_) => {}
        }
    }
}

impl LineTurns {
    /// Opens a terminal; what is printed there is also written to `log`. Returns the trainer's stdout and stderr too:
    /// once it has started, only the trainer holds its side, whose end is then seen.
    pub(super) fn open(step_lines: &Arc<dyn StepLines>, log: &Path) -> Result<(LineTurns, [Stdio; 2]), LoopError> {
        let opened = || -> io::Result<(File, [Stdio; 2])> {
            let size = Winsize { ws_row: 50, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
            let pair = openpty(&size, None)?;
            let mut settings = tcgetattr(&pair.slave)?;
            cfmakeraw(&mut settings);
            tcsetattr(&pair.slave, SetArg::TCSANOW, &settings)?;
            // Copies are closed in other programs that start meanwhile.
            let output = [pair.slave.try_clone()?.into(), pair.slave.try_clone()?.into()];
            Ok((File::from(pair.master.try_clone()?), output))
        };
        let (terminal, output) =
            opened().map_err(|error| LoopError::failed(format!("cannot open a pseudo-terminal: {error}")))?;
        let log = File::create(log).map_err(|error| LoopError::io("write", log, &error))?;
        let (sender, chunks) = mpsc::sync_channel(MAX_CHUNKS);
        // It ends when the trainer and all its children have ended.
        thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || read_all(&terminal, &sender))
            .map_err(|error| LoopError::failed(format!("cannot start a thread: {error}")))?;
        let turns = LineTurns {
            chunks,
            log,
            begun: Vec::new(),
            step_lines: Arc::clone(step_lines),
            counter: StepCounter::default(),
            target: 0,
            is_open: true,
            clock: Clock { starts: vec![(Instant::now(), Duration::ZERO)], stopped: None },
            arrivals: Vec::new(),
            fault: None,
        };
        Ok((turns, output))
    }

    /// Waits for the first step line: only then is it known that the trainer has started.
    pub(super) fn wait_for_first(&mut self, waiting: &mut Waiting<'_>) -> Result<(), LoopError> {
        self.wait_for(1, waiting, "before its first step line")
    }

    /// Lets the trainer run until `steps` more steps are done; returns how long it ran for them, and how many are done
    /// since the run began. The first step, whose beginning nobody saw, takes no time.
    pub(super) fn run_steps(&mut self, steps: u64, waiting: &mut Waiting<'_>) -> Result<(Duration, u64), LoopError> {
        let begun = self.arrival(self.target.max(1));
        self.target += steps;
        if self.counter.steps < self.target {
            self.clock.go_on(Instant::now());
            waiting.process.thaw();
            self.wait_for(self.target, waiting, "in its turn")?;
        }
        Ok((self.arrival(self.target).saturating_sub(begun), self.target))
    }

    /// Takes note that the trainer stands still now.
    pub(super) fn has_stopped(&mut self) -> Result<(), Fault> {
        self.clock.stop(Instant::now());
        while self.read_within(Duration::ZERO)? {}
        Ok(())
    }

    /// Takes note that it goes on, to its end.
    pub(super) fn goes_on(&mut self) {
        self.clock.go_on(Instant::now());
    }

    /// How long each step took, nobody saw the first one begin; or what is wrong with the lines.
    pub(super) fn steps_ms(&self) -> Result<Vec<f64>, &str> {
        let ms = |step: u64| self.arrival(step).as_secs_f64() * 1e3;
        match &self.fault {
            Some(fault) => Err(fault),
            None => Ok((1..=self.counter.steps).map(|step| ms(step) - ms(step.saturating_sub(1).max(1))).collect()),
        }
    }

    /// When the line of a step came, counted from 1.
    fn arrival(&self, step: u64) -> Duration {
        let index = usize::try_from(step.saturating_sub(1)).unwrap_or(usize::MAX);
        self.arrivals.get(index).map_or(Duration::ZERO, |arrival| self.clock.at(*arrival))
    }

    fn wait_for(&mut self, steps: u64, waiting: &mut Waiting<'_>, when: &str) -> Result<(), LoopError> {
        while self.counter.steps < steps {
            let came = self.read_within(POLL).map_err(|fault| waiting.failed(&fault.to_string()))?;
            if !self.is_open {
                // It may go on after it has closed its output.
                waiting.process.wait(Instant::now() + POLL);
            }
            if self.counter.steps >= steps || came && !waiting.is_over() {
                continue;
            }
            let found = format!("{when}, after {} lines like `{}`", self.counter.steps, self.step_lines.form());
            waiting.check(&found).map_err(|error| {
                error.hint(
                    "`workload.metrics` of `loop.toml` names the form of its step lines: does it print one for every step, at once?",
                )
            })?;
        }
        Ok(())
    }

    /// Reads what the trainer prints until it has ended, or until `deadline`.
    pub(super) fn wait_for_end(&mut self, process: &mut Process, deadline: Instant) -> Option<ExitStatus> {
        loop {
            self.read_on(END_POLL.min(deadline.saturating_duration_since(Instant::now())));
            if let Some(exit) = process.try_exit() {
                // What it printed last may still be on its way; a child may hold the terminal open.
                let until = Instant::now() + LAST_WORDS;
                while self.is_open && Instant::now() < until {
                    self.read_on(END_POLL);
                }
                return Some(exit);
            }
            if !self.is_open {
                return process.wait(deadline);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// Reads outside of turns: the first fault is kept.
    fn read_on(&mut self, limit: Duration) {
        if let Err(fault) = self.read_within(limit) {
            self.fault.get_or_insert(fault.to_string());
        }
    }

    /// Reads once, if something comes within `limit`; whether something came.
    fn read_within(&mut self, limit: Duration) -> Result<bool, Fault> {
        if !self.is_open {
            return Ok(false);
        }
        match self.chunks.recv_timeout(limit) {
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                self.is_open = false;
                let last = std::mem::take(&mut self.begun);
                self.count(&last, Instant::now())?;
                Ok(false)
            }
            Ok((moment, bytes)) => {
                self.log.write_all(&bytes)?;
                for byte in bytes {
                    if !ends_line(&byte) && self.begun.len() < MAX_LINE_BYTES {
                        self.begun.push(byte);
                        continue;
                    }
                    let line = std::mem::take(&mut self.begun);
                    self.count(&line, moment)?;
                }
                Ok(true)
            }
        }
    }

    fn count(&mut self, line: &[u8], moment: Instant) -> Result<(), Fault> {
        let found = self.step_lines.read(&plain_text(line));
        if let Some(step_line) = found
            && self.counter.count(step_line)?
        {
            self.arrivals.push(moment);
        }
        Ok(())
    }
}

//! The trainer's side of the turn protocol (`docs/turns.md`): steps run only when the loop says so.
//!
//! Each line of the loop has exactly one answer, and nothing else is sent after `hello`. Waiting is a blocking
//! read; between the steps of a turn nothing is read, written or allocated.

use std::{
    io::{self, ErrorKind, Read, Write},
    path::Path,
    time::Duration,
};

#[cfg(not(unix))]
use std::net::TcpStream as UnixStream; // never connected: the loop runs on Linux
#[cfg(unix)]
use std::os::unix::net::UnixStream;

use crate::TrainError;

/// How soon a stop is seen while waiting. On Linux a signal interrupts the read; the timeout is for one that comes
/// between the check and the read.
const STOP_POLL: Duration = Duration::from_millis(100);

/// Longer than any line of the loop.
const MAX_LINE_BYTES: usize = 64;

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run a step.
    Step,
    /// Write the weights and say so with [`Turns::saved`].
    Save,
    /// End: the process was asked to stop while it waited.
    Stop,
}

/// The connection to the loop.
#[derive(Debug)]
pub struct Turns {
    socket: UnixStream,
    /// Bytes of the loop's next lines.
    received: Vec<u8>,
    /// Steps left of the turn.
    steps_left: u64,
    is_answer_owed: bool,
}

#[cfg(unix)]
fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

#[cfg(not(unix))]
fn connect(_path: &Path) -> io::Result<UnixStream> {
    Err(ErrorKind::Unsupported.into())
}

impl Turns {
    /// Connects to the loop's socket and says that everything is set up.
    pub fn connect(path: &Path) -> Result<Turns, TrainError> {
        connect(path).and_then(Turns::begin).map_err(|source| TrainError::TurnsConnect { path: path.into(), source })
    }

    fn begin(mut socket: UnixStream) -> io::Result<Turns> {
        socket.set_read_timeout(Some(STOP_POLL))?;
        socket.write_all(b"hello 1\n")?;
        let received = Vec::with_capacity(2 * MAX_LINE_BYTES);
        Ok(Turns { socket, received, steps_left: 0, is_answer_owed: false })
    }

    /// What to do after `step` steps since the run began. At the end of a turn says `done` and waits for the next order.
    pub fn next_order(&mut self, step: u64, is_stop_requested: &dyn Fn() -> bool) -> Result<Order, TrainError> {
        if self.steps_left == 0 {
            self.end_turn(step)?;
            let Some(length) = self.wait_for_line(step, is_stop_requested)? else { return Ok(Order::Stop) };
            self.is_answer_owed = true;
            let line = &self.received[..length];
            if line == b"save" {
                self.received.drain(..=length);
                return Ok(Order::Save);
            }
            self.steps_left = steps_of_go(line).ok_or_else(|| unknown(line))?;
            self.received.drain(..=length);
        }
        self.steps_left -= 1;
        Ok(Order::Step)
    }

    /// Returns steps to this turn that were begun and are to be run again.
    pub fn give_back(&mut self, steps: u64) {
        self.steps_left += steps;
    }

    /// Whether the turn goes on after the steps so far.
    pub fn has_steps_left(&self) -> bool {
        self.steps_left > 0
    }

    /// Says `done`, if a turn is to be answered: after the last step of the run, whatever was left of the turn.
    pub fn end_turn(&mut self, step: u64) -> Result<(), TrainError> {
        self.steps_left = 0;
        if self.is_answer_owed { self.answer(step, &format!("done {step}")) } else { Ok(()) }
    }

    /// Answers [`Order::Save`].
    pub fn saved(&mut self, step: u64) -> Result<(), TrainError> {
        self.answer(step, "saved")
    }

    /// Says `failed`, if an answer is owed. It need not arrive: the run ends anyway.
    pub fn fail(&mut self, why: &str) {
        if self.is_answer_owed {
            let line = why.lines().next().unwrap_or_default();
            let line = line.replace(|letter: char| !(' '..='~').contains(&letter), "?");
            let _ = self.answer(0, &format!("failed {line}"));
        }
    }

    fn answer(&mut self, step: u64, answer: &str) -> Result<(), TrainError> {
        self.is_answer_owed = false;
        self.socket.write_all(format!("{answer}\n").as_bytes()).map_err(|source| TrainError::TurnsLost { step, source })
    }

    /// Waits until a line stands at the beginning of what was received and returns its length, the line end not counted;
    /// none when asked to stop.
    fn wait_for_line(&mut self, step: u64, is_stop_requested: &dyn Fn() -> bool) -> Result<Option<usize>, TrainError> {
        let lost = |source| TrainError::TurnsLost { step, source };
        loop {
            if let Some(length) = self.received.iter().position(|&byte| byte == b'\n') {
                return Ok(Some(length));
            }
            if self.received.len() > MAX_LINE_BYTES {
                self.is_answer_owed = true;
                return Err(unknown(&self.received));
            }
            if is_stop_requested() {
                return Ok(None);
            }
            let mut chunk = [0; MAX_LINE_BYTES];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(lost(io::Error::new(ErrorKind::UnexpectedEof, "it closed the socket"))),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if is_only_time(&error) => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// Whether a read was cut short by its timeout or by a signal.
fn is_only_time(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// N of `go N`, at least 1.
fn steps_of_go(line: &[u8]) -> Option<u64> {
    let steps = std::str::from_utf8(line.strip_prefix(b"go ")?).ok()?;
    steps.parse().ok().filter(|&steps| steps > 0)
}

fn unknown(line: &[u8]) -> TrainError {
    TrainError::TurnsLine { found: String::from_utf8_lossy(line).escape_debug().to_string() }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Both ends of a connection, `hello` read.
    fn connected() -> (Turns, UnixStream) {
        let (trainer, mut peer) = UnixStream::pair().unwrap();
        let turns = Turns::begin(trainer).unwrap();
        let mut hello = [0; 8];
        peer.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello 1\n");
        (turns, peer)
    }

    /// Everything that the trainer has said, once it is gone.
    fn said(turns: Turns, mut peer: UnixStream) -> String {
        drop(turns);
        io::read_to_string(&mut peer).unwrap()
    }

    #[test]
    fn turns_are_answered_when_they_are_over() {
        let (mut turns, mut peer) = connected();
        // Two lines at once, and a line in pieces.
        peer.write_all(b"go 2\nsave\n").unwrap();
        let mut orders = Vec::new();
        let mut step = 0;
        for pieces in [&b""[..], b"", b"", b"go ", b"100\n"] {
            peer.write_all(pieces).unwrap();
            if pieces == b"go " {
                continue;
            }
            let order = turns.next_order(step, &|| false).unwrap();
            match order {
                Order::Step => step += 1,
                Order::Save => turns.saved(step).unwrap(),
                Order::Stop => unreachable!("nobody asked to stop"),
            }
            orders.push(order);
        }
        assert_eq!(orders, [Order::Step, Order::Step, Order::Save, Order::Step]);
        turns.end_turn(step).unwrap(); // the run has no more steps
        turns.end_turn(step).unwrap(); // and says so once
        turns.fail("nobody asked");
        assert_eq!(said(turns, peer), "done 2\nsaved\ndone 3\n");
    }

    /// A step that was begun behind one whose update was left out is run again, in the same turn.
    #[test]
    fn steps_that_are_run_again_belong_to_their_turn() {
        let (mut turns, mut peer) = connected();
        peer.write_all(b"go 3\nsave\n").unwrap();
        for step in 0..3 {
            assert_eq!(turns.next_order(step, &|| false).unwrap(), Order::Step);
        }
        turns.give_back(2); // steps 2 and 3 have changed nothing
        for step in 1..3 {
            assert!(turns.has_steps_left());
            assert_eq!(turns.next_order(step, &|| false).unwrap(), Order::Step);
        }
        assert_eq!(turns.next_order(3, &|| false).unwrap(), Order::Save);
        turns.saved(3).unwrap();
        assert_eq!(said(turns, peer), "done 3\nsaved\n");
    }

    #[test]
    fn lines_that_are_none_are_answered_and_end_the_run() {
        for line in ["", "go", "go ", "go 0", "go -1", "go 1.5", "go 99999999999999999999", "Save", "save ", "stop\r"] {
            let (mut turns, mut peer) = connected();
            writeln!(peer, "{line}").unwrap();
            let error = turns.next_order(0, &|| false).unwrap_err();
            assert!(matches!(&error, TrainError::TurnsLine { found } if *found == line.escape_debug().to_string()));
            turns.fail(&error.to_string());
            let said = said(turns, peer);
            assert!(said.starts_with("failed ") && said.ends_with('\n') && said.lines().count() == 1, "{said:?}");
        }
        let (mut turns, mut peer) = connected();
        peer.write_all(&[b'g'; 2 * MAX_LINE_BYTES]).unwrap();
        assert!(matches!(turns.next_order(0, &|| false), Err(TrainError::TurnsLine { .. })));
    }

    #[test]
    fn a_reason_is_one_line_of_ascii() {
        let (mut turns, mut peer) = connected();
        peer.write_all(b"go 1\n").unwrap();
        turns.next_order(0, &|| false).unwrap();
        turns.fail("`données` is broken\nin two lines");
        assert_eq!(said(turns, peer), "failed `donn?es` is broken\n");
    }

    #[test]
    fn a_loop_that_is_gone_is_an_error() {
        let (mut turns, peer) = connected();
        drop(peer);
        assert!(matches!(turns.next_order(7, &|| false), Err(TrainError::TurnsLost { step: 7, .. })));
    }

    #[test]
    fn waiting_ends_when_asked_to_stop() {
        let (mut turns, peer) = connected();
        let asked = std::cell::Cell::new(0);
        let order = turns.next_order(0, &|| asked.replace(asked.get() + 1) == 2);
        assert_eq!(order.unwrap(), Order::Stop);
        assert_eq!(said(turns, peer), "");
    }
}

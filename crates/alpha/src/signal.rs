//! Signals that ask for an end. While there is nothing to save, a signal ends the process at once. Afterwards the first one
//! asks the run to stop soon, and the second one ends the process at once, as if no handler were installed.
//!
//! SIGHUP comes when a session ends, SIGUSR1 from Slurm before a job's time is up (`--signal=USR1@60`). A signal that is
//! ignored when the process starts stays ignored, as `nohup` and a shell's `&` want it.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGXFSZ};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// A signal that asks for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    HangUp,
    /// SIGUSR1.
    User1,
}

const SIGNALS: &[(i32, Signal)] = &[
    (SIGINT, Signal::Interrupt),
    (SIGTERM, Signal::Terminate),
    #[cfg(unix)]
    (SIGHUP, Signal::HangUp),
    #[cfg(unix)]
    (SIGUSR1, Signal::User1),
];

/// Whether the process was asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct StopRequest {
    received: Arc<AtomicUsize>,
    /// The next signal ends the process.
    is_final: Arc<AtomicBool>,
}

impl StopRequest {
    /// Installs the handlers. Until [`StopRequest::hold`] a signal ends the process.
    pub(crate) fn install() -> io::Result<StopRequest> {
        let stop = StopRequest { received: Arc::default(), is_final: Arc::new(AtomicBool::new(true)) };
        let ignored = ignored_signals();
        for &(signal, _) in SIGNALS {
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            // In this order: the default action is taken only if the flag was set before.
            flag::register_conditional_default(signal, Arc::clone(&stop.is_final))?;
            flag::register(signal, Arc::clone(&stop.is_final))?;
            flag::register_usize(signal, Arc::clone(&stop.received), signal as usize)?;
        }
        // With a handler, a file that grows past `ulimit -f` is an error of the write, which names the file, and not the end.
        #[cfg(unix)]
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(stop)
    }

    /// From now on there is something to save: the next signal is a request.
    pub(crate) fn hold(&self) {
        self.is_final.store(false, Ordering::SeqCst);
    }

    /// The signal received, if any.
    pub(crate) fn received(&self) -> Option<Signal> {
        let number = self.received.load(Ordering::Relaxed) as i32;
        SIGNALS.iter().find(|(signal, _)| *signal == number).map(|(_, signal)| *signal)
    }
}

/// Signals that the process ignores, one bit for each; none on systems other than Linux.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_seen_and_does_not_end_the_process() {
        let stop = StopRequest::install().unwrap();
        stop.hold();
        assert_eq!(stop.received(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.received(), Some(Signal::Terminate));
    }
}

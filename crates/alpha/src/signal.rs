//! SIGINT and SIGTERM: the first asks the run to stop after the current step, a second one
//! ends the process at once, as if nothing had been installed.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

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
}

/// Whether the process was asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct StopRequest(Arc<AtomicUsize>);

impl StopRequest {
    /// Installs the handlers.
    pub(crate) fn install() -> io::Result<StopRequest> {
        let received = Arc::new(AtomicUsize::new(0));
        let any = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the default action is taken only if an earlier signal set the flag.
            flag::register_conditional_default(signal, Arc::clone(&any))?;
            flag::register(signal, Arc::clone(&any))?;
            flag::register_usize(signal, Arc::clone(&received), signal as usize)?;
        }
        Ok(StopRequest(received))
    }

    /// The signal received, if any.
    pub(crate) fn received(&self) -> Option<Signal> {
        match self.0.load(Ordering::Relaxed) as i32 {
            SIGINT => Some(Signal::Interrupt),
            SIGTERM => Some(Signal::Terminate),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_seen_and_does_not_end_the_process() {
        let stop = StopRequest::install().unwrap();
        assert_eq!(stop.received(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.received(), Some(Signal::Terminate));
    }
}

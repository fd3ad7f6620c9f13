//! Progress of work, on stderr: a bar on a terminal; elsewhere a line, once something takes more than two seconds, and then
//! one every ten seconds.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// The longest time that a working command prints nothing.
const QUIET: Duration = Duration::from_secs(2);
/// Time between two lines about the same work where stderr is not a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// How often the time since the last line is checked.
const TICK: Duration = Duration::from_millis(250);

/// A bar, or lines.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    doing: Arc<Doing>,
}

/// The work, as the watching thread sees it.
struct Doing {
    now: Mutex<Now>,
    is_over: AtomicBool,
}

#[derive(Clone, Copy)]
struct Now {
    what: &'static str,
    done: u64,
    total: u64,
    /// When this work began, or the last step ended.
    since: Instant,
    said: Option<Instant>,
}

impl Doing {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// For a command that may work for a while; a bar of `total_steps` where stderr is a terminal.
    pub(crate) fn new(total_steps: u64) -> Progress {
        let bar = output::stderr_takes_escapes().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total_steps), ProgressDrawTarget::stderr_with_hz(5));
            let template = if total_steps > 0 { "{pos}/{len} {wide_bar} {msg} eta {eta}" } else { "{spinner} {msg}" };
            bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants that parse"));
            bar
        });
        let now = Now { what: "", done: 0, total: 0, since: Instant::now(), said: None };
        Progress { bar, doing: Arc::new(Doing { now: Mutex::new(now), is_over: AtomicBool::new(false) }) }
    }

    /// Starts to report work that takes long. Without a thread for it, nothing is reported.
    pub(crate) fn watch(&self) {
        let (doing, bar) = (Arc::clone(&self.doing), self.bar.clone());
        let watching = thread::Builder::new().name("progress".to_owned()).spawn(move || {
            while !doing.is_over.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                if let Some(line) = what_to_say(&mut doing.now(), Instant::now(), bar.is_some()) {
                    match &bar {
                        Some(bar) => bar.set_message(line),
                        None if doing.is_over.load(Ordering::Relaxed) => {}
                        None => output::note(&line),
                    }
                }
            }
        });
        drop(watching);
    }

    /// Step `step` of `total_steps` is done.
    pub(crate) fn step(&self, step: u64, total_steps: u64, loss: f32, tok_s: f64) {
        {
            // `said` stays: a line for each of many slow steps would be too many.
            self.doing.now().since = Instant::now();
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total_steps);
            if step > bar.position() + 1 {
                // A resumed run's first step: the steps before it took no time.
                bar.set_position(step);
                bar.reset_eta();
            }
            bar.set_message(format!("loss {loss:.4} {tok_s:.0} tok/s"));
            bar.set_position(step);
        }
    }

    /// Writes `text` to stdout as it is, with the bar out of the way.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::print(text)),
            None => output::print(text),
        }
    }

    /// Writes a line to stderr, with the bar out of the way.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.doing.is_over.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl alpha_data::Progress for Progress {
    fn update(&self, doing: &'static str, done: u64, total: u64) {
        let mut now = self.doing.now();
        if now.what != doing {
            (now.since, now.said) = (Instant::now(), None);
            now.what = doing;
        }
        (now.done, now.total) = (done, total);
    }
}

/// A line about work that takes long, if it is time for one.
fn what_to_say(now: &mut Now, at: Instant, is_watched: bool) -> Option<String> {
    let elapsed = at.saturating_duration_since(now.since);
    let between = if is_watched { TICK } else { BETWEEN_LINES };
    let is_time = now.said.is_none_or(|said| at.saturating_duration_since(said) >= between);
    if now.what.is_empty() || elapsed < QUIET || !is_time {
        return None;
    }
    now.said = Some(at);
    let seconds = elapsed.as_secs();
    let what = now.what;
    Some(match now.total {
        0 => format!("{what}: {seconds} s"),
        total => format!("{what}: {} %, {seconds} s", u128::from(now.done) * 100 / u128::from(total)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_after_two_seconds_and_then_every_ten() {
        let start = Instant::now();
        let mut now = Now { what: "encoding", done: 1, total: 3, since: start, said: None };
        let mut at = |seconds: u64| what_to_say(&mut now, start + Duration::from_secs(seconds), false);
        assert_eq!(at(1), None);
        assert_eq!(at(2).unwrap(), "encoding: 33 %, 2 s");
        assert_eq!(at(11), None);
        assert_eq!(at(12).unwrap(), "encoding: 33 %, 12 s");
    }

    #[test]
    fn nothing_is_said_of_steps_that_follow_quickly() {
        use alpha_data::Progress as _;
        let progress = Progress::new(10);
        progress.update("step", 1, 4);
        progress.doing.now().since -= Duration::from_secs(5);
        progress.step(1, 10, 1.0, 1.0);
        progress.update("step", 2, 4);
        let now = &mut progress.doing.now();
        assert_eq!(what_to_say(now, Instant::now(), false), None);
    }
}

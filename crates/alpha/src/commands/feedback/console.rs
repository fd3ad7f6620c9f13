//! Progress of the loop on a terminal: a table that is redrawn, and notes above it.

use std::{cell::RefCell, io::IsTerminal};

use feedback::visible;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pairbench::progress::{PairProgress, Progress};

use crate::{exit::Failure, output, signal::StopRequest};

/// Shows the loop's progress on stderr.
pub(super) struct Console {
    bar: Option<ProgressBar>,
    stop: StopRequest,
    /// The stage and interval of the last line, if stderr is not a terminal.
    written: RefCell<Option<Written>>,
}

/// A stage, and its interval.
type Written = (String, Option<(f64, f64)>);

impl Console {
    pub(super) fn new(stop: StopRequest) -> Console {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is a constant that parses"));
            bar
        });
        Console { bar, stop, written: RefCell::new(None) }
    }

    /// Removes the live lines.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The failure for a signal.
    pub(super) fn interrupted(&self, message: &str) -> Failure {
        let signal = self.stop.received().unwrap_or(crate::signal::Signal::Interrupt);
        Failure::interrupted(signal, message).hint("the same command goes on from there")
    }
}

impl Progress for Console {
    fn note(&self, line: &str) {
        let line = visible::lines(line);
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(&line)),
            None => output::note(&line),
        }
    }

    fn pairs(&self, progress: &PairProgress) {
        if let Some(bar) = &self.bar {
            bar.set_message(visible::lines(&table(progress)));
            return;
        }
        // A log gets a line when a look has changed the interval, and for the last pair.
        let state = (progress.stage.clone(), progress.interval_pct);
        let is_news = self.written.borrow().as_ref() != Some(&state) || progress.pairs == progress.planned;
        if is_news {
            output::note(&visible::lines(&line(progress)));
            *self.written.borrow_mut() = Some(state);
        }
    }

    fn is_stop_requested(&self) -> bool {
        self.stop.received().is_some()
    }
}

fn effect(progress: &PairProgress) -> String {
    let estimate = progress.estimate_pct.map_or_else(|| "…".to_owned(), |pct| format!("{pct:+.2} %"));
    match progress.interval_pct {
        Some((low, high)) => format!("{estimate} ({low:+.2} to {high:+.2})"),
        None => estimate,
    }
}

fn line(progress: &PairProgress) -> String {
    let PairProgress { stage, pairs, planned, elapsed_s, .. } = progress;
    format!("{stage}: {pairs}/{planned} pairs, {}, {elapsed_s:.0} s", effect(progress))
}

/// The live table: the current measurement, and what an answer still needs.
fn table(progress: &PairProgress) -> String {
    let PairProgress { stage, pairs, planned, elapsed_s, left_s, needs, .. } = progress;
    let mut text = format!(
        "  {stage:<12} pairs      {pairs:>3} of {planned}\n  {:<12} estimate   {}\n  {:<12} time       {elapsed_s:.0} s, at most {left_s:.0} s left",
        "",
        effect(progress),
        ""
    );
    if !needs.is_empty() {
        text.push_str(&format!("\n  {:<12} answer     {needs}", ""));
    }
    text
}

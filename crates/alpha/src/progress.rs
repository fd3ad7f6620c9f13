//! The bar on stderr: step, loss, tokens a second, time left. Only where stderr is a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// A progress bar, or nothing where stderr is no terminal.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar for a run of `total_steps`, of which `done_steps` are done.
    pub(crate) fn new(done_steps: u64, total_steps: u64) -> Progress {
        Progress(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total_steps), ProgressDrawTarget::stderr_with_hz(5));
            let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg} eta {eta}");
            bar.set_style(style.expect("the template is a constant that parses"));
            bar.set_position(done_steps);
            bar.reset_eta();
            bar
        }))
    }

    /// Step `step` of `total_steps` is done.
    pub(crate) fn update(&self, step: u64, total_steps: u64, loss: f32, tok_s: f64) {
        if let Some(bar) = &self.0 {
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
        match &self.0 {
            Some(bar) => bar.suspend(|| output::print(text)),
            None => output::print(text),
        }
    }

    /// Writes a line to stderr, with the bar out of the way.
    pub(crate) fn note(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

//! What a run needs from the program around it. Nothing in this crate prints.

use std::{path::PathBuf, time::Instant};

use alpha_data::Progress;

/// Where a run's output goes.
pub trait Sink {
    /// A line of results: step and trace lines.
    fn line(&mut self, line: &str);
    /// A line for the reader, apart from the results.
    fn note(&mut self, line: &str);
    /// A step is done.
    fn progress(&mut self, step: u64, total_steps: u64, loss: f32, tok_s: f64);
}

/// The program around a run.
pub struct Host<'a> {
    /// Where output goes.
    pub sink: &'a mut dyn Sink,
    /// Hears about the progress of long work within a step or before the first one.
    pub progress: &'a dyn Progress,
    /// Called once there is something to save. Until then a request to stop may end the process at once; from then on it
    /// must be polled.
    pub begin_saving: &'a dyn Fn(),
    /// Whether the run was asked to stop; polled between micro-steps.
    pub is_stop_requested: &'a dyn Fn() -> bool,
    /// Memory allocations of the process so far.
    pub allocations: fn() -> u64,
    /// When the process began.
    pub started: Instant,
    /// Socket of the loop that says when to run (`docs/turns.md`); none where there is no loop.
    pub turns: Option<PathBuf>,
}

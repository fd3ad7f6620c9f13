//! Runs that are ended and go on, and what their folders hold.

mod checkpoints;
mod going_on;
mod resume;

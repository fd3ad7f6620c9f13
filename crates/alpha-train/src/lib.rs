//! The training run: its configuration, folder, checkpoints, metrics and trace, and the step loop.
//!
//! Nothing here prints or knows of the command line: output goes through [`host::Sink`].

pub mod error;
pub mod config;
pub mod files;
pub mod host;
pub mod turns;
pub mod metrics;
pub mod evaluate;
pub mod trace;
pub mod planning;
pub mod inspect;
pub mod checkpoint;
pub mod run_dir;
pub mod trainer;

pub use self::{
    error::TrainError,
    host::{Host, Sink},
    trainer::{MakeBackend, Outcome, train},
};

//! The GPT model: its shape ([`config`]), parameters ([`params`]), and a training step written
//! as programs for any backend.
//!
//! This crate knows nothing of files or devices.

pub mod config;
pub mod params;
pub mod schedule;
mod layers;
pub mod programs;

pub use self::{
    config::{ConfigError, FeedForward, ModelConfig},
    params::{Param, ParamLayout},
    programs::{Inputs, StepConfig, TrainStep},
    schedule::{Decay, Schedule},
};

//! Data that is kept between commands: the state in git's folder, builds, inputs.

pub mod state;
pub mod build;
pub mod inputs;
pub mod data;
pub mod adapter;
pub mod session;

//! The engine from outside: whole runs through the binary, on tiny models and text that the tests make.
//!
//! A test asks for a [`place::Place`], a folder of its own in which every command runs, and compares what the commands
//! print and leave there. The product's own readers are not used.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

mod data_hash;
mod failures;
mod helios;
mod lines;
mod memory;
#[path = "../outcome/mod.rs"]
mod outcome;
mod place;
mod resuming;
mod run;
mod same_bits;
mod sample_eval;
mod tensors;
mod trace;
mod turns;

//! The engine from outside: whole runs through the binary, on tiny models and text that the tests make.
//!
//! A test asks for a [`place::Place`], a folder of its own in which every command runs, and compares what the commands
//! print and leave there. Nothing of the product's own readers is used.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

mod bad_input;
mod checkpoints;
mod damage;
mod edges;
mod data_hash;
#[path = "../outcome/mod.rs"]
mod outcome;
mod full_disk;
mod going_on;
mod helios;
mod lines;
mod lost;
mod memory;
mod place;
mod resume;
mod run;
mod sample_eval;
mod same_bits;
mod tensors;
mod trace;
mod turns;

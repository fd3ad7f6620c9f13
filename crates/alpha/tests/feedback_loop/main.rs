//! `alpha loop` from outside: whole cycles through the binary, in repositories made of a toy trainer (`tests/toy`).
//!
//! A test asks for a [`toy::Toy`], changes the trainer's source, and looks at the loop's output and files. The effect of
//! each change of the toy is known, and is two thirds or more, so that no noise turns one effect into another. No
//! test looks at how long anything took.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]
#![expect(clippy::float_cmp, reason = "counts in JSON are exact")]

mod changes;
mod chronicle;
mod cycle;
mod faults;
mod import;
mod interruption;
mod layout;
mod lines;
#[path = "../outcome/mod.rs"]
mod outcome;
mod records;
mod refused;
mod toy;
mod trainer;

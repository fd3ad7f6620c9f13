//! `alpha loop` from outside: whole cycles through the binary, in repositories made of a toy trainer (`tests/toy`).
//!
//! A test asks for a [`toy::Toy`], changes the trainer's source, and looks at what the loop says and leaves. What a change
//! of the toy costs or gains is known: effects are of two thirds and more, so that no noise turns one into another. No
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
#[path = "../outcome/mod.rs"]
mod outcome;
mod records;
mod refused;
mod toy;
mod trainer;

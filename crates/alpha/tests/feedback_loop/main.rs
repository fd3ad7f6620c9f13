//! `alpha loop` from outside: whole cycles through the binary, in repositories made of a toy trainer (`tests/toy`).
//!
//! A test asks for a [`toy::Toy`], changes the trainer's source, and looks at what the loop says and leaves. What a change
//! of the toy costs or gains is known: effects are of two thirds and more, so that no noise turns one into another. No
//! test looks at how long anything took.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]
#![expect(clippy::float_cmp, reason = "counts in JSON are exact")]

mod attempts;
mod changes;
mod chronicle;
mod claims;
mod cycle;
#[path = "../outcome/mod.rs"]
mod outcome;
mod evidence;
mod faults;
mod gaming;
mod guards;
mod import;
mod interruption;
mod layout;
mod loopholes;
mod parity;
mod text;
mod toy;
mod trainer;
mod trees;
mod walls;

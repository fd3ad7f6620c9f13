//! The commands that make a repository and a machine ready to measure.

pub(super) mod doctor;
pub(super) mod hook;
pub(super) mod init;
pub(super) mod selftest;

use super::{Context, Done};

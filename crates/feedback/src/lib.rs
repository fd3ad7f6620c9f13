//! The loop: builds a candidate and its baseline, compares them, and lets in what is proved.
//!
//! Knows nothing of alpha: a trainer is a command, the turn protocol (`docs/turns.md`) and the
//! records that it writes. Nothing here prints: what happens goes through [`Progress`].
//!
//! Modules in their order; each uses those above it, and none below:
//!
//! - [`visible`]: text in which nothing is hidden. [`machine`]: what a measurement was made on.
//! - [`config`] reads `loop.toml`.
//! - [`git`]: the repository, driven through `git`.
//! - [`parity`]: whether two trainings are the same.
//! - [`ledger`]: records, each a file named by its hash.
//! - [`trace`]: where the time of a step goes.
//! - [`attempt`]: what is known of one candidate beside one baseline, and what follows from its numbers.
//! - [`store`]: what is kept between commands.
//! - [`records`]: attempts in the ledger and in the repository, and claims.
//! - [`compare`]: from the working tree to a verdict.
//! - [`confirm`]: what a FASTER must pass before it lands.
//! - [`review`]: claims are checked again.
//! - [`land`]: from a hypothesis to a commit.
//! - [`advise`]: help for users.

pub mod visible;
pub mod machine;
pub mod config;
pub mod git;
pub mod parity;
pub mod ledger;
pub mod trace;
pub mod attempt;
pub mod store;
pub mod records;
pub mod compare;
pub mod confirm;
pub mod review;
pub mod land;
pub mod advise;

pub use pairbench::{ErrorKind, LoopError, Progress};

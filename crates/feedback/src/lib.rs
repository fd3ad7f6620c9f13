//! The loop: builds a candidate and its baseline, runs them in turns, and says what is proved.
//!
//! Knows nothing of alpha: a trainer is a command, the turn protocol (`docs/turns.md`) and the
//! records that it writes. Nothing here prints: what happens goes through [`Watch`].

pub mod config;
pub mod visible;
pub mod state;
pub mod git;
pub mod build;
pub mod plain;
pub mod records;
pub mod weights;
pub mod parity;
pub mod gaming;
pub mod smoke;
pub mod attempt;
pub mod bookkeeping;
pub mod driver;
pub mod pair_source;
pub mod registry;
pub mod kept_evidence;
pub mod session;
pub mod inputs;
pub mod contest;
pub mod evidence;
mod fitting;
pub mod report;
pub mod cycle;
pub mod cycle_run;
pub mod chronicle;
pub mod same_training;
pub mod smoke_test;
pub mod compare;
pub mod guards;
pub mod confirm;
pub mod attribution;
pub mod layout;
pub mod selftest;
pub mod doctor;
pub mod machine;
pub mod ranking;
pub mod ledger;
pub mod claim;
pub mod commit;
pub mod bridge;
pub mod measure;
pub mod verify;
pub mod recompute;
pub mod reference;
pub mod anchor;
pub mod weakened;
pub mod audit;
pub mod bisect;
pub mod trace_runs;
pub mod history;
pub mod import;
pub mod hook;
pub mod init;

pub use pairbench::{LoopError, Watch};

//! From a hypothesis to a commit.

pub mod cycle;
pub mod status;
pub mod cycle_run;
pub mod commit;
pub mod instrument_change;
pub mod hook;

//! Attempts in the ledger and in the repository, and the claims that rest on them.

pub mod claim;
pub mod evidence;
pub mod fitting;
pub mod registry;

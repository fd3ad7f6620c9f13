//! Where the time of a step goes, from the trainers' own traces.

pub mod ranking;
pub mod attribution;

//! Where the time of a step goes, according to the trainers' own traces.

pub mod ranking;
pub mod attribution;

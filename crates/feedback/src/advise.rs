//! What helps a user along: the story so far, other histories, this machine, a first `loop.toml`.

pub mod series;
pub mod import;
pub mod history;
pub mod doctor;
pub mod init;

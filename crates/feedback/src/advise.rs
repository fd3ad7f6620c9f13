//! Help for users: the history so far, histories of others, this machine, a first `loop.toml`.

pub mod series;
pub mod import;
pub mod history;
pub mod doctor;
pub mod init;

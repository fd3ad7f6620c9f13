//! Who runs the operations: `auto` decided, what this build lacks refused.

use std::{num::NonZero, thread::available_parallelism};

use alpha_train::config::Backend;

use crate::{exit::Failure, flags::train::BackendFlags};

/// A backend that this build has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Not `auto`.
    pub(crate) backend: Backend,
    /// CPU threads.
    pub(crate) threads: usize,
    /// What is to be said about the choice.
    pub(crate) note: Option<String>,
}

/// Decides where operations run.
pub(crate) fn place(flags: &BackendFlags) -> Result<Place, Failure> {
    let all = available_parallelism().map_or(1, NonZero::get);
    let threads = flags.threads.unwrap_or(all);
    let chosen = |backend, note| Ok(Place { backend, threads, note });
    match (flags.backend, &flags.device) {
        (Backend::Helios, _) => Err(Failure::unavailable("this build has no `helios` backend: GPUs come later")
            .hint("run with `--backend=cpu`, or with `--backend=auto`, which takes a GPU as soon as there can be one")),
        (Backend::Auto, Some(device)) => {
            Err(Failure::unavailable(format!("`--device={device}` asks for a GPU, and this build has no GPU backend"))
                .hint("leave `--device` out to run on the CPU"))
        }
        (backend, Some(device)) => {
            Err(Failure::usage(format!("`--device={device}` chooses a GPU, but `--backend={backend}` runs on the CPU"))
                .hint("leave `--device` out; `--threads` says how many CPU threads"))
        }
        (Backend::Auto, None) => {
            chosen(Backend::Cpu, Some("backend: cpu (auto: this build has no GPU backend)".to_owned()))
        }
        (backend, None) => chosen(backend, None),
    }
}

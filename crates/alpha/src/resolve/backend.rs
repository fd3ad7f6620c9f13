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
    pub(crate) notes: Vec<String>,
}

/// Threads a core beyond which they are more than a little too many.
const MANY_THREADS: usize = 2;

/// Decides where operations run.
pub(crate) fn place(flags: &BackendFlags) -> Result<Place, Failure> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let threads = flags.threads.unwrap_or(cores);
    let too_many = (threads > MANY_THREADS * cores).then(|| {
        format!(
            "warning: `--threads={threads}` on {cores} cores: threads will wait for each other; \
             leave it out to use every core once"
        )
    });
    let chosen = |backend, note: Option<String>| {
        Ok(Place { backend, threads, notes: note.into_iter().chain(too_many).collect() })
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_more_threads_than_cores_are_warned_of() {
        let cores = available_parallelism().unwrap().get();
        let notes = |threads| place(&BackendFlags { backend: Backend::Cpu, threads, device: None }).unwrap().notes;
        assert_eq!(notes(None), [] as [String; 0]);
        assert_eq!(notes(Some(2 * cores)), [] as [String; 0]);
        let many = 2 * cores + 1;
        let [warning] = &notes(Some(many))[..] else { panic!("one warning") };
        assert!(warning.starts_with(&format!("warning: `--threads={many}` on {cores} cores")), "{warning}");
    }
}

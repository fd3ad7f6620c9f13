//! Who runs the operations: `auto` decided, what cannot be meant refused.

use std::{num::NonZero, thread::available_parallelism};

use alpha_train::config::Backend;
use helios::{DeviceInfo, DeviceKind};

use crate::{exit::Failure, flags::train::BackendFlags};

/// A backend, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Not `auto`.
    pub(crate) backend: Backend,
    /// CPU threads.
    pub(crate) threads: usize,
    /// GPU by number or name.
    pub(crate) device: Option<String>,
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
    let (backend, device, note) = match (flags.backend, &flags.device) {
        (Backend::Helios, device) => (Backend::Helios, device.clone(), None),
        (Backend::Auto, Some(device)) => (Backend::Helios, Some(device.clone()), None),
        (backend @ (Backend::Cpu | Backend::CpuRef), Some(device)) => {
            return Err(Failure::usage(format!(
                "`--device={device}` chooses a GPU, but `--backend={backend}` runs on the CPU"
            ))
            .hint("leave `--device` out; `--threads` says how many CPU threads"));
        }
        (Backend::Auto, None) => {
            let (backend, why) = automatic(&helios::devices());
            (backend, None, Some(why))
        }
        (backend, None) => (backend, None, None),
    };
    Ok(Place { backend, threads, device, notes: note.into_iter().chain(too_many).collect() })
}

/// What `auto` takes: a GPU, never a software device; and the line that says so.
fn automatic(devices: &[DeviceInfo]) -> (Backend, String) {
    let is_gpu = |device: &&DeviceInfo| device.kind != DeviceKind::Software && device.lacks.is_none();
    if devices.iter().any(|device| is_gpu(&device)) {
        return (Backend::Helios, "backend: helios (auto: there is a GPU)".to_owned());
    }
    let why = match devices {
        [] => "no GPU found".to_owned(),
        [device, ..] => match &device.lacks {
            Some(why) => format!("`{}` cannot run the kernels: {why}", device.name),
            None => format!("`{}` is a software device, no GPU", device.name),
        },
    };
    (Backend::Cpu, format!("backend: cpu (auto: {why})"))
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

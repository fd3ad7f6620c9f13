//! Where operations run: decides what `auto` means, and refuses combinations that make no sense.

use std::{num::NonZero, thread::available_parallelism};

use alpha_train::{
    TrainError,
    config::{Backend, Dtype, backend::BackendChoice},
};
use helios::{DeviceChoice, DeviceInfo, DeviceKind};

use crate::{exit::Failure, flags::train::BackendFlags};

/// Threads a core beyond which a warning is given.
const MANY_THREADS: usize = 2;

/// Decides where operations run, and returns notes on that choice for stderr.
pub(crate) fn choose_backend(flags: &BackendFlags, dtype: Dtype) -> Result<(BackendChoice, Vec<String>), Failure> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let threads = flags.threads.unwrap_or(cores);
    let too_many = (threads > MANY_THREADS * cores).then(|| {
        format!(
            "warning: `--threads={threads}` on {cores} cores: threads will wait for each other; \
             leave it out to use every core once"
        )
    });
    let (backend, device, note) = match (flags.backend, &flags.device) {
        (Backend::Helios, device) => {
            check_device(device.as_deref())?;
            (Backend::Helios, device.clone(), None)
        }
        (Backend::Auto, Some(device)) => {
            check_device(Some(device))?;
            (Backend::Helios, Some(device.clone()), None)
        }
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
    let matmul = flags.matmul;
    if let Some(matmul) = matmul.filter(|_| backend != Backend::Helios) {
        return Err(Failure::usage(format!(
            "`--matmul={matmul}` names a kernel of GPUs, but `--backend={backend}` runs"
        ))
        .hint("leave `--matmul` out, or run with `--backend=helios`"));
    }
    let choice = BackendChoice { backend, threads, device, matmul, dtype };
    Ok((choice, note.into_iter().chain(too_many).collect()))
}

/// Refuses a GPU that does not exist before any data is read.
fn check_device(device: Option<&str>) -> Result<(), Failure> {
    let choice = device.map_or(DeviceChoice::Best, |device| DeviceChoice::Named(device.to_owned()));
    helios::find(&choice).map_err(TrainError::from)?;
    Ok(())
}

/// The backend that `auto` stands for: a GPU but never a software device, else the CPU; and the line that says so.
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
    fn auto_takes_a_gpu_and_never_a_software_device() {
        let device = |kind, lacks: Option<&str>| DeviceInfo {
            index: 0,
            name: "it".into(),
            kind,
            api: "vulkan".into(),
            driver: String::new(),
            subgroup: (32, 32),
            features: Vec::new(),
            matrix_size: None,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: 1 << 15,
            memory_bytes: None,
            lacks: lacks.map(str::to_owned),
        };
        let software = device(DeviceKind::Software, None);
        let card = device(DeviceKind::Discrete, None);
        let old = device(DeviceKind::Integrated, Some("it has no push constants"));
        assert_eq!(automatic(&[software.clone(), card]).0, Backend::Helios);
        assert_eq!(automatic(&[]), (Backend::Cpu, "backend: cpu (auto: no GPU found)".into()));
        assert_eq!(
            automatic(&[software]),
            (Backend::Cpu, "backend: cpu (auto: `it` is a software device, no GPU)".into())
        );
        let (backend, note) = automatic(&[old]);
        assert!(backend == Backend::Cpu && note.contains("no push constants"), "{note}");
    }

    #[test]
    fn far_more_threads_than_cores_are_warned_of() {
        let cores = available_parallelism().unwrap().get();
        let notes = |threads| {
            let flags = BackendFlags { backend: Backend::Cpu, threads, device: None, matmul: None };
            choose_backend(&flags, Dtype::F32).unwrap().1
        };
        assert_eq!(notes(None), [] as [String; 0]);
        assert_eq!(notes(Some(2 * cores)), [] as [String; 0]);
        let many = 2 * cores + 1;
        let [warning] = &notes(Some(many))[..] else { panic!("one warning") };
        assert!(warning.starts_with(&format!("warning: `--threads={many}` on {cores} cores")), "{warning}");
    }
}

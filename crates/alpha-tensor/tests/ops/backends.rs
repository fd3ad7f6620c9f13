//! The backends under test. A new one is one line here.

use alpha_tensor::{
    Backend, BackendError,
    cpu::{CpuBackend, Level},
    cpu_ref::RefBackend,
};
use helios::{DeviceKind, HeliosBackend, Options};

/// A backend and the name under which a failure mentions it.
pub(crate) type NamedBackend = (String, Box<dyn Backend>);

type Started = Result<Box<dyn Backend>, BackendError>;

/// Every backend that this machine has; the others are printed as skipped.
pub(crate) fn backends() -> Vec<NamedBackend> {
    let mut candidates: Vec<(String, Started)> = vec![("cpu_ref f32".into(), Ok(Box::new(RefBackend::<f32>::new())))];
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        for threads in [1, 2] {
            let backend = CpuBackend::with_level(threads, level).map(|backend| Box::new(backend) as Box<dyn Backend>);
            candidates.push((format!("cpu {level}, {threads} threads"), backend));
        }
    }
    for kind in [DeviceKind::Software, DeviceKind::Discrete] {
        for checked in [true, false] {
            let options = Options { checked, kernels_for: Some(kind), ..Options::default() };
            let bounds = if checked { BOUNDS_CHECKED } else { "" };
            candidates.push((format!("helios, {kind} kernels{bounds}"), helios(&options)));
        }
    }
    let mut present = Vec::new();
    for (name, backend) in candidates {
        match backend {
            Ok(backend) => present.push((name, backend)),
            Err(BackendError::Unsupported { why, .. }) => println!("SKIPPED {name}: {why}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    present
}

/// Whether a backend runs a case. A software device compiles each kernel for a quarter of a second, those with bounds checks
/// most slowly: so each case runs with the kernels of one of the two kinds of devices, drawn by its number, and one in six
/// with bounds checks, of the other kind.
pub(crate) fn runs(name: &str, case: usize) -> bool {
    let draw = (case as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40; // Fibonacci hashing: no pattern of cases repeats in it
    let is_drawn = |kind: DeviceKind| name.starts_with(&format!("helios, {kind} kernels"));
    let [own, other] = if draw.is_multiple_of(2) {
        [DeviceKind::Software, DeviceKind::Discrete]
    } else {
        [DeviceKind::Discrete, DeviceKind::Software]
    };
    match name.ends_with(BOUNDS_CHECKED) {
        _ if !name.starts_with("helios") => true,
        true => is_drawn(other) && draw.is_multiple_of(3),
        false => is_drawn(own),
    }
}

const BOUNDS_CHECKED: &str = ", bounds checked";

/// A GPU, or a software device in its place.
fn helios(options: &Options) -> Started {
    let unavailable = |why: String| BackendError::Unsupported { op: "start", backend: "helios", why };
    let backend = HeliosBackend::open(options).map_err(|error| unavailable(error.to_string()))?;
    Ok(Box::new(backend))
}

/// The CPU backend with different numbers of threads.
pub(crate) fn cpu_by_threads() -> Vec<NamedBackend> {
    let backend = |threads| -> NamedBackend {
        let backend = CpuBackend::new(threads).expect("threads can be started");
        (format!("{threads} threads"), Box::new(backend))
    };
    [1, 2, 3, 7, 16, 64].map(backend).into()
}

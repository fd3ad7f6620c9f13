//! Opening a device for work: its kernels chosen, every operation on it checked.

pub(crate) mod self_test;
pub(crate) mod tuning;

use alpha_tensor::BackendError;

use self::self_test::{dispatches, self_test};
use crate::{
    backend::HeliosBackend,
    device::{
        HeliosError, Options,
        cache::{self, Keep},
    },
    format16::Format16,
    kernels::Profile,
};

impl HeliosBackend {
    /// Opens a device and, where `keep` does not hold that it passed before, checks every operation on it.
    pub fn open_tested(options: &Options, keep: Box<dyn Keep>) -> Result<HeliosBackend, HeliosError> {
        let mut backend = HeliosBackend::open_with(options, Some(keep))?;
        let info = backend.gpu.info.clone();
        let software =
            if backend.gpu.is_software() { ": A SOFTWARE DEVICE, NOT A GPU; `--backend=cpu` is faster" } else { "" };
        backend.notes.push(format!("backend: helios on `{}` ({}, {}){software}", info.name, info.api, info.driver));
        if options.matmul.is_none() {
            backend.choose_variants().map_err(|error| info.lacking(cache::cannot_run(&error)))?;
        }
        let name = cache::name(&backend.gpu.info, &self_test_name(&backend.profile, options.format16));
        let has_passed =
            backend.keep.as_ref().and_then(|keep| keep.read(&name)).is_some_and(|entry| entry == cache::PASSED);
        if !has_passed {
            let failed = |why| HeliosError::SelfTest { device: info.name.clone(), driver: info.driver.clone(), why };
            if let Some(mismatch) = self_test(&mut backend).map_err(|error| failed(cache::cannot_run(&error)))? {
                return Err(failed(mismatch.to_string()));
            }
            backend.forget();
            let kept = backend.keep.as_ref().map_or(Ok(()), |keep| keep.write(&name, cache::PASSED));
            backend.warn(kept);
        }
        Ok(backend)
    }

    /// Takes the variants that an earlier start chose on this device, or chooses and keeps them.
    fn choose_variants(&mut self) -> Result<(), BackendError> {
        let name = cache::name(&self.gpu.info, cache::tuning(self.format16()));
        let kept = self.keep.as_ref().and_then(|keep| keep.read(&name));
        if let Some([matmul, matmul16]) = kept.as_deref().and_then(|text| tuning::from_text(self, text)) {
            (self.profile.matmul, self.profile.matmul16) = (matmul, matmul16);
            return Ok(());
        }
        if kept.is_some() {
            self.notes
                .push("warning: the kept choice of kernels does not fit this device; it is made again".to_owned());
        }
        tuning::tune(self)?;
        self.forget();
        let kept =
            self.keep.as_ref().map_or(Ok(()), |keep| keep.write(&name, tuning::to_text(&self.profile).as_bytes()));
        self.warn(kept);
        Ok(())
    }
}

/// What a passed self-test is kept as: which kernels it ran.
fn self_test_name(profile: &Profile, format: Option<Format16>) -> String {
    format!("self-test {format:?} {}\n{}", tuning::to_text(profile), dispatches(profile, format))
}

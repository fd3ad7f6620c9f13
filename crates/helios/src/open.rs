//! A backend made ready for its device: products measured, every operation checked.

pub(crate) mod tuning;
pub(crate) mod self_test;

use alpha_tensor::BackendError;

use self::self_test::{dispatches, self_test};
use crate::{
    backend::HeliosBackend,
    device::{
        HeliosError, Options,
        cache::{self, BlobStore},
    },
};

impl HeliosBackend {
    /// Opens a device. Checks every operation on it, unless `store` says that it has passed before.
    pub fn open_tested(options: &Options, store: Box<dyn BlobStore>) -> Result<HeliosBackend, HeliosError> {
        let mut backend = HeliosBackend::open_with(options, Some(store))?;
        let info = backend.gpu.info.clone();
        let software =
            if backend.gpu.is_software() { ": A SOFTWARE DEVICE, NOT A GPU; `--backend=cpu` is faster" } else { "" };
        backend.notes.push(format!("backend: helios on `{}` ({}, {}){software}", info.name, info.api, info.driver));
        if options.matmul.is_none() {
            let not_timed = |error| format!("the products that suit it could not be timed: {error}");
            backend.choose_variants().map_err(|error| info.lacking(not_timed(error)))?;
        }
        let not_run = |error: BackendError| format!("its self-test could not run: {error}");
        let name = cache::name(&info, &backend.self_test_name());
        if backend.stored(&name).as_deref() != Some(cache::PASSED) {
            let failed = |why| HeliosError::SelfTest { device: info.name.clone(), driver: info.driver.clone(), why };
            if let Some(mismatch) = self_test(&mut backend).map_err(|error| failed(not_run(error)))? {
                return Err(failed(mismatch.to_string()));
            }
            backend.reset();
            backend.store(&name, cache::PASSED);
        }
        Ok(backend)
    }

    /// Takes the variants that an earlier start chose on this device, or chooses and stores them.
    fn choose_variants(&mut self) -> Result<(), BackendError> {
        let name = cache::name(&self.gpu.info, cache::tuning(self.format16));
        let stored = self.stored(&name);
        if let Some([matmul, matmul16]) = stored.as_deref().and_then(|text| tuning::from_text(&self.gpu, text)) {
            (self.profile.matmul, self.profile.matmul16) = (matmul, matmul16);
            return Ok(());
        }
        if stored.is_some() {
            self.notes
                .push("warning: the kept choice of kernels does not fit this device; it is made again".to_owned());
        }
        tuning::tune(self)?;
        self.reset();
        self.store(&name, tuning::to_text(&self.profile).as_bytes());
        Ok(())
    }

    /// The name of the entry that says that the self-test passed: it holds everything that the test runs.
    fn self_test_name(&self) -> String {
        let dispatches = dispatches(&self.profile, self.format16);
        format!("self-test {:?} {}\n{dispatches}", self.format16, tuning::to_text(&self.profile))
    }
}

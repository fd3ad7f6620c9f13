//! Why there is no device to run on.

use crate::kernels::{Variant, VariantError};

/// Why there is no device to run on. [`HeliosError::hint`] says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HeliosError {
    /// The system has no device.
    #[error("no GPU found: looked for Vulkan, Metal and DX12 devices")]
    NoDevice,
    /// A number or name that fits no device.
    #[error("no device `{asked}` among: {found}")]
    NoSuchDevice {
        /// The user's text.
        asked: String,
        /// All devices.
        found: String,
    },
    /// A name that fits several devices.
    #[error("`{asked}` fits several devices: {found}")]
    Ambiguous {
        /// The user's text.
        asked: String,
        /// The devices that fit.
        found: String,
    },
    /// A kernel that the user named and that the device cannot run.
    #[error("`--matmul={pinned}` cannot run on `{device}`: {why}")]
    Pinned {
        /// The kernel.
        pinned: Variant,
        /// The device.
        device: String,
        /// What is missing.
        why: VariantError,
    },
    /// The device does not compute what the reference computes.
    #[error("`{device}` failed its self-test: {why}")]
    SelfTest {
        /// Its name.
        device: String,
        /// Its driver.
        driver: String,
        /// The operation, and what it computed.
        why: String,
    },
    /// The device or its driver lacks something.
    #[error("`{device}` cannot run the kernels: {why}")]
    Lacks {
        /// Its name.
        device: String,
        /// Its driver.
        driver: String,
        /// What is missing.
        why: String,
    },
}

impl HeliosError {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        let other_driver = |driver: &str| {
            format!("update the driver ({driver}), choose another `--device`, or run with `--backend=cpu`")
        };
        match self {
            HeliosError::NoDevice => {
                "install the driver of your card; on Debian `apt-get install mesa-vulkan-drivers` has those for AMD and \
                 Intel, and a slow one without any GPU; or run with `--backend=cpu`"
                    .to_owned()
            }
            HeliosError::NoSuchDevice { .. } => {
                "`alpha devices` lists them; give a number or a part of one name".to_owned()
            }
            HeliosError::Ambiguous { .. } => "give the number".to_owned(),
            HeliosError::Pinned { .. } => "leave `--matmul` out, or give a smaller one".to_owned(),
            HeliosError::SelfTest { driver, .. } => format!("{}; please report it", other_driver(driver)),
            HeliosError::Lacks { driver, .. } => other_driver(driver),
        }
    }
}

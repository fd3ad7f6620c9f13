//! Why there is no device to run on.

use crate::kernels::{Variant, VariantError};

/// Why there is no device to run on. The help of [`miette::Diagnostic`] says what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum HeliosError {
    /// The system has no device.
    #[error("no GPU found: looked for Vulkan, Metal and DX12 devices")]
    #[diagnostic(help(
        "install the driver of your card; on Debian `apt-get install mesa-vulkan-drivers` has those for AMD and Intel, and a slow \
         one without any GPU; or run with `--backend=cpu`"
    ))]
    NoDevice,
    /// A number or name that fits no device.
    #[error("no device `{asked}` among: {found}")]
    #[diagnostic(help("`alpha devices` lists them; give a number or a part of one name"))]
    NoSuchDevice {
        /// The user's text.
        asked: String,
        /// All devices.
        found: String,
    },
    /// A name that fits several devices.
    #[error("`{asked}` fits several devices: {found}")]
    #[diagnostic(help("give the number"))]
    Ambiguous {
        /// The user's text.
        asked: String,
        /// The devices that fit.
        found: String,
    },
    /// A kernel that the user named and that the device cannot run.
    #[error("`--matmul={pinned}` cannot run on `{device}`: {why}")]
    #[diagnostic(help("leave `--matmul` out, or give a smaller one"))]
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
    #[diagnostic(help(
        "update the driver ({driver}), choose another `--device`, or run with `--backend=cpu`; please report it"
    ))]
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
    #[diagnostic(help("update the driver ({driver}), choose another `--device`, or run with `--backend=cpu`"))]
    Lacks {
        /// Its name.
        device: String,
        /// Its driver.
        driver: String,
        /// What is missing.
        why: String,
    },
}

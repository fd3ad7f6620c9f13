//! The contract between programs and the backends that run them.

use crate::{
    op::Op,
    program::Program,
    tensor::{RESULTS_LEN, Region, RegionSizes, Tensor},
    timeline::Timeline,
};

/// Everything about one run of a program that is not fixed when it is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunArgs {
    /// The user's seed; with `step` and `micro_step` the key of every dropout mask.
    pub seed: u64,
    /// Optimiser step, counted from 1.
    pub step: u64,
    /// Micro-step within the step, counted from 0.
    pub micro_step: u32,
    /// Optimiser updates applied, this one included: `t` of AdamW.
    pub update: u64,
    /// Learning rate.
    pub lr: f32,
    /// Position of the first new token when decoding, else 0.
    pub position: usize,
    /// Apply the update only if [`Region::Results`] says that the one before was applied: a step that was enqueued
    /// behind one that ends the run changes nothing.
    pub is_chained: bool,
    /// Factor of every gradient until [`crate::op::GradNorm`] and [`crate::op::AdamW`] divide by it, so that small gradients
    /// do not become 0 in 16 bits (Micikevicius et al., 2018, section 3.2). A power of two.
    pub loss_scale: f32,
}

impl Default for RunArgs {
    fn default() -> RunArgs {
        RunArgs { seed: 0, step: 0, micro_step: 0, update: 0, lr: 0.0, position: 0, is_chained: false, loss_scale: 1.0 }
    }
}

/// The numbers that a program hands back: [`Region::Results`], in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Results {
    /// Set by [`crate::op::LossSum`].
    pub loss: f32,
    /// Global L2 norm of the mean gradient before clipping.
    pub grad_norm: f32,
    /// Factor of the gradient.
    pub clip_coef: f32,
    /// Whether the optimiser applied the update.
    pub is_applied: bool,
}

impl Results {
    /// Elements of [`Region::Results`].
    pub const LEN: usize = RESULTS_LEN;

    /// The region as one tensor.
    pub fn tensor() -> Tensor {
        Tensor::new(Region::Results, 0, 1, Results::LEN)
    }

    /// The loss slot.
    pub fn loss_tensor() -> Tensor {
        Tensor::new(Region::Results, 0, 1, 1)
    }

    /// Reads the region's content.
    pub fn from_slice(values: [f32; Results::LEN]) -> Results {
        Results { loss: values[0], grad_norm: values[1], clip_coef: values[2], is_applied: values[3] != 0.0 }
    }
}

/// Why a backend refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The operation cannot run here; nothing else is tried in its place.
    #[error("`{op}` cannot run on `{backend}`: {why}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// The backend.
        backend: &'static str,
        /// The reason.
        why: String,
    },
    /// An allocation failed.
    #[error("out of memory: {asked_bytes} bytes asked for {what}")]
    OutOfMemory {
        /// Bytes of the allocation.
        asked_bytes: usize,
        /// Its purpose.
        what: &'static str,
    },
    /// A device or its driver failed, or the device was lost.
    #[error("`{device}` failed: {why}")]
    DeviceFailed {
        /// Its name.
        device: String,
        /// The message of the device or its driver.
        why: String,
    },
    /// A program that was not prepared, or needs more than was prepared.
    #[error("invalid program: {0}")]
    InvalidProgram(String),
}

/// Counts of a device's work since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    /// Kernels that were recorded.
    pub dispatches: u64,
    /// Recordings that were handed over.
    pub submissions: u64,
    /// Times that the host waited for memory of the device, not counting results.
    pub read_backs: u64,
}

impl std::ops::Sub for Launches {
    type Output = Launches;

    fn sub(self, before: Launches) -> Launches {
        Launches {
            dispatches: self.dispatches - before.dispatches,
            submissions: self.submissions - before.submissions,
            read_backs: self.read_backs - before.read_backs,
        }
    }
}

/// A device, and where its memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// The device's name in records, with `software` where it is not a GPU.
    pub device: String,
    /// Whether regions lie in the host's memory.
    pub is_host: bool,
    /// Bytes of memory, where the driver reports them.
    pub total_bytes: Option<u64>,
}

/// Owns one buffer per [`Region`] and runs programs on them.
pub trait Backend {
    /// `cpu`, `cpu_ref`, `helios`.
    fn name(&self) -> &'static str;

    /// The device, where the regions are not simply the host's memory.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Notes for the user, each returned once: which device it is, what could not be cached.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Counts of the device's work so far; none where programs run on the host.
    fn launches(&self) -> Option<Launches> {
        None
    }

    /// Bytes that [`Backend::prepare`] will allocate beyond the regions themselves.
    fn scratch_bytes(&self, programs: &[&Program]) -> usize;

    /// Allocates the regions, zeroed, and all else that the programs need, once, before the first run.
    /// Fails if an operation of a program cannot run here. Calling it again starts over.
    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError>;

    /// Copies `data` into an f32 region, starting at element `offset`.
    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError>;

    /// Copies elements of an f32 region into `out`, starting at element `offset`.
    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError>;

    /// Copies token ids into [`Region::Inputs`], starting at element `offset`, for the programs that run from here on.
    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError>;

    /// Runs the program or enqueues it; later reads see its results. Allocates nothing. With a timeline, times
    /// every operation, and returns when all are done.
    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError>;

    /// Most requests for results that can be open while another step is enqueued; 0 where programs run immediately.
    fn results_ahead(&self) -> usize {
        0
    }

    /// Requests the [`Region::Results`] that the programs so far leave, without waiting for them.
    fn request_results(&mut self) -> Result<(), BackendError>;

    /// The oldest requested results that were not collected; waits for them.
    fn collect_results(&mut self) -> Result<Results, BackendError>;

    /// The [`Region::Results`] that the programs so far leave, where no other request is open.
    fn results(&mut self) -> Result<Results, BackendError> {
        self.request_results()?;
        self.collect_results()
    }

    /// An error for an operation that cannot run.
    fn unsupported(&self, op: &Op, why: impl Into<String>) -> BackendError
    where
        Self: Sized,
    {
        BackendError::Unsupported { op: op.name(), backend: self.name(), why: why.into() }
    }
}

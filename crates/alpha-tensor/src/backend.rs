//! The contract between a program and whoever runs it.

use crate::{
    op::Op,
    program::Program,
    tensor::{Region, RegionSizes, Tensor},
    timeline::Timeline,
};

/// Everything about one run of a program that is not fixed when it is built.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
}

/// What a program hands back: [`Region::Results`], in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Results {
    /// Set by [`crate::op::LossSum`].
    pub loss: f32,
    /// Global L2 norm of the mean gradient before clipping.
    pub grad_norm: f32,
    /// What the gradient was multiplied with.
    pub clip_coef: f32,
    /// Whether the optimiser applied the update.
    pub is_applied: bool,
}

impl Results {
    /// Elements of [`Region::Results`].
    pub const LEN: usize = 4;

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

/// Why a backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The operation cannot run here; nothing else is tried in its place.
    #[error("`{op}` cannot run on `{backend}`: {why}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// The backend.
        backend: &'static str,
        /// What is missing.
        why: String,
    },
    /// Memory could not be had.
    #[error("out of memory: {asked_bytes} bytes asked for {what}")]
    OutOfMemory {
        /// Bytes asked.
        asked_bytes: usize,
        /// For what.
        what: &'static str,
    },
    /// A program that breaks the rules of [`Program::verify`].
    #[error("invalid program: {0}")]
    InvalidProgram(String),
}

/// A maker of the operations. A backend owns one buffer per [`Region`] and runs programs on them.
pub trait Backend {
    /// `cpu`, `cpu_ref`, `helios`.
    fn name(&self) -> &'static str;

    /// Bytes that [`Backend::prepare`] will allocate beyond the regions themselves.
    fn scratch_bytes(&self, programs: &[&Program]) -> usize;

    /// Allocates the regions, zeroed, and whatever the programs need, once, before the first run.
    /// Fails if an operation of a program cannot run here. Calling it again starts afresh.
    fn prepare(&mut self, sizes: &RegionSizes, programs: &[&Program]) -> Result<(), BackendError>;

    /// Copies `data` into an f32 region, starting at element `offset`.
    fn write(&mut self, region: Region, offset: usize, data: &[f32]);

    /// Copies elements of an f32 region into `out`, starting at element `offset`.
    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]);

    /// Copies token ids into [`Region::Inputs`], starting at element `offset`.
    fn write_tokens(&mut self, offset: usize, tokens: &[u32]);

    /// Runs the program to its end. Allocates nothing. With a timeline, times every operation.
    fn run(&mut self, program: &Program, args: &RunArgs, timeline: Option<&mut Timeline>) -> Result<(), BackendError>;

    /// What the programs run so far left in [`Region::Results`].
    fn results(&mut self) -> Results {
        let mut values = [0.0; Results::LEN];
        self.read(Region::Results, 0, &mut values);
        Results::from_slice(values)
    }

    /// An error for an operation that cannot run.
    fn unsupported(&self, op: &Op, why: impl Into<String>) -> BackendError
    where
        Self: Sized,
    {
        BackendError::Unsupported { op: op.name(), backend: self.name(), why: why.into() }
    }
}

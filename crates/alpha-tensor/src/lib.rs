//! The operations of a training step: what they are ([`op`]), how a step is written down
//! ([`program`]), who can run it ([`backend`]), and two that do: [`cpu_ref`], plain and
//! obviously right, and [`cpu`], fast.
//!
//! This crate knows nothing of models, files or GPUs.

pub mod tensor;
pub mod rng;
pub mod op;
pub mod program;
pub mod timeline;
pub mod backend;
pub mod cpu_ref;
pub mod cpu;

pub use self::{
    backend::{Backend, BackendError, DeviceMemory, Launches, Results, RunArgs},
    op::Op,
    program::{Counters, OpCall, Phase, Program, ProgramBuilder},
    tensor::{Region, RegionSizes, Tensor},
    timeline::{Span, Timeline},
};

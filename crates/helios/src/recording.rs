//! A program's plan: its dispatches with pipelines and bind groups, made once. Each run records it into an encoder.

pub(crate) mod memory;
pub(crate) mod pipelines;

use alpha_tensor::{BackendError, Program, RunArgs};
use wgpu::util::DeviceExt;

use self::{
    memory::{Memory, Window, window},
    pipelines::Pipelines,
};
use crate::{
    device::Gpu,
    kernels::{Dispatch, Lowering, LoweringError, Operand, Params, Profile},
};

/// One dispatch, ready to be recorded.
struct BoundDispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    /// The first elements of the operands, then the kernel's own parameters.
    params: Params,
    groups: [u32; 3],
}

/// A program that is ready to run.
pub(crate) struct Plan {
    dispatches: Vec<BoundDispatch>,
    /// The end of each operation's dispatches.
    ends: Vec<usize>,
    /// The cost of each operation.
    costs: Vec<u64>,
}

/// Lowers every operation of a program. An error names the first that cannot run.
pub(crate) fn lower<'a>(program: &Program, profile: &'a Profile) -> Result<Vec<Lowering<'a>>, BackendError> {
    let unsupported =
        |op, error: LoweringError| BackendError::Unsupported { op, backend: "helios", why: error.to_string() };
    program
        .ops()
        .iter()
        .map(|call| Lowering::of(&call.op, profile).map_err(|error| unsupported(call.op.name(), error)))
        .collect()
}

impl Plan {
    /// Compiles the kernels and binds their operands.
    pub(crate) fn new(
        gpu: &Gpu,
        lowered: Vec<Lowering<'_>>,
        costs: Vec<u64>,
        memory: &Memory,
        pipelines: &mut Pipelines,
    ) -> Result<Plan, BackendError> {
        let mut plan = Plan { dispatches: Vec::new(), ends: Vec::new(), costs };
        for lowering in lowered {
            for dispatch in lowering.dispatches {
                plan.dispatches.push(bind(gpu, dispatch, memory, pipelines)?);
            }
            plan.ends.push(plan.dispatches.len());
        }
        Ok(plan)
    }

    /// The number of dispatches in a run.
    pub(crate) fn len(&self) -> usize {
        self.dispatches.len()
    }

    /// The range of dispatches of each operation.
    pub(crate) fn operations(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        (0..self.ends.len()).map(|index| self.start_of(index)..self.ends[index])
    }

    /// The cost of each operation.
    pub(crate) fn costs(&self) -> &[u64] {
        &self.costs
    }

    /// The first dispatch of an operation.
    pub(crate) fn start_of(&self, operation: usize) -> usize {
        if operation == 0 { 0 } else { self.ends[operation - 1] }
    }

    /// Records some of the dispatches.
    pub(crate) fn record(&mut self, pass: &mut wgpu::ComputePass<'_>, args: &RunArgs, range: std::ops::Range<usize>) {
        for bound in &mut self.dispatches[range] {
            let Params { words, run_values } = &mut bound.params;
            for &mut (at, value) in run_values {
                value.apply(args, &mut words[at..]);
            }
            pass.set_pipeline(&bound.pipeline);
            pass.set_bind_group(0, &bound.group, &[]);
            pass.set_immediates(0, bytemuck::cast_slice(words));
            let [x, y, z] = bound.groups;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

fn bind(
    gpu: &Gpu,
    dispatch: Dispatch,
    memory: &Memory,
    pipelines: &mut Pipelines,
) -> Result<BoundDispatch, BackendError> {
    let pipeline = pipelines.get(gpu, &dispatch.shader)?;
    let constants: Vec<Option<wgpu::Buffer>> = dispatch.operands.iter().map(|operand| constant(gpu, operand)).collect();
    let windows: Vec<Window<'_>> = dispatch
        .operands
        .iter()
        .zip(&constants)
        .map(|(operand, constant)| match (operand, constant) {
            (Operand::Tensor(tensor), _) => memory.window(gpu, tensor),
            (Operand::Scratch(start, len), _) => memory.scratch_window(gpu, *start, *len),
            (Operand::Constant(numbers), Some(buffer)) => window(gpu, buffer, 4, [0, numbers.len()]),
            (Operand::Constant(_) | Operand::Absent, _) => window(gpu, &memory.nothing, 4, [0, 1]),
        })
        .collect();
    let entries: Vec<_> = windows
        .iter()
        .enumerate()
        .map(|(binding, window)| wgpu::BindGroupEntry {
            binding: binding as u32,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: window.buffer,
                offset: window.offset,
                size: wgpu::BufferSize::new(window.size),
            }),
        })
        .collect();
    let layout = pipelines.layout(gpu, entries.len());
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(dispatch.shader.name),
        layout: &layout,
        entries: &entries,
    });
    let mut words: Vec<u32> = windows.iter().map(|window| window.first).collect();
    let own = words.len();
    words.extend(dispatch.params.words);
    let run_values = dispatch.params.run_values.into_iter().map(|(at, value)| (own + at, value)).collect();
    Ok(BoundDispatch { pipeline, group, params: Params { words, run_values }, groups: dispatch.groups })
}

fn constant(gpu: &Gpu, operand: &Operand) -> Option<wgpu::Buffer> {
    let Operand::Constant(numbers) = operand else { return None };
    let mut content = numbers.clone();
    content.resize(numbers.len().max(1).next_multiple_of(4), 0);
    Some(gpu.device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some("constant"),
        contents: bytemuck::cast_slice(&content),
        usage: wgpu::BufferUsages::STORAGE,
    }))
}

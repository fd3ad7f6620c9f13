//! Programs: a step written down once, as a list of operations with planned memory.
//!
//! [`ProgramBuilder`] collects operations on virtual activations; [`ProgramBuilder::build`]
//! finds when each activation is alive and gives it an offset, so that activations which are
//! never alive together share memory.

use crate::{
    op::{Access, Op, OpFault},
    tensor::{ALIGN_ELEMENTS, Region, RegionSizes, Tensor},
};

/// Part of the step in which an operation's time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Forward, loss included.
    Forward,
    /// Backward.
    Backward,
    /// Norm of the gradient.
    GradNorm,
    /// Optimiser.
    Optimizer,
}

/// One operation in a program.
#[derive(Clone, Debug, PartialEq)]
pub struct OpCall {
    /// The operation.
    pub op: Op,
    /// The part of the step in which its time counts.
    pub phase: Phase,
    /// Transformer layer it belongs to, if any.
    pub layer: Option<u32>,
}

/// Exact counters of one run of a program, from the operation table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations run.
    pub kernels: u64,
    /// Tensors read plus tensors written.
    pub tensor_passes: u64,
    /// The fewest bytes that must cross memory.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Counters {
    /// Counters of one operation.
    fn of(op: &Op) -> Counters {
        let mut tensor_passes = 0;
        op.clone().visit(&mut |_, access| tensor_passes += access.passes());
        Counters { kernels: 1, tensor_passes, bytes: op.bytes(), flops: op.flops() }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        self.kernels += other.kernels;
        self.tensor_passes += other.tensor_passes;
        self.bytes += other.bytes;
        self.flops += other.flops;
    }
}

/// The first operation with a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {index} (`{op}`): {fault}")]
pub struct InvalidOp {
    /// Position among the operations.
    pub index: usize,
    /// Its name.
    pub op: &'static str,
    /// Its fault.
    pub fault: OpFault,
}

/// A verified program: the shapes of every operation fit together, every operand lies inside its region, and no operation
/// writes memory that it also uses otherwise, except for the in-place uses that the operation documents. The unchecked
/// accesses of backends rely on this.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    ops: Vec<OpCall>,
    sizes: RegionSizes,
    counters: Counters,
}

impl Program {
    /// Verifies operations on planned memory.
    pub fn new(ops: Vec<OpCall>, sizes: RegionSizes) -> Result<Program, InvalidOp> {
        let mut counters = Counters::default();
        for (index, call) in ops.iter().enumerate() {
            verify(&call.op, &sizes).map_err(|fault| InvalidOp { index, op: call.op.name(), fault })?;
            counters += Counters::of(&call.op);
        }
        Ok(Program { ops, sizes, counters })
    }

    /// In the order in which they run.
    pub fn ops(&self) -> &[OpCall] {
        &self.ops
    }

    /// The least size of every region.
    pub fn sizes(&self) -> &RegionSizes {
        &self.sizes
    }

    /// Totals over the operations.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// One of its operations as a program of its own.
    #[must_use]
    pub fn only(&self, index: usize) -> Program {
        let call = self.ops[index].clone();
        Program { counters: Counters::of(&call.op), ops: vec![call], sizes: self.sizes }
    }
}

/// Whether an operation's operands fit together, lie inside their regions, and share memory only as documented.
fn verify(op: &Op, sizes: &RegionSizes) -> Result<(), OpFault> {
    op.check()?;
    let mut operands = Vec::new();
    op.clone().visit(&mut |tensor, access| operands.push((*tensor, access)));
    for (operand, &(tensor, access)) in operands.iter().enumerate() {
        let end = tensor.rows.checked_mul(tensor.cols).and_then(|len| len.checked_add(tensor.offset));
        if end.is_none_or(|end| end > sizes.get(tensor.region)) {
            return Err(OpFault::OutsideRegion { operand, tensor });
        }
        if access == Access::Read {
            continue;
        }
        for (other, (second, _)) in operands.iter().enumerate() {
            let is_in_place = op.allows_in_place() && tensor == *second;
            if operand != other && tensor.region == second.region && overlaps(&tensor, second) && !is_in_place {
                return Err(OpFault::Overlap { operand, other });
            }
        }
    }
    Ok(())
}

fn overlaps(a: &Tensor, b: &Tensor) -> bool {
    a.offset < b.offset + b.len() && b.offset < a.offset + a.len()
}

/// Collects operations; see the module's text.
#[derive(Debug)]
pub struct ProgramBuilder {
    ops: Vec<OpCall>,
    sizes: RegionSizes,
    /// The virtual activations' regions and sizes in elements; each begins at `index · VIRTUAL_STRIDE`.
    activations: Vec<(Region, usize)>,
    phase: Phase,
    layer: Option<u32>,
}

/// Virtual activations are this far apart, farther than any real one is long, so that a
/// sub-range of one (a chunk of rows) still tells which it belongs to.
const VIRTUAL_STRIDE: usize = 1 << 40;

impl ProgramBuilder {
    /// `fixed` are the sizes of the regions other than activations.
    pub fn new(fixed: RegionSizes) -> ProgramBuilder {
        ProgramBuilder { ops: Vec::new(), sizes: fixed, activations: Vec::new(), phase: Phase::Forward, layer: None }
    }

    /// Makes the regions at least this large.
    pub fn reserve(&mut self, sizes: &RegionSizes) {
        self.sizes = self.sizes.max(sizes);
    }

    /// Operations from here on count in this phase.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Operations from here on belong to this layer.
    pub fn set_layer(&mut self, layer: Option<usize>) {
        self.layer = layer.map(|layer| layer as u32);
    }

    /// A new activation `[rows, cols]`, alive from its first use to its last.
    pub fn activation(&mut self, rows: usize, cols: usize) -> Tensor {
        self.activation_in(Region::Activations, rows, cols)
    }

    /// The same, of 16 bits.
    pub fn activation16(&mut self, rows: usize, cols: usize) -> Tensor {
        self.activation_in(Region::Activations16, rows, cols)
    }

    fn activation_in(&mut self, region: Region, rows: usize, cols: usize) -> Tensor {
        let tensor = Tensor::new(region, self.activations.len() * VIRTUAL_STRIDE, rows, cols);
        self.activations.push((region, tensor.len()));
        tensor
    }

    /// Appends an operation.
    pub fn push(&mut self, op: impl Into<Op>) {
        self.ops.push(OpCall { op: op.into(), phase: self.phase, layer: self.layer });
    }

    /// Plans the activations' memory and closes the program. `kept` activations (results that
    /// the host reads) stay alive to the end; their planned tensors are returned in order.
    ///
    /// # Panics
    /// Where operands do not fit together or lie outside their region: a bug in the code that pushed them.
    pub fn build(mut self, kept: &[Tensor]) -> (Program, Vec<Tensor>) {
        let lifetimes = self.lifetimes(kept);
        let mut offsets = vec![0; self.activations.len()];
        for region in [Region::Activations, Region::Activations16] {
            let of_region = |&(own, size): &(Region, usize)| if own == region { size } else { 0 };
            let sizes: Vec<usize> = self.activations.iter().map(of_region).collect();
            let (own_offsets, total) = assign_offsets(&sizes, &lifetimes);
            offsets.iter_mut().zip(own_offsets).for_each(|(offset, own)| *offset += own);
            self.sizes.set(region, total);
        }
        let planned = |tensor: &Tensor| Tensor {
            offset: offsets[tensor.offset / VIRTUAL_STRIDE] + tensor.offset % VIRTUAL_STRIDE,
            ..*tensor
        };
        for call in &mut self.ops {
            call.op.visit(&mut |tensor, _| {
                if is_activation(tensor) {
                    *tensor = planned(tensor);
                }
            });
        }
        let kept = kept.iter().map(planned).collect();
        match Program::new(self.ops, self.sizes) {
            Ok(program) => (program, kept),
            Err(why) => panic!("a program that cannot run: {why}"),
        }
    }

    /// First and last operation that uses each activation.
    fn lifetimes(&mut self, kept: &[Tensor]) -> Vec<(usize, usize)> {
        let mut lifetimes = vec![(usize::MAX, 0); self.activations.len()];
        for (index, call) in self.ops.iter_mut().enumerate() {
            call.op.visit(&mut |tensor, _| {
                if is_activation(tensor) {
                    let (first, last) = &mut lifetimes[tensor.offset / VIRTUAL_STRIDE];
                    *first = (*first).min(index);
                    *last = (*last).max(index);
                }
            });
        }
        for tensor in kept {
            lifetimes[tensor.offset / VIRTUAL_STRIDE].1 = usize::MAX;
        }
        lifetimes
    }
}

/// Whether the planner chooses its offset.
fn is_activation(tensor: &Tensor) -> bool {
    matches!(tensor.region, Region::Activations | Region::Activations16)
}

/// Greedy by size: the largest activation first, each at the lowest place that is free for
/// its whole lifetime (Pisarchyk and Lee, 2020, "Efficient memory management for deep neural
/// net inference", section 5.2). Returns the offsets and the total, in elements.
fn assign_offsets(sizes: &[usize], lifetimes: &[(usize, usize)]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&i| lifetimes[i].0 != usize::MAX && sizes[i] > 0).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    let mut offsets = vec![0; sizes.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut total = 0;
    for i in order {
        let mut offset = 0;
        for &j in &placed {
            let is_alive_together = lifetimes[i].0 <= lifetimes[j].1 && lifetimes[j].0 <= lifetimes[i].1;
            if !is_alive_together {
                continue;
            }
            if offset + sizes[i] <= offsets[j] {
                break;
            }
            offset = offset.max((offsets[j] + sizes[j]).next_multiple_of(ALIGN_ELEMENTS));
        }
        offsets[i] = offset;
        total = total.max(offset + sizes[i]);
        let at = placed.partition_point(|&j| offsets[j] <= offset);
        placed.insert(at, i);
    }
    (offsets, total.next_multiple_of(ALIGN_ELEMENTS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_live_activations_overlap(items in prop::collection::vec((1usize..200, 0usize..20, 0usize..10), 1..40)) {
            let sizes: Vec<usize> = items.iter().map(|item| item.0).collect();
            let lifetimes: Vec<(usize, usize)> = items.iter().map(|item| (item.1, item.1 + item.2)).collect();
            let (offsets, total) = assign_offsets(&sizes, &lifetimes);
            for i in 0..sizes.len() {
                prop_assert!(offsets[i] + sizes[i] <= total);
                prop_assert_eq!(offsets[i] % ALIGN_ELEMENTS, 0);
                for j in 0..i {
                    let is_alive_together = lifetimes[i].0 <= lifetimes[j].1 && lifetimes[j].0 <= lifetimes[i].1;
                    let is_disjoint = offsets[i] + sizes[i] <= offsets[j] || offsets[j] + sizes[j] <= offsets[i];
                    prop_assert!(!is_alive_together || is_disjoint);
                }
            }
        }
    }

    #[test]
    fn activations_that_never_meet_share_memory() {
        let (offsets, total) = assign_offsets(&[64, 64, 64], &[(0, 1), (2, 3), (4, 5)]);
        assert_eq!((offsets, total), (vec![0, 0, 0], 64));
    }

    #[test]
    fn operations_with_a_fault_are_no_program() {
        let mut sizes = RegionSizes::default();
        sizes.set(Region::Params, 8);
        let message = |x: [usize; 2], out_offset: usize| {
            let x = Tensor::new(Region::Params, 0, x[0], x[1]);
            let op = crate::op::Swiglu { pre: x, out: Tensor::new(Region::Params, out_offset, 1, 2) };
            let call = OpCall { op: op.into(), phase: Phase::Forward, layer: None };
            Program::new(vec![call], sizes).map_err(|error| error.to_string()).map(|program| program.ops().len())
        };
        assert_eq!(message([1, 4], 4), Ok(1));
        assert_eq!(message([1, 3], 4), Err("operation 0 (`swiglu`): `pre` is [1, 3], expected [1, 4]".to_owned()));
        assert_eq!(message([1, 4], 3), Err("operation 0 (`swiglu`): operand 1: overlaps operand 0".to_owned()));
        let outside = message([1, 4], 7).unwrap_err();
        assert!(outside.starts_with("operation 0 (`swiglu`): operand 1: Tensor {"), "{outside}");
        assert!(outside.ends_with("} lies outside its region"), "{outside}");
    }
}

//! The reference backend: every operation as plain loops, for reading and for checking others.
//!
//! Generic over the number type: `RefBackend<f32>` trains, `RefBackend<f64>` makes finite
//! differences meaningful. Operands are copied out of memory before results are stored, so
//! that operations that work in place need no special case. There is one thread; loops are in
//! the order of the formulas in [`crate::op`], one file for each family there.

mod float;
mod activation;
mod dropout;
mod linear;
mod layer_norm;
mod attention;
mod embedding;
mod head;
mod optimizer;

pub use self::float::Float;

use crate::{
    backend::{Backend, BackendError, Results, RunArgs},
    op::Op,
    program::Program,
    tensor::{Region, RegionSizes, Tensor},
    timeline::{Span, Timeline},
};

/// Runs programs with plain loops in numbers of type `F`.
#[derive(Debug, Default)]
pub struct RefBackend<F> {
    memory: Memory<F>,
    /// Results that were requested.
    requested: Option<Results>,
}

/// One buffer for each region.
#[derive(Debug, Default)]
struct Memory<F> {
    /// By [`Region::index`]; that of [`Region::Inputs`] stays empty.
    numbers: [Vec<F>; Region::ALL.len()],
    /// [`Region::Inputs`].
    inputs: Vec<u32>,
}

impl<F: Float> Memory<F> {
    /// A copy of a tensor's elements.
    fn load(&self, tensor: &Tensor) -> Vec<F> {
        self.numbers[tensor.region.index()][tensor.offset..][..tensor.len()].to_vec()
    }

    /// A copy of token ids.
    fn load_tokens(&self, tensor: &Tensor) -> Vec<u32> {
        self.inputs[tensor.offset..][..tensor.len()].to_vec()
    }

    /// Assigns a tensor's elements.
    fn store(&mut self, tensor: &Tensor, values: &[F]) {
        self.numbers[tensor.region.index()][tensor.offset..][..tensor.len()].copy_from_slice(values);
    }

    /// Assigns a gradient, or adds to it.
    fn store_gradient(&mut self, tensor: &Tensor, values: &[F], accumulate: bool) {
        if accumulate {
            let sum: Vec<F> = self.load(tensor).iter().zip(values).map(|(&old, &new)| old + new).collect();
            self.store(tensor, &sum);
        } else {
            self.store(tensor, values);
        }
    }
}

impl<F: Float> RefBackend<F> {
    /// A backend without memory; [`Backend::prepare`] allocates it.
    pub fn new() -> RefBackend<F> {
        RefBackend::default()
    }

    /// A region's content without rounding to f32. Empty for [`Region::Inputs`].
    pub fn region(&self, region: Region) -> &[F] {
        &self.memory.numbers[region.index()]
    }

    /// A region's content for writing without rounding to f32. Empty for [`Region::Inputs`].
    pub fn region_mut(&mut self, region: Region) -> &mut [F] {
        &mut self.memory.numbers[region.index()]
    }
}

impl<F: Float> Backend for RefBackend<F> {
    fn name(&self) -> &'static str {
        "cpu_ref"
    }

    /// The copies of the operands of the operation that reads and writes most.
    fn scratch_bytes(&self, programs: &[&Program]) -> usize {
        let calls = programs.iter().flat_map(|program| program.ops());
        let operand_elements = calls.map(|call| {
            let mut elements = 0;
            call.op.clone().visit(&mut |tensor, access| {
                elements += tensor.len() * access.passes() as usize;
            });
            elements
        });
        operand_elements.max().unwrap_or(0) * size_of::<F>()
    }

    fn prepare(&mut self, sizes: &RegionSizes, _programs: &[&Program]) -> Result<(), BackendError> {
        self.memory = Memory::default();
        for region in Region::ALL {
            let elements = sizes.get(region);
            if region == Region::Inputs {
                self.memory.inputs = zeroed(elements, 0)?;
            } else {
                self.memory.numbers[region.index()] = zeroed(elements, F::ZERO)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, region: Region, offset: usize, data: &[f32]) -> Result<(), BackendError> {
        for (number, &value) in self.region_mut(region)[offset..][..data.len()].iter_mut().zip(data) {
            *number = F::from_f32(value);
        }
        Ok(())
    }

    fn read(&mut self, region: Region, offset: usize, out: &mut [f32]) -> Result<(), BackendError> {
        let numbers = &self.region(region)[offset..][..out.len()];
        for (value, number) in out.iter_mut().zip(numbers) {
            *value = number.to_f64() as f32;
        }
        Ok(())
    }

    fn write_tokens(&mut self, offset: usize, tokens: &[u32]) -> Result<(), BackendError> {
        self.memory.inputs[offset..][..tokens.len()].copy_from_slice(tokens);
        Ok(())
    }

    fn run(
        &mut self,
        program: &Program,
        args: &RunArgs,
        mut timeline: Option<&mut Timeline>,
    ) -> Result<(), BackendError> {
        for region in Region::ALL {
            let len = if region == Region::Inputs { self.memory.inputs.len() } else { self.region(region).len() };
            let needed = program.sizes().get(region);
            if needed > len {
                let message = format!("it needs {needed} elements of {region:?}, {len} were prepared");
                return Err(BackendError::InvalidProgram(message));
            }
        }
        for (index, call) in program.ops().iter().enumerate() {
            let start_ns = timeline.as_deref().map(Timeline::now_ns);
            run_op(&call.op, args, &mut self.memory);
            if let (Some(timeline), Some(start_ns)) = (timeline.as_deref_mut(), start_ns) {
                let end_ns = timeline.now_ns();
                if let Some(span) = timeline.spans_mut().get_mut(index) {
                    *span = Span { start_ns, end_ns };
                }
            }
        }
        Ok(())
    }

    fn request_results(&mut self) -> Result<(), BackendError> {
        let mut values = [0.0; Results::LEN];
        self.read(Region::Results, 0, &mut values)?;
        self.requested = Some(Results::from_slice(values));
        Ok(())
    }

    fn collect_results(&mut self) -> Result<Results, BackendError> {
        self.requested.take().ok_or_else(|| BackendError::InvalidProgram("no results were asked for".into()))
    }
}

fn run_op<F: Float>(op: &Op, args: &RunArgs, memory: &mut Memory<F>) {
    match op {
        Op::Embedding(op) => embedding::embedding(op, args, memory),
        Op::EmbeddingBwd(op) => embedding::embedding_bwd(op, memory),
        Op::LayerNorm(op) => layer_norm::layer_norm(op, memory),
        Op::LayerNormBwd(op) => layer_norm::layer_norm_bwd(op, memory),
        Op::Linear(op) => linear::linear(op, memory),
        Op::LinearBwdInput(op) => linear::linear_bwd_input(op, memory),
        Op::LinearBwdWeight(op) => linear::linear_bwd_weight(op, memory),
        Op::Attention(op) => attention::attention(op, args, memory),
        Op::AttentionBwd(op) => attention::attention_bwd(op, args, memory),
        Op::AttentionCached(op) => attention::attention_cached(op, args, memory),
        Op::Swiglu(op) => activation::swiglu(op, memory),
        Op::SwigluBwd(op) => activation::swiglu_bwd(op, memory),
        Op::Dropout(op) => dropout::dropout(op, args, memory),
        Op::CrossEntropy(op) => head::cross_entropy(op, args, memory),
        Op::HeadBwd(op) => head::head_bwd(op, memory),
        Op::Logits(op) => head::logits(op, memory),
        Op::LossSum(op) => head::loss_sum(op, memory),
        Op::Fill(op) => activation::fill(op, memory),
        Op::GradNorm(op) => optimizer::grad_norm(op, args, memory),
        Op::AdamW(op) => optimizer::adamw(op, args, memory),
    }
}

/// A buffer full of one value, or an error where memory runs out.
fn zeroed<T: Clone>(elements: usize, zero: T) -> Result<Vec<T>, BackendError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(elements).map_err(|_| BackendError::OutOfMemory {
        asked_bytes: elements.saturating_mul(size_of::<T>()),
        what: "a region of the reference backend",
    })?;
    buffer.resize(elements, zero);
    Ok(buffer)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "filled with exactly these")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{op::Fill, program::ProgramBuilder};

    fn fill_program() -> Program {
        let mut builder = ProgramBuilder::new(RegionSizes::default());
        let out = builder.activation(2, 3);
        builder.push(Fill { out, value: 1.5 });
        builder.build(&[out]).0
    }

    #[test]
    fn a_program_larger_than_what_was_prepared_is_an_error() {
        let program = fill_program();
        let mut backend = RefBackend::<f32>::new();
        let error = backend.run(&program, &RunArgs::default(), None);
        assert!(matches!(error, Err(BackendError::InvalidProgram(_))), "{error:?}");
    }

    #[test]
    fn impossible_sizes_are_an_error() {
        let mut sizes = RegionSizes::default();
        sizes.set(Region::Params, usize::MAX / 8);
        let error = RefBackend::<f64>::new().prepare(&sizes, &[]);
        assert!(matches!(error, Err(BackendError::OutOfMemory { .. })), "{error:?}");
    }

    #[test]
    fn preparing_again_starts_over_and_spans_are_recorded() {
        let program = fill_program();
        let mut backend = RefBackend::<f32>::new();
        let mut timeline = Timeline::new(Instant::now(), 1, 1);
        backend.prepare(program.sizes(), &[&program]).expect("small");
        backend.run(&program, &RunArgs::default(), Some(&mut timeline)).expect("prepared");
        let span = timeline.thread(0)[0];
        assert!(span.start_ns > 0 && span.start_ns <= span.end_ns, "{span:?}");
        let mut values = [0.0; 6];
        backend.read(Region::Activations, 0, &mut values).expect("it is there");
        assert_eq!(values, [1.5; 6]);
        backend.prepare(program.sizes(), &[&program]).expect("small");
        backend.read(Region::Activations, 0, &mut values).expect("it is there");
        assert_eq!(values, [0.0; 6]);
    }
}

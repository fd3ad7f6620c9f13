//! Whether this device and driver compute what the reference computes. Drivers have bugs, and a wrong gradient looks
//! like a bad learning rate.
//!
//! Every operation runs alone, on a shape whose rows are whole vectors. Operations with other code for other rows also
//! run on a shape with such rows. Compiling takes nearly all of the time, so each kernel runs in one form only.

mod operations;

use std::fmt;

use alpha_tensor::{
    Backend, BackendError, Op, Program, Region, RunArgs, Tensor,
    cpu_ref::RefBackend,
    op::Access,
    rng::{Key, Purpose},
};

pub(crate) use self::operations::programs;
use self::operations::{SHAPE_16, SHAPES, Shape, program};
use crate::{
    backend::HeliosBackend,
    format16::Format16,
    kernels::{Lowering, Profile},
};

/// The largest difference, relative to the largest number of the result: far above rounding, far below a wrong kernel.
fn tolerance(format: Option<Format16>) -> f64 {
    match format {
        None => 1e-3,
        Some(Format16::F16) => 5e-3,
        Some(Format16::Bf16) => 2e-2,
    }
}

/// All dispatches that the test runs, as text: a pass holds for these and no others.
pub(crate) fn dispatches(profile: &Profile, format: Option<Format16>) -> String {
    let programs = programs();
    let run = if format.is_some() { &programs[..] } else { &programs[..SHAPES.len()] };
    let mut text = String::new();
    for call in run.iter().flat_map(Program::ops) {
        let dispatches = Lowering::of(&call.op, profile).map(|lowering| lowering.dispatches);
        text += &format!("{dispatches:?}\n");
    }
    text
}

/// The first number of a device that differs from the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mismatch {
    op: &'static str,
    /// Columns of the operation's rows.
    cols: usize,
    found: f32,
    expected: f32,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { op, cols, found, expected } = self;
        write!(f, "`{op}` of rows of {cols}: found {found}, expected {expected}")
    }
}

/// Runs every operation on the device and the reference, and returns the first mismatch.
pub(crate) fn self_test(backend: &mut HeliosBackend) -> Result<Option<Mismatch>, BackendError> {
    let (format, plain) = (backend.format16, SHAPES.iter().map(|shape| (shape, false)));
    for (shape, has_16_bits) in plain.chain(format.map(|_| (&SHAPE_16, true))) {
        let program = program(shape, has_16_bits);
        let allowed = tolerance(format.filter(|_| has_16_bits));
        let mut reference = RefBackend::<f32>::new();
        reference.prepare(program.sizes(), &[&program])?;
        backend.prepare(program.sizes(), &[&program])?;
        fill(&mut reference, backend, &program, shape)?;
        let args = RunArgs {
            seed: 7,
            step: 3,
            micro_step: 1,
            update: 3,
            lr: 1e-2,
            position: 1,
            is_chained: false,
            loss_scale: 4.0,
        };
        for (index, call) in program.ops().iter().enumerate() {
            let single = program.only(index);
            reference.run(&single, &args, None)?;
            let has_other_code = matches!(
                call.op,
                Op::Linear(_) | Op::Attention(_) | Op::AttentionBwd(_) | Op::LayerNorm(_) | Op::CrossEntropy(_)
            );
            if shape.c.is_multiple_of(4) || has_other_code {
                backend.run(&single, &args, None)?;
            } else {
                copy_from_reference(&mut reference, backend, &call.op)?;
                continue;
            }
            if let Some([found, expected]) = first_difference(&mut reference, backend, &call.op, allowed)? {
                return Ok(Some(Mismatch { op: call.op.name(), cols: shape.c, found, expected }));
            }
        }
    }
    Ok(None)
}

/// Fills all regions of both with the same random numbers, whatever they mean.
fn fill(
    reference: &mut RefBackend<f32>,
    backend: &mut HeliosBackend,
    program: &Program,
    shape: &Shape,
) -> Result<(), BackendError> {
    let key = Key::new(11, Purpose::Synthetic);
    for region in Region::ALL.into_iter().filter(|&region| region != Region::Inputs) {
        let key = key.fold(region.index() as u64);
        let mut values: Vec<f32> =
            (0..program.sizes().get(region) as u64).map(|i| 0.5 * key.normal_pair(i)[0] as f32).collect();
        if region == Region::Moment2 {
            for value in &mut values {
                *value = value.abs();
            }
        }
        backend.write(region, 0, &values)?;
        backend.read(region, 0, &mut values)?; // rounded, if the region has 16 bits
        reference.write(region, 0, &values)?;
    }
    let tokens: Vec<u32> =
        (0..program.sizes().get(Region::Inputs) as u64).map(|i| key.below(i, shape.vocab as u64) as u32).collect();
    reference.write_tokens(0, &tokens)?;
    backend.write_tokens(0, &tokens)
}

/// The tensors that an operation writes.
fn written(op: &Op) -> Vec<Tensor> {
    let mut written = Vec::new();
    op.clone().visit(&mut |tensor, access| {
        if access != Access::Read && tensor.len() > 0 {
            written.push(*tensor);
        }
    });
    written
}

/// Gives the device the reference's numbers, and the reference these as the device rounds them, so that rounding does
/// not add up.
fn copy_from_reference(
    reference: &mut RefBackend<f32>,
    backend: &mut HeliosBackend,
    op: &Op,
) -> Result<(), BackendError> {
    for tensor in written(op) {
        let mut values = vec![0.0; tensor.len()];
        reference.read(tensor.region, tensor.offset, &mut values)?;
        backend.write(tensor.region, tensor.offset, &values)?;
        if tensor.region == Region::Activations16 {
            backend.read(tensor.region, tensor.offset, &mut values)?;
            reference.write(tensor.region, tensor.offset, &values)?;
        }
    }
    Ok(())
}

/// The first number that differs in an operation's results: found and expected.
fn first_difference(
    reference: &mut RefBackend<f32>,
    backend: &mut HeliosBackend,
    op: &Op,
    tolerance: f64,
) -> Result<Option<[f32; 2]>, BackendError> {
    for tensor in written(op) {
        let [mut expected, mut found] = [vec![0.0; tensor.len()], vec![0.0; tensor.len()]];
        reference.read(tensor.region, tensor.offset, &mut expected)?;
        backend.read(tensor.region, tensor.offset, &mut found)?;
        let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let allowed = tolerance * f64::from(largest.max(1e-3));
        let is_close = |(e, f): &(&f32, &f32)| (f64::from(**e) - f64::from(**f)).abs() <= allowed; // NaN is not
        if let Some((&expected, &found)) = expected.iter().zip(&found).find(|pair| !is_close(pair)) {
            return Ok(Some([found, expected]));
        }
    }
    copy_from_reference(reference, backend, op)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeliosError, Options};

    #[test]
    fn every_operation_is_among_those_tested() {
        for program in programs() {
            for name in Op::NAMES {
                assert!(program.ops().iter().any(|call| call.op.name() == *name), "`{name}` is not tested");
            }
        }
    }

    /// The test finds one wrong number in a kernel and names the kernel.
    #[test]
    fn a_device_that_computes_wrongly_is_found() {
        let mut backend = match HeliosBackend::open(&Options::default()) {
            Ok(backend) => backend,
            Err(HeliosError::NoDevice) => return,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(self_test(&mut backend).expect("it runs"), None);
        for (right, wrong, name) in [
            ("fma(vec4(factor), b_row", "fma(vec4(factor) * 1.01, b_row", "`linear`"),
            ("exp(score[e] - new_largest)", "exp(score[e] - new_largest) + 0.01", "`attention`"),
            (
                "* p.scale;\n        for (var d = 0u; d < HD4; d++) {\n            dq",
                "* 1.1 * p.scale;\n        for (var d = 0u; d < HD4; d++) {\n            dq",
                "`attention_bwd`",
            ),
            ("(1.0 - p.beta2) * g * g", "(1.0 - p.beta2) * g", "`adamw`"),
            ("13u, 15u, 26u, 6u", "13u, 15u, 26u, 7u", "`attention`"),
        ] {
            backend.sabotage(right, wrong);
            let found = self_test(&mut backend).expect("it runs");
            assert!(found.is_some_and(|found| found.to_string().starts_with(name)), "{name}: {found:?}");
        }
    }
}

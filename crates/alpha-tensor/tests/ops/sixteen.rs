//! The same cases with the model's wide activations in 16 bits, on the backends that have such formats. The reference
//! computes on the rounded inputs; what is allowed follows from the format's own rounding.

use std::collections::BTreeSet;

use alpha_tensor::{Backend, Op, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor, op::Swiglu};
use helios::{DeviceKind, Format16, HeliosBackend, HeliosError, Options};

use crate::{all_cases, harness::check_in_16_bits};

/// The operands of an operation that the model keeps in 16 bits; the others are the residual stream, statistics, and logits.
pub(crate) fn wide_operands(op: &Op) -> Vec<Tensor> {
    match op {
        Op::LayerNorm(op) => vec![op.y],
        Op::LayerNormBwd(op) => vec![op.dy],
        Op::Linear(op) => {
            let out = if op.residual.is_none() { Some(op.out) } else { None };
            [Some(op.x), op.pre, out].into_iter().flatten().collect()
        }
        Op::LinearBwdInput(op) => {
            let inner = op.activation.map(|(_, pre, post)| [pre, post]);
            inner.into_iter().flatten().chain([op.dx]).collect()
        }
        Op::LinearBwdWeight(op) => vec![op.x, op.dy],
        Op::Attention(op) => vec![op.qkv, op.out],
        Op::AttentionBwd(op) => vec![op.qkv, op.out, op.dout, op.dqkv],
        Op::Swiglu(op) => vec![op.pre, op.out],
        Op::SwigluBwd(op) => vec![op.pre, op.dout, op.dpre, op.out],
        Op::CrossEntropy(op) => vec![op.x],
        Op::HeadBwd(op) => vec![op.x, op.dx],
        Op::Logits(op) => vec![op.x],
        _ => Vec::new(),
    }
}

/// One case in this many runs, since software devices compile kernels slowly.
const EVERY: usize = 3;

/// A number rounded to 16 bits.
pub(crate) fn rounded(value: f64, format: Format16) -> f64 {
    match format {
        Format16::F16 => half::f16::from_f64(value).to_f64(),
        Format16::Bf16 => half::bf16::from_f64(value).to_f64(),
    }
}

/// Half the distance between 1 and the next number.
pub(crate) fn unit_roundoff(format: Format16) -> f64 {
    match format {
        Format16::F16 => 0.5f64.powi(11),
        Format16::Bf16 => 0.5f64.powi(8),
    }
}

#[test]
fn every_operation_agrees_with_the_reference_in_16_bits() {
    for (format, kind) in [
        (Format16::F16, DeviceKind::Software),
        (Format16::F16, DeviceKind::Discrete),
        (Format16::Bf16, DeviceKind::Software),
    ] {
        let options = Options { format16: Some(format), kernels_for: Some(kind), ..Options::default() };
        let mut backend = match HeliosBackend::open(&options) {
            Ok(backend) => backend,
            Err(HeliosError::NoDevice) => return println!("SKIPPED helios: no device"),
            Err(error) => panic!("{error}"),
        };
        let tested = check_in_16_bits(all_cases(), EVERY, format, &mut backend);
        let expected: BTreeSet<&str> = ["linear", "attention_bwd", "layer_norm_bwd", "swiglu_bwd", "head_bwd"].into();
        assert!(expected.is_subset(&tested), "{format:?} on {kind} kernels: only {tested:?} had cases");
    }
}

/// Region by region, numbers come back as IEEE 754 rounds them, whatever they are: ties, the largest, the smallest.
#[test]
fn sixteen_bits_are_rounded_to_nearest_by_the_kernels() {
    let values: Vec<f32> = [
        0.0,
        -0.0,
        1.0,
        1.000_488_3,
        1.000_488_2,
        1.000_976_6,
        1.001_464_8,
        65504.0,
        65519.9,
        65520.0,
        -65536.0,
        1e30,
        6.1e-5,
        6.0e-5,
        5.96e-8,
        2.98e-8,
        2.99e-8,
        8.94e-8,
        1e-10,
        -3.3e-6,
        0.333_333_34,
        1234.567,
        -0.1,
        7.0e4,
    ]
    .into();
    for format in [Format16::F16, Format16::Bf16] {
        let options = Options { format16: Some(format), ..Options::default() };
        let mut backend = match HeliosBackend::open(&options) {
            Ok(backend) => backend,
            Err(HeliosError::NoDevice) => return println!("SKIPPED helios: no device"),
            Err(error) => panic!("{error}"),
        };
        // A gate so large that silu(gate) · value = 64 · value / 64, exactly.
        let cols = values.len();
        let mut b = ProgramBuilder::new(RegionSizes::default());
        let pre = b.activation(1, 2 * cols);
        let out = b.activation16(1, cols);
        b.push(Swiglu { pre, out });
        let (program, places) = b.build(&[pre, out]);
        backend.prepare(program.sizes(), &[&program]).expect("it runs");
        let mut content = vec![64.0f32; cols];
        content.extend(values.iter().map(|value| value / 64.0));
        backend.write(Region::Activations, places[0].offset, &content).expect("it is prepared");
        backend.run(&program, &RunArgs::default(), None).expect("it runs");
        let mut found = vec![0.0f32; cols];
        backend.read(Region::Activations16, places[1].offset, &mut found).expect("it is prepared");
        for (value, found) in values.iter().zip(found) {
            let expected = rounded(f64::from(value / 64.0 * 64.0), format);
            assert_eq!(f64::from(found).to_bits(), expected.to_bits(), "{value:e} in {format:?}: {found}");
        }
    }
}

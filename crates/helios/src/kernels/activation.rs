//! Activations as the kernels number them, swiglu and fill.

use alpha_tensor::{
    Tensor,
    op::{Activation, Fill, Swiglu, SwigluBwd},
};

use super::shader::ShaderBuilder;
use super::{GRID, Lowering, LoweringError, Operand, Params, flat_part, folded, pointwise::Pointwise};

/// The number of an activation in `activation.wgsl`; 0 is none.
pub(super) fn activation_number(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::Gelu) => 1,
        Some(Activation::Silu) => 2,
        Some(Activation::Relu) => 3,
    }
}

pub(super) fn swiglu(op: &Swiglu, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    push(l, op.pre, None, op.out)
}

pub(super) fn swiglu_bwd(op: &SwigluBwd, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    push(l, op.pre, Some([op.dout, op.dpre]), op.out)
}

/// Forward, or with `[dout, dpre]` backward, which computes `out` again.
fn push(l: &mut Lowering<'_>, pre: Tensor, backward: Option<[Tensor; 2]>, out: Tensor) -> Result<(), LoweringError> {
    let (cols, width) = (out.cols, l.profile.reduce_width);
    let is_vector = cols.is_multiple_of(4);
    let [dout, dpre] = [0, 1].map(|number| backward.map(|gradients| gradients[number]));
    let shader = ShaderBuilder::new("swiglu", 4)
        .number("WG", width)
        .flag("BACKWARD", backward.is_some())
        .access(&[
            ("pre", l.storage(&pre, is_vector)?),
            ("dout", l.optional_storage(dout.as_ref(), is_vector)?),
            ("dpre", l.optional_storage(dpre.as_ref(), is_vector)?),
            ("out", l.storage(&out, is_vector)?),
        ])
        .part(GRID)
        .part(include_str!("swiglu.wgsl"))
        .build();
    for (start, end) in l.row_pieces(out.rows, 2 * cols)? {
        let rows = |tensor: Tensor| tensor.row_range(start, end);
        let operands = vec![rows(pre).into(), dout.map(rows).into(), dpre.map(rows).into(), rows(out).into()];
        let params = Params::fixed([(end - start) as u32, cols as u32]);
        let groups = folded(((end - start) * cols.div_ceil(4)).div_ceil(width as usize));
        l.push(shader.clone(), operands, params, groups)?;
    }
    Ok(())
}

pub(super) fn fill(op: &Fill, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    for (start, end) in l.row_pieces(op.out.len(), 1)? {
        let out = Operand::from(flat_part(op.out, start, end));
        Pointwise {
            entry: "FILL",
            operands: [Operand::Absent, Operand::Absent, out],
            has_residual: false,
            len: end - start,
            cols: 1,
            value: op.value,
            mask: (0, 0.0),
            run_value: None,
        }
        .push(l)?;
    }
    Ok(())
}

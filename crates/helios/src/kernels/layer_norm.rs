//! Layer normalisation.

use alpha_tensor::{
    Tensor,
    op::{LayerNorm, LayerNormBwd},
};

use super::shader::ShaderBuilder;
use super::{GRID, Lowering, LoweringError, Operand, Params, REDUCE, flat_part, folded};

pub(super) fn layer_norm(op: &LayerNorm, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let cols = op.x.cols;
    let shader = ShaderBuilder::new("layer_norm", 6)
        .number("WG", l.profile.reduce_width)
        .flag("BIAS", op.bias.is_some())
        .access(&[
            ("x", l.storage(&op.x, true)?),
            ("weight", l.storage(&op.weight, true)?),
            ("bias", l.optional_storage(op.bias.as_ref(), true)?),
            ("y", l.storage(&op.y, true)?),
        ])
        .part(GRID)
        .part(REDUCE)
        .part(include_str!("layer_norm.wgsl"))
        .build();
    for (start, end) in l.row_pieces(op.x.rows, cols)? {
        let part = |vector: Tensor| Operand::from(flat_part(vector, start, end));
        let operands = vec![
            op.x.row_range(start, end).into(),
            op.weight.into(),
            op.bias.into(),
            op.y.row_range(start, end).into(),
            part(op.mean),
            part(op.rstd),
        ];
        let params = Params::fixed([(end - start) as u32, cols as u32, op.eps.to_bits()]);
        l.push(shader.clone(), operands, params, folded(end - start))?;
    }
    Ok(())
}

pub(super) fn layer_norm_bwd(op: &LayerNormBwd, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let cols = op.x.cols;
    let width = l.profile.reduce_width;
    // Parts of the gradients are whole vectors, even if rows are not.
    let stride = cols.next_multiple_of(4);
    let mut accumulate = op.accumulate;
    let mut pieces = l.row_pieces(op.x.rows, cols)?;
    if pieces.is_empty() {
        pieces.push((0, 0)); // without rows the gradients are still written
    }
    for (start, end) in pieces {
        let rows = end - start;
        let rows_a_part = rows.div_ceil(l.profile.parts).max(1);
        let parts = rows.div_ceil(rows_a_part);
        let partial = l.scratch(parts * 2 * stride);
        let part = |vector: Tensor| Operand::from(flat_part(vector, start, end));
        let shader = ShaderBuilder::new("layer_norm_bwd", 7)
            .number("WG", width)
            .flag("ACCUMULATE_DX", op.accumulate_dx)
            .access(&[
                ("x", l.storage(&op.x, true)?),
                ("weight", l.storage(&op.weight, true)?),
                ("dy", l.storage(&op.dy, true)?),
                ("dx", l.storage(&op.dx, true)?),
            ])
            .part(REDUCE)
            .part(include_str!("layer_norm_bwd.wgsl"))
            .build();
        let operands = vec![
            op.x.row_range(start, end).into(),
            op.weight.into(),
            part(op.mean),
            part(op.rstd),
            op.dy.row_range(start, end).into(),
            op.dx.row_range(start, end).into(),
            partial.clone(),
        ];
        let params = Params::fixed([rows, cols, rows_a_part, stride].map(|word| word as u32));
        l.push(shader, operands, params, [parts, 1, 1])?;

        let shader = ShaderBuilder::new("layer_norm_bwd_params", 3)
            .number("WG", width)
            .flag("BIAS", op.dbias.is_some())
            .flag("ACCUMULATE", accumulate)
            .part(include_str!("layer_norm_bwd_params.wgsl"))
            .build();
        let operands = vec![partial, op.dweight.into(), op.dbias.into()];
        let groups = [(2 * cols).div_ceil(width as usize), 1, 1];
        l.push(shader, operands, Params::fixed([cols, parts, stride].map(|word| word as u32)), groups)?;
        accumulate = true;
    }
    Ok(())
}

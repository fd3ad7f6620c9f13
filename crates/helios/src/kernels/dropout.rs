//! Dropout, forward and backward.

use alpha_tensor::op::Dropout;

use super::{Lowering, LoweringError, Operand, RunValue, pointwise::Pointwise};

pub(super) fn dropout(op: &Dropout, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    // The mask counts rows from the operation's first, so there is only one piece.
    let residual = op.residual.map(|residual| l.whole(residual)).transpose()?;
    Pointwise {
        entry: "DROPOUT",
        has_residual: residual.is_some(),
        operands: [l.whole(op.x)?, residual.unwrap_or(Operand::Absent), l.whole(op.out)?],
        len: op.out.len(),
        cols: op.out.cols,
        value: 0.0,
        mask: (op.mask.threshold(), op.mask.scale()),
        run_value: Some(RunValue::DropoutKey(op.mask)),
    }
    .push(l)
}

//! Dropout, forward and backward.

use alpha_tensor::{Tensor, op::Dropout};

use super::{Lowering, Operand, Patch, activation::Pointwise};

pub(super) fn dropout(op: &Dropout, l: &mut Lowering<'_>) -> Result<(), String> {
    // The mask counts rows from the operation's first, so that there are no pieces.
    let len = op.out.len();
    let residual = op.residual.map(|residual| l.whole(residual)).transpose()?;
    let [x, out]: [&Tensor; 2] = [&op.x, &op.out];
    Pointwise {
        entry: "DROPOUT",
        has_residual: residual.is_some(),
        operands: [l.whole(*x)?, residual.unwrap_or(Operand::Absent), l.whole(*out)?, Operand::Absent],
        len,
        cols: op.out.cols,
        value: 0.0,
        mask: (op.mask.threshold(), op.mask.scale()),
        patch: Some(Patch::DropoutKey(op.mask)),
    }
    .push(l)
}

//! Dropout and fill: element by element.

use alpha_tensor::op::{Dropout, Fill};

use super::{GRID, Lowering, Operand, Patch, THREEFRY, flat_part, folded};
use crate::shader::ShaderBuilder;

/// A job of `pointwise.wgsl`; operands are `x`, `residual`, `out`.
struct Pointwise {
    entry: &'static str,
    operands: [Operand; 3],
    has_residual: bool,
    len: usize,
    cols: usize,
    value: f32,
    /// Threshold and scale of a dropout mask, whose key is a patch.
    mask: (u32, f32),
    patch: Option<Patch>,
}

/// Where the key stands in the kernel's own words.
const KEY_WORD: usize = 3;

impl Pointwise {
    fn push(self, l: &mut Lowering<'_>) -> Result<(), String> {
        let width = l.profile.reduce_width;
        let shader = ShaderBuilder::new("pointwise", 3)
            .number("WG", width)
            .entry(&["DROPOUT", "FILL"], self.entry)
            .flag("RESIDUAL", self.has_residual)
            .part(GRID)
            .part(THREEFRY)
            .part(include_str!("pointwise.wgsl"))
            .finish();
        let (threshold, scale) = self.mask;
        let words = vec![self.len as u32, self.cols as u32, self.value.to_bits(), 0, 0, threshold, scale.to_bits()];
        let patches = self.patch.map(|patch| (KEY_WORD, patch)).into_iter().collect();
        l.push(shader, self.operands.into(), words, patches, folded(self.len.div_ceil(width as usize)))
    }
}

pub(super) fn dropout(op: &Dropout, l: &mut Lowering<'_>) -> Result<(), String> {
    // The mask counts rows from the operation's first, so that there are no pieces.
    let residual = op.residual.map(|residual| l.whole(residual)).transpose()?;
    Pointwise {
        entry: "DROPOUT",
        has_residual: residual.is_some(),
        operands: [l.whole(op.x)?, residual.unwrap_or(Operand::Absent), l.whole(op.out)?],
        len: op.out.len(),
        cols: op.out.cols,
        value: 0.0,
        mask: (op.mask.threshold(), op.mask.scale()),
        patch: Some(Patch::DropoutKey(op.mask)),
    }
    .push(l)
}

pub(super) fn fill(op: &Fill, l: &mut Lowering<'_>) -> Result<(), String> {
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
            patch: None,
        }
        .push(l)?;
    }
    Ok(())
}

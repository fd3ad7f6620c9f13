//! Swiglu, fill, and the job numbers of `pointwise.wgsl`.

use alpha_tensor::{
    Tensor,
    op::{Activation, Fill, Swiglu, SwigluBwd},
};

use super::{GRID, Lowering, Operand, Patch, THREEFRY, flat_part, folded};
use crate::shader::ShaderBuilder;

const ENTRIES: &[&str] = &["SWIGLU", "SWIGLU_BWD", "DROPOUT", "FILL"];

/// The number of an activation in `activation.wgsl`; 0 is none.
pub(super) fn activation_number(activation: Option<Activation>) -> u32 {
    match activation {
        None => 0,
        Some(Activation::Gelu) => 1,
        Some(Activation::Silu) => 2,
        Some(Activation::Relu) => 3,
    }
}

/// A job of `pointwise.wgsl` on operands `x`, `other`, `out`, `out2`.
pub(super) struct Pointwise {
    pub(super) entry: &'static str,
    pub(super) operands: [Operand; 4],
    pub(super) has_residual: bool,
    pub(super) len: usize,
    pub(super) cols: usize,
    pub(super) value: f32,
    /// Threshold and scale of a dropout mask, whose key is a patch.
    pub(super) mask: (u32, f32),
    pub(super) patch: Option<Patch>,
}

/// Where the key stands in the kernel's own words.
const KEY_WORD: usize = 3;

impl Pointwise {
    pub(super) fn push(self, l: &mut Lowering<'_>) -> Result<(), String> {
        let width = l.profile.reduce_width;
        let shader = ShaderBuilder::new("pointwise", 4)
            .number("WG", width)
            .entry(ENTRIES, self.entry)
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

pub(super) fn swiglu(op: &Swiglu, l: &mut Lowering<'_>) -> Result<(), String> {
    let cols = op.out.cols;
    for (start, end) in l.row_pieces(op.out.rows, 2 * cols)? {
        let rows = |tensor: &Tensor| Operand::from(tensor.row_range(start, end));
        Pointwise {
            entry: "SWIGLU",
            operands: [rows(&op.pre), Operand::Absent, rows(&op.out), Operand::Absent],
            has_residual: false,
            len: (end - start) * cols,
            cols,
            value: 0.0,
            mask: (0, 0.0),
            patch: None,
        }
        .push(l)?;
    }
    Ok(())
}

pub(super) fn swiglu_bwd(op: &SwigluBwd, l: &mut Lowering<'_>) -> Result<(), String> {
    let cols = op.out.cols;
    for (start, end) in l.row_pieces(op.out.rows, 2 * cols)? {
        let rows = |tensor: &Tensor| Operand::from(tensor.row_range(start, end));
        Pointwise {
            entry: "SWIGLU_BWD",
            operands: [rows(&op.pre), rows(&op.dout), rows(&op.dpre), rows(&op.out)],
            has_residual: false,
            len: (end - start) * cols,
            cols,
            value: 0.0,
            mask: (0, 0.0),
            patch: None,
        }
        .push(l)?;
    }
    Ok(())
}

pub(super) fn fill(op: &Fill, l: &mut Lowering<'_>) -> Result<(), String> {
    for (start, end) in l.row_pieces(op.out.len(), 1)? {
        let out = Operand::from(flat_part(op.out, start, end));
        Pointwise {
            entry: "FILL",
            operands: [Operand::Absent, Operand::Absent, out, Operand::Absent],
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

//! What goes element by element: the dispatch of dropout and fill.

use super::{GRID, Lowering, LoweringError, Operand, Patch, THREEFRY, folded};
use crate::shader::ShaderBuilder;

/// A job of `pointwise.wgsl`; operands are `x`, `residual`, `out`.
pub(super) struct Pointwise {
    pub(super) entry: &'static str,
    pub(super) operands: [Operand; 3],
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
    pub(super) fn push(self, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
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

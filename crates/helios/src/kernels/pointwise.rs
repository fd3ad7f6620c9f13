//! Dropout and fill: dispatches that go element by element.

use super::shader::ShaderBuilder;
use super::{GRID, Lowering, LoweringError, Operand, Params, RunValue, THREEFRY, folded};

/// A job of `pointwise.wgsl`; operands are `x`, `residual`, `out`.
pub(super) struct Pointwise {
    pub(super) entry: &'static str,
    pub(super) operands: [Operand; 3],
    pub(super) has_residual: bool,
    pub(super) len: usize,
    pub(super) cols: usize,
    pub(super) value: f32,
    /// Threshold and scale of a dropout mask. Its key is a run value.
    pub(super) mask: (u32, f32),
    pub(super) run_value: Option<RunValue>,
}

/// The index of the key in the kernel's own words.
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
            .build();
        let (threshold, scale) = self.mask;
        let words = vec![self.len as u32, self.cols as u32, self.value.to_bits(), 0, 0, threshold, scale.to_bits()];
        let run_values = self.run_value.map(|value| (KEY_WORD, value)).into_iter().collect();
        l.push(shader, self.operands.into(), Params { words, run_values }, folded(self.len.div_ceil(width as usize)))
    }
}

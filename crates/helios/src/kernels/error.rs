//! Why an operation cannot become dispatches on a device.

use super::MAX_GROUPS;

/// Something that the kernels cannot do. Sizes count numbers, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoweringError {
    #[error("an activation and a residual in one product")]
    ActivationAndResidual,
    #[error("its weight is larger than a binding")]
    LargeWeight,
    #[error("an operand of {len} numbers is larger than a binding, which has {max_len} here")]
    LargeOperand { len: usize, max_len: usize },
    #[error("{rows} rows of {cols} numbers are larger than a binding, which has {max_len} here")]
    LargeRows { rows: usize, cols: usize, max_len: usize },
    #[error("rows and heads of 16-bit tensors must be multiples of 4")]
    OddRows16,
    #[error("heads have {cols} columns, at most {max_cols} are possible")]
    WideHeads { cols: usize, max_cols: usize },
    #[error("`{kernel}` needs {groups} workgroups in one dimension, {MAX_GROUPS} are possible")]
    LargeGrid { kernel: &'static str, groups: usize },
}

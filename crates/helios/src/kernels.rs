//! From an operation to dispatches. Each family of operations has a file, as in the other backends, and its WGSL beside
//! it. Nothing here touches a device: the dispatches depend on the operation's shapes and on the [`Profile`] alone.

mod error;
pub(crate) mod shader;
mod variant;
mod pointwise;
mod activation;
mod matmul;
mod attention;
mod dropout;
mod embedding;
mod head;
mod layer_norm;
mod linear;
mod optimizer;

use alpha_tensor::{Op, Region, RunArgs, Tensor, op::DropoutMask};

use self::shader::{Shader, Storage};
use crate::format16::Format16;

pub(crate) use self::error::LoweringError;
pub use self::variant::{Variant, VariantError};

/// The most workgroups in one dimension of a grid that every API guarantees.
const MAX_GROUPS: usize = 65_535;

/// Everything but shapes that kernels depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile {
    /// Invocations in a workgroup that reduces or works element by element.
    pub(crate) reduce_width: u32,
    /// Invocations in a workgroup of attention, each with one query or key.
    pub(crate) attention_width: u32,
    /// Vectors of a flat region that an invocation of AdamW updates. It looks up its decay run once.
    pub(crate) flat_vectors: u32,
    /// Workgroups that share a sum over all rows or all parameters.
    pub(crate) parts: usize,
    /// The variants of the matrix products A·B, A·Bᵀ and Aᵀ·B.
    pub(crate) matmul: [Variant; 3],
    /// The same where an operand has 16 bits.
    pub(crate) matmul16: [Variant; 3],
    /// The format of [`Region::Activations16`].
    pub(crate) format16: Format16,
    /// The most elements that an operand can have.
    pub(crate) max_binding_len: usize,
}

/// The memory that a kernel's binding shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// Scratch space: first element and length.
    Scratch(usize, usize),
    /// Numbers that never change.
    Constant(Vec<u32>),
    /// Nothing: the kernel does not read it.
    Absent,
}

impl From<Tensor> for Operand {
    fn from(tensor: Tensor) -> Operand {
        Operand::Tensor(tensor)
    }
}

impl From<Option<Tensor>> for Operand {
    fn from(tensor: Option<Tensor>) -> Operand {
        tensor.map_or(Operand::Absent, Operand::Tensor)
    }
}

/// A parameter whose value changes from run to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RunValue {
    /// The mask's key, two words.
    DropoutKey(DropoutMask),
    /// The position of the first new token.
    Position,
    /// The learning rate.
    Lr,
    /// `1 − βᵗ`.
    Correction(f32),
    /// The loss scale, times a factor.
    LossScale(f32),
    /// The inverse of the loss scale.
    InverseLossScale,
    /// Whether the update applies only if the one before did.
    Chained,
}

impl RunValue {
    /// Writes the value that a run has.
    pub(crate) fn apply(self, args: &RunArgs, words: &mut [u32]) {
        match self {
            RunValue::DropoutKey(mask) => {
                words[..2].copy_from_slice(&mask.key(args.seed, args.step, args.micro_step).0);
            }
            RunValue::Position => words[0] = args.position as u32,
            RunValue::Lr => words[0] = args.lr.to_bits(),
            RunValue::Correction(beta) => {
                words[0] = ((1.0 - f64::from(beta).powf(args.update as f64)) as f32).to_bits();
            }
            RunValue::LossScale(factor) => words[0] = (factor * args.loss_scale).to_bits(),
            RunValue::InverseLossScale => words[0] = (1.0 / args.loss_scale).to_bits(),
            RunValue::Chained => words[0] = u32::from(args.is_chained),
        }
    }
}

/// A kernel's own parameters, which follow the first elements of its operands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Params {
    pub(crate) words: Vec<u32>,
    /// Indices in `words` where each run writes a value.
    pub(crate) run_values: Vec<(usize, RunValue)>,
}

impl Params {
    /// Parameters without run values.
    pub(crate) fn fixed(words: impl Into<Vec<u32>>) -> Params {
        Params { words: words.into(), run_values: Vec::new() }
    }
}

/// One dispatch, not yet bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dispatch {
    pub(crate) shader: Shader,
    pub(crate) operands: Vec<Operand>,
    pub(crate) params: Params,
    pub(crate) groups: [u32; 3],
}

/// Collects the dispatches of one operation.
pub(crate) struct Lowering<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) dispatches: Vec<Dispatch>,
    /// Elements of scratch space that the dispatches use.
    pub(crate) scratch_len: usize,
}

impl<'a> Lowering<'a> {
    /// The dispatches of `op`, or why there are none.
    pub(crate) fn of(op: &Op, profile: &'a Profile) -> Result<Lowering<'a>, LoweringError> {
        let mut lowering = Lowering { profile, dispatches: Vec::new(), scratch_len: 0 };
        let l = &mut lowering;
        match op {
            Op::Embedding(op) => embedding::embedding(op, l)?,
            Op::EmbeddingBwd(op) => embedding::embedding_bwd(op, l)?,
            Op::LayerNorm(op) => layer_norm::layer_norm(op, l)?,
            Op::LayerNormBwd(op) => layer_norm::layer_norm_bwd(op, l)?,
            Op::Linear(op) => linear::linear(op, l)?,
            Op::LinearBwdInput(op) => linear::linear_bwd_input(op, l)?,
            Op::LinearBwdWeight(op) => linear::linear_bwd_weight(op, l)?,
            Op::Attention(op) => attention::attention(op, l)?,
            Op::AttentionBwd(op) => attention::attention_bwd(op, l)?,
            Op::AttentionCached(op) => attention::attention_cached(op, l)?,
            Op::Swiglu(op) => activation::swiglu(op, l)?,
            Op::SwigluBwd(op) => activation::swiglu_bwd(op, l)?,
            Op::Dropout(op) => dropout::dropout(op, l)?,
            Op::CrossEntropy(op) => head::cross_entropy(op, l)?,
            Op::HeadBwd(op) => head::head_bwd(op, l)?,
            Op::Logits(op) => head::logits(op, l)?,
            Op::LossSum(op) => head::loss_sum(op, l)?,
            Op::Fill(op) => activation::fill(op, l)?,
            Op::GradNorm(op) => optimizer::grad_norm(op, l)?,
            Op::AdamW(op) => optimizer::adamw(op, l)?,
        }
        Ok(lowering)
    }

    /// Appends a dispatch, unless it has no workgroups.
    pub(crate) fn push(
        &mut self,
        shader: Shader,
        operands: Vec<Operand>,
        params: Params,
        groups: [usize; 3],
    ) -> Result<(), LoweringError> {
        if groups.contains(&0) {
            return Ok(());
        }
        if let Some(&groups) = groups.iter().find(|&&groups| groups > MAX_GROUPS) {
            return Err(LoweringError::LargeGrid { kernel: shader.name, groups });
        }
        debug_assert_eq!(shader.bindings, operands.len());
        self.dispatches.push(Dispatch { shader, operands, params, groups: groups.map(|groups| groups as u32) });
        Ok(())
    }

    /// Cuts rows of `widest` columns into pieces that fit a binding: `(start, end)`.
    pub(crate) fn row_pieces(&self, rows: usize, widest: usize) -> Result<Vec<(usize, usize)>, LoweringError> {
        self.pieces(rows, widest, 1)
    }

    /// The same, in multiples of `step` rows.
    pub(crate) fn pieces(&self, rows: usize, widest: usize, step: usize) -> Result<Vec<(usize, usize)>, LoweringError> {
        let max_len = self.profile.max_binding_len;
        let fitting = max_len / widest.max(1) / step * step;
        if fitting == 0 && rows > 0 {
            return Err(LoweringError::LargeRows { rows: step, cols: widest, max_len });
        }
        Ok((0..rows).step_by(fitting.max(1)).map(|start| (start, rows.min(start + fitting))).collect())
    }

    /// How an operand's elements are stored for a kernel. They are vectors only if `is_vector_kernel`.
    pub(crate) fn storage(&self, tensor: &Tensor, is_vector_kernel: bool) -> Result<Storage, LoweringError> {
        match (tensor.region == Region::Activations16, is_vector_kernel && is_vector(tensor)) {
            (true, true) => Ok(Storage::Half(self.profile.format16)),
            (true, false) => Err(LoweringError::OddRows16),
            (false, true) => Ok(Storage::Vector),
            (false, false) => Ok(Storage::Scalar),
        }
    }

    /// The same for an operand that may be absent.
    pub(crate) fn optional_storage(
        &self,
        tensor: Option<&Tensor>,
        is_vector_kernel: bool,
    ) -> Result<Storage, LoweringError> {
        tensor.map_or(Ok(Storage::Scalar), |tensor| self.storage(tensor, is_vector_kernel))
    }

    /// An operand that must fit in one binding.
    pub(crate) fn whole(&self, tensor: Tensor) -> Result<Operand, LoweringError> {
        let (len, max_len) = (tensor.len(), self.profile.max_binding_len);
        if len > max_len {
            return Err(LoweringError::LargeOperand { len, max_len });
        }
        Ok(Operand::Tensor(tensor))
    }

    /// Reserves scratch space. Every operation uses it from its start, one at a time.
    pub(crate) fn scratch(&mut self, len: usize) -> Operand {
        self.scratch_len = self.scratch_len.max(len);
        Operand::Scratch(0, len)
    }
}

/// A grid of `count` workgroups, folded into a second dimension if one is too short (`grid.wgsl`).
pub(crate) fn folded(count: usize) -> [usize; 3] {
    if count <= MAX_GROUPS { [count, 1, 1] } else { [MAX_GROUPS, count.div_ceil(MAX_GROUPS), 1] }
}

/// Elements `start..end` of a vector, or of a matrix read as one.
pub(crate) fn flat_part(tensor: Tensor, start: usize, end: usize) -> Tensor {
    Tensor { offset: tensor.offset + start, rows: 1, cols: end - start, ..tensor }
}

/// Whether the rows of this tensor are whole vectors of four.
pub(crate) fn is_vector(tensor: &Tensor) -> bool {
    tensor.cols.is_multiple_of(4) && tensor.offset.is_multiple_of(4)
}

pub(crate) const GRID: &str = include_str!("kernels/grid.wgsl");
pub(crate) const REDUCE: &str = include_str!("kernels/reduce.wgsl");
pub(crate) const THREEFRY: &str = include_str!("kernels/threefry.wgsl");

/// Every source: stored entries depend on all of them.
pub(crate) const SOURCES: &[&str] = &[
    include_str!("kernels/activation.wgsl"),
    include_str!("kernels/adamw.wgsl"),
    include_str!("kernels/attention.wgsl"),
    include_str!("kernels/attention_bwd.wgsl"),
    include_str!("kernels/attention_cached.wgsl"),
    include_str!("kernels/cross_entropy.wgsl"),
    include_str!("kernels/embedding.wgsl"),
    include_str!("kernels/embedding_bwd.wgsl"),
    include_str!("kernels/format_bf16.wgsl"),
    include_str!("kernels/format_f16.wgsl"),
    include_str!("kernels/grad_norm.wgsl"),
    include_str!("kernels/grid.wgsl"),
    include_str!("kernels/layer_norm.wgsl"),
    include_str!("kernels/layer_norm_bwd.wgsl"),
    include_str!("kernels/layer_norm_bwd_params.wgsl"),
    include_str!("kernels/load_16.wgsl"),
    include_str!("kernels/load_scalar.wgsl"),
    include_str!("kernels/load_vec4.wgsl"),
    include_str!("kernels/loss_sum.wgsl"),
    include_str!("kernels/matmul_coop.wgsl"),
    include_str!("kernels/matmul_direct.wgsl"),
    include_str!("kernels/matmul_operands.wgsl"),
    include_str!("kernels/matmul_tiles.wgsl"),
    include_str!("kernels/matmul_staged.wgsl"),
    include_str!("kernels/peaks.wgsl"),
    include_str!("kernels/pointwise.wgsl"),
    include_str!("kernels/reduce.wgsl"),
    include_str!("kernels/swiglu.wgsl"),
    include_str!("kernels/threefry.wgsl"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_listed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels");
        let files = std::fs::read_dir(folder).expect("the folder of the sources");
        let wgsl = files
            .filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|end| end == "wgsl")));
        assert_eq!(wgsl.count(), SOURCES.len());
    }
}

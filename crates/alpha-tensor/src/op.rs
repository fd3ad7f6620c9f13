//! The operation table.
//!
//! A training step is a list of [`Op`] values. Each operation says which tensors it reads and
//! writes ([`Operation::visit`]) and how many floating-point operations it needs
//! ([`Operation::flops`]); bytes, passes over tensors, memory planning, bounds checking and
//! the trace all follow from those two, for every backend alike.
//!
//! Conventions that hold for every operation:
//! - Parameter gradients are assigned on the first micro-step and added to on later ones:
//!   `accumulate` says which.
//! - Linear weights are stored `[in, out]`, as GPT-2's `Conv1D`; embedding and head `[vocab, dim]`.
//! - Rows are tokens: row `b·T + t` is position `t` of sequence `b`.

mod activation;
mod dropout;
mod linear;
mod layer_norm;
mod attention;
mod embedding;
mod head;
mod optimizer;

pub use self::{
    activation::{Activation, Fill, Swiglu, SwigluBwd},
    attention::{Attention, AttentionBwd, AttentionCached},
    dropout::{Dropout, DropoutMask},
    embedding::{Embedding, EmbeddingBwd},
    head::{CrossEntropy, HeadBwd, IGNORED_TARGET, Logits, LossSum},
    layer_norm::{LayerNorm, LayerNormBwd},
    linear::{Linear, LinearBwdInput, LinearBwdWeight},
    optimizer::{AdamW, DecayRun, GradNorm},
};

use crate::tensor::Tensor;

/// How an operation uses a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Written whole, not read.
    Write,
    /// Read and written.
    ReadWrite,
}

impl Access {
    /// How an operation uses a gradient that it adds to or assigns.
    fn of_gradient(accumulate: bool) -> Access {
        if accumulate { Access::ReadWrite } else { Access::Write }
    }

    /// Passes over the tensor.
    pub fn passes(self) -> u64 {
        if self == Access::ReadWrite { 2 } else { 1 }
    }
}

/// A fault of an operation; operands are counted as [`Op::visit`] visits them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpFault {
    /// A size does not fit the other operands.
    #[error("`{what}` is {found}, expected {expected}")]
    Size {
        /// Its name.
        what: &'static str,
        /// As given.
        found: usize,
        /// As the other operands have it.
        expected: usize,
    },
    /// Rows and columns do not fit the other operands.
    #[error("`{what}` is {found:?}, expected {expected:?}")]
    Matrix {
        /// The operand.
        what: &'static str,
        /// As given.
        found: [usize; 2],
        /// As the other operands have it.
        expected: [usize; 2],
    },
    /// A size does not divide another.
    #[error("`{what}` is {divisor}, expected a divisor of {number}")]
    Divisor {
        /// Its name.
        what: &'static str,
        /// As given.
        divisor: usize,
        /// The number that it must divide.
        number: usize,
    },
    /// An operand is not in its region.
    #[error("operand {operand}: {tensor:?} lies outside its region")]
    OutsideRegion {
        /// Its number.
        operand: usize,
        /// As given.
        tensor: Tensor,
    },
    /// An operand that is written shares memory with another.
    #[error("operand {operand}: overlaps operand {other}")]
    Overlap {
        /// The number of the one that is written.
        operand: usize,
        /// The other's number.
        other: usize,
    },
}

/// Compares sizes and remembers the first that do not fit.
#[derive(Debug, Default)]
pub struct Shapes {
    mismatch: Option<OpFault>,
}

impl Shapes {
    fn require(&mut self, is_met: bool, mismatch: OpFault) {
        if !is_met {
            self.mismatch.get_or_insert(mismatch);
        }
    }

    /// `found` must equal `expected`.
    pub fn equal(&mut self, what: &'static str, found: usize, expected: usize) {
        self.require(found == expected, OpFault::Size { what, found, expected });
    }

    /// `found` must be `[rows, cols]`.
    pub fn matrix(&mut self, what: &'static str, found: &Tensor, rows: usize, cols: usize) {
        let (found, expected) = ([found.rows, found.cols], [rows, cols]);
        self.require(found == expected, OpFault::Matrix { what, found, expected });
    }

    /// A vector of `len`.
    pub fn vector(&mut self, what: &'static str, found: &Tensor, len: usize) {
        self.matrix(what, found, 1, len);
    }

    /// A vector of `len`, if there is one.
    pub fn optional_vector(&mut self, what: &'static str, found: Option<&Tensor>, len: usize) {
        if let Some(found) = found {
            self.vector(what, found, len);
        }
    }

    /// `divisor` must divide `number`.
    pub fn divides(&mut self, what: &'static str, divisor: usize, number: usize) {
        let divides = divisor != 0 && number.is_multiple_of(divisor);
        self.require(divides || number == 0, OpFault::Divisor { what, divisor, number });
    }
}

/// The facts that every operation states about itself.
pub trait Operation {
    /// Calls `f` for each operand, in a fixed order. Takes `&mut` so that the planner can
    /// give activations their place.
    fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access));

    /// Reports every pair of sizes that must be equal. Backends that address memory without
    /// checks rely on this and on the operands' bounds.
    fn check(&self, shapes: &mut Shapes);

    /// Floating-point operations, a multiply-add counted as two. A transcendental function counts as one.
    fn flops(&self) -> u64;

    /// The fewest bytes that must cross memory: every operand once for each direction, unless
    /// only part of an operand is touched.
    fn bytes(&self) -> u64
    where
        Self: Clone,
    {
        let mut bytes = 0;
        self.clone().visit(&mut |tensor, access| {
            bytes += tensor.bytes() * access.passes();
        });
        bytes
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One operation with its operands.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            $($(#[$doc])* $variant($variant),)*
        }

        impl Op {
            /// Names of all operations, in table order.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The operation's name in traces and errors.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$variant(_) => $name,)* }
            }

            /// See [`Operation::visit`].
            pub fn visit(&mut self, f: &mut dyn FnMut(&mut Tensor, Access)) {
                match self { $(Op::$variant(op) => op.visit(f),)* }
            }

            /// Whether the output may be the same tensor as an input: as the residual, or as dropout's input.
            pub fn allows_in_place(&self) -> bool {
                match self {
                    Op::Linear(op) => op.residual == Some(op.out) && op.x != op.out,
                    Op::Dropout(_) => true,
                    _ => false,
                }
            }

            /// See [`Operation::check`].
            pub fn check(&self) -> Result<(), OpFault> {
                let mut shapes = Shapes::default();
                match self { $(Op::$variant(op) => op.check(&mut shapes),)* }
                shapes.mismatch.map_or(Ok(()), Err)
            }

            /// See [`Operation::flops`].
            pub fn flops(&self) -> u64 {
                match self { $(Op::$variant(op) => op.flops(),)* }
            }

            /// See [`Operation::bytes`].
            pub fn bytes(&self) -> u64 {
                match self { $(Op::$variant(op) => op.bytes(),)* }
            }
        }

        $(impl From<$variant> for Op {
            fn from(op: $variant) -> Op { Op::$variant(op) }
        })*
    };
}

operations! {
    /// Token and position embedding.
    Embedding = "embedding",
    /// Backward of [`Embedding`].
    EmbeddingBwd = "embedding_bwd",
    /// Layer normalisation.
    LayerNorm = "layer_norm",
    /// Backward of [`LayerNorm`].
    LayerNormBwd = "layer_norm_bwd",
    /// Matrix product with bias, activation and residual in its epilogue.
    Linear = "linear",
    /// Gradient of [`Linear`]'s input.
    LinearBwdInput = "linear_bwd_input",
    /// Gradient of [`Linear`]'s weight and bias.
    LinearBwdWeight = "linear_bwd_weight",
    /// Causal self-attention over whole sequences.
    Attention = "attention",
    /// Backward of [`Attention`].
    AttentionBwd = "attention_bwd",
    /// Causal self-attention of new tokens against a key-value cache.
    AttentionCached = "attention_cached",
    /// Gated activation.
    Swiglu = "swiglu",
    /// Backward of [`Swiglu`].
    SwigluBwd = "swiglu_bwd",
    /// Dropout, forward and backward.
    Dropout = "dropout",
    /// Head and cross-entropy of a chunk of tokens.
    CrossEntropy = "cross_entropy",
    /// Backward of the head for the same chunk.
    HeadBwd = "head_bwd",
    /// Logits for sampling.
    Logits = "logits",
    /// Sum of token losses into the results.
    LossSum = "loss_sum",
    /// Fills a tensor with one value.
    Fill = "fill",
    /// Global gradient norm and clip coefficient.
    GradNorm = "grad_norm",
    /// One pass of AdamW over all parameters.
    AdamW = "adamw",
}

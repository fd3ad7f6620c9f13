//! Forward and backward of the model's parts, as operations appended to a program.
//!
//! Rows are tokens, `r = batch·block`. The residual stream's gradient is one tensor that the
//! layers add to in place. Each forward function returns what its backward needs.

use alpha_tensor::{
    ProgramBuilder, Region, Tensor,
    op::{
        Attention, AttentionBwd, AttentionCached, Dropout, DropoutMask, Embedding, EmbeddingBwd, Fill, LayerNorm,
        LayerNormBwd, Linear, LinearBwdInput, LinearBwdWeight, Swiglu, SwigluBwd,
    },
};

use crate::{
    config::{FeedForward, ModelConfig},
    params::{LayerTensors, WeightBias},
};

/// The keys and values of attention.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context {
    /// Whole sequences.
    Sequences {
        /// Their number.
        batch: usize,
    },
    /// New tokens of one sequence against a cache with this many positions.
    Cache {
        /// Positions.
        block: usize,
    },
}

/// Appends the model's operations for `rows` tokens to a program.
pub(crate) struct Layers<'a> {
    pub(crate) program: ProgramBuilder,
    pub(crate) config: &'a ModelConfig,
    pub(crate) rows: usize,
    pub(crate) context: Context,
    /// Dropout applies (training).
    pub(crate) with_dropout: bool,
    /// Add to parameter gradients instead of assigning them.
    pub(crate) accumulate: bool,
    /// Activations between the layers' operations have 16 bits; the residual stream, statistics and logits have 32.
    pub(crate) activations16: bool,
}

/// A layer norm's output and what its backward needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normed {
    params: WeightBias,
    x: Tensor,
    pub(crate) y: Tensor,
    mean: Tensor,
    rstd: Tensor,
}

/// Tensors that a transformer layer's backward needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedLayer {
    ln_1: Normed,
    qkv: Tensor,
    attended: Tensor,
    lse: Option<Tensor>,
    ln_2: Normed,
    pre: Tensor,
}

/// Gradient of a parameter.
fn gradient(param: Tensor) -> Tensor {
    param.in_region(Region::Grads)
}

impl Layers<'_> {
    /// An activation of 16 bits where those are wanted.
    pub(crate) fn activation16(&mut self, rows: usize, cols: usize) -> Tensor {
        if self.activations16 { self.program.activation16(rows, cols) } else { self.program.activation(rows, cols) }
    }

    /// Site 0 is the embedding; layer `l` has `3l + 1` (attention probabilities), `3l + 2`
    /// (attention output) and `3l + 3` (feed-forward output).
    fn mask(&self, site: usize) -> Option<DropoutMask> {
        (self.with_dropout && self.config.dropout > 0.0)
            .then_some(DropoutMask { p: self.config.dropout, site: site as u32 })
    }

    /// Sum of token and position embedding `[r, c]`; `block` tokens a sequence.
    pub(crate) fn embedding(&mut self, [wte, wpe]: [Tensor; 2], tokens: Tensor, block: usize) -> Tensor {
        let out = self.program.activation(self.rows, self.config.dim);
        self.program.push(Embedding { tokens, wte, wpe, out, block });
        if let Some(mask) = self.mask(0) {
            self.program.push(Dropout { x: out, residual: None, out, mask });
        }
        out
    }

    /// Backward of [`Layers::embedding`]; `dx` is overwritten.
    pub(crate) fn embedding_bwd(&mut self, [wte, wpe]: [Tensor; 2], tokens: Tensor, block: usize, dx: Tensor) {
        if let Some(mask) = self.mask(0) {
            self.program.push(Dropout { x: dx, residual: None, out: dx, mask });
        }
        let (dwte, dwpe) = (gradient(wte), gradient(wpe));
        if !self.config.is_tied && !self.accumulate {
            self.program.push(Fill { out: dwte, value: 0.0 });
        }
        self.program.push(EmbeddingBwd { tokens, dout: dx, dwte, dwpe, block, accumulate: self.accumulate });
    }

    /// Layer norm of the rows of `x`.
    pub(crate) fn norm(&mut self, params: WeightBias, x: Tensor) -> Normed {
        let (y, mean, rstd) =
            (self.activation16(x.rows, x.cols), self.program.activation(1, x.rows), self.program.activation(1, x.rows));
        self.program.push(LayerNorm {
            x,
            weight: params.weight,
            bias: params.bias,
            y,
            mean,
            rstd,
            eps: self.config.layer_norm_eps,
        });
        Normed { params, x, y, mean, rstd }
    }

    /// Backward of [`Layers::norm`] into `dx`, adding when the residual stream passes by.
    pub(crate) fn norm_bwd(&mut self, normed: Normed, dy: Tensor, dx: Tensor, accumulate_dx: bool) {
        let Normed { params, x, mean, rstd, .. } = normed;
        let (weight, accumulate) = (params.weight, self.accumulate);
        let (dweight, dbias) = (gradient(weight), params.bias.map(gradient));
        self.program.push(LayerNormBwd { x, weight, mean, rstd, dy, dx, dweight, dbias, accumulate_dx, accumulate });
    }

    fn linear(&mut self, params: WeightBias, x: Tensor) -> Tensor {
        let out = self.activation16(self.rows, params.weight.cols);
        let (weight, bias) = (params.weight, params.bias);
        self.program.push(Linear { x, weight, bias, activation: None, pre: None, residual: None, out });
        out
    }

    /// `residual + dropout(x·w + b)`.
    fn project(&mut self, params: WeightBias, x: Tensor, residual: Tensor, mask: Option<DropoutMask>) -> Tensor {
        let out = self.program.activation(self.rows, params.weight.cols);
        let (weight, bias) = (params.weight, params.bias);
        let fused = if mask.is_none() { Some(residual) } else { None };
        self.program.push(Linear { x, weight, bias, activation: None, pre: None, residual: fused, out });
        if let Some(mask) = mask {
            self.program.push(Dropout { x: out, residual: Some(residual), out, mask });
        }
        out
    }

    fn linear_bwd_weight(&mut self, params: WeightBias, x: Tensor, dy: Tensor) {
        self.program.push(LinearBwdWeight {
            x,
            dy,
            dweight: gradient(params.weight),
            dbias: params.bias.map(gradient),
            accumulate: self.accumulate,
        });
    }

    fn linear_bwd_input(&mut self, params: WeightBias, dy: Tensor) -> Tensor {
        let dx = self.activation16(self.rows, params.weight.rows);
        self.program.push(LinearBwdInput { dy, weight: params.weight, activation: None, dx });
        dx
    }

    /// One transformer layer, pre-norm: returns its output and what backward needs.
    pub(crate) fn layer(&mut self, index: usize, params: &LayerTensors, x: Tensor) -> (Tensor, SavedLayer) {
        self.program.set_layer(Some(index));
        let c = self.config.dim;
        let ln_1 = self.norm(params.ln_1, x);
        let qkv = self.linear(params.attn, ln_1.y);
        let attended = self.activation16(self.rows, c);
        let heads = self.config.heads;
        let lse = match self.context {
            Context::Sequences { batch } => {
                let lse = self.program.activation(batch * heads, self.rows / batch);
                let dropout = self.mask(3 * index + 1);
                self.program.push(Attention { qkv, out: attended, lse, batch, heads, dropout });
                Some(lse)
            }
            Context::Cache { block } => {
                let cache = |n: usize| Tensor::new(Region::KvCache, (2 * index + n) * block * c, block, c);
                self.program.push(AttentionCached { qkv, k_cache: cache(0), v_cache: cache(1), out: attended, heads });
                None
            }
        };
        let middle = self.project(params.attn_proj, attended, x, self.mask(3 * index + 2));
        let ln_2 = self.norm(params.ln_2, middle);
        let pre = self.activation16(self.rows, params.fc.weight.cols);
        let post = self.activation16(self.rows, self.config.ffn_dim);
        let (weight, bias) = (params.fc.weight, params.fc.bias);
        match self.config.feed_forward {
            FeedForward::Pointwise(activation) => {
                let (activation, pre) = (Some(activation), Some(pre));
                self.program.push(Linear { x: ln_2.y, weight, bias, activation, pre, residual: None, out: post });
            }
            FeedForward::Swiglu => {
                self.program.push(Linear {
                    x: ln_2.y,
                    weight,
                    bias,
                    activation: None,
                    pre: None,
                    residual: None,
                    out: pre,
                });
                self.program.push(Swiglu { pre, out: post });
            }
        }
        let out = self.project(params.mlp_proj, post, middle, self.mask(3 * index + 3));
        self.program.set_layer(None);
        (out, SavedLayer { ln_1, qkv, attended, lse, ln_2, pre })
    }

    /// The gradient that enters a residual branch: masked where the branch has dropout.
    fn branch_gradient(&mut self, dx: Tensor, site: usize) -> Tensor {
        let Some(mask) = self.mask(site) else { return dx };
        let out = self.program.activation(dx.rows, dx.cols);
        self.program.push(Dropout { x: dx, residual: None, out, mask });
        out
    }

    /// Backward of [`Layers::layer`] over whole sequences: turns `dx`, the gradient of the
    /// layer's output, into that of its input.
    pub(crate) fn layer_bwd(&mut self, index: usize, params: &LayerTensors, saved: &SavedLayer, dx: Tensor) {
        let (Context::Sequences { batch }, Some(lse)) = (self.context, saved.lse) else {
            unreachable!("only whole sequences are trained on")
        };
        self.program.set_layer(Some(index));
        let dy = self.branch_gradient(dx, 3 * index + 3);
        let post = self.activation16(self.rows, self.config.ffn_dim);
        let dpre = self.activation16(self.rows, params.fc.weight.cols);
        match self.config.feed_forward {
            FeedForward::Pointwise(activation) => {
                let activation = Some((activation, saved.pre, post));
                self.program.push(LinearBwdInput { dy, weight: params.mlp_proj.weight, activation, dx: dpre });
            }
            FeedForward::Swiglu => {
                let dout = self.linear_bwd_input(params.mlp_proj, dy);
                self.program.push(SwigluBwd { pre: saved.pre, dout, dpre, out: post });
            }
        }
        self.linear_bwd_weight(params.mlp_proj, post, dy);
        self.linear_bwd_weight(params.fc, saved.ln_2.y, dpre);
        let dnormed = self.linear_bwd_input(params.fc, dpre);
        self.norm_bwd(saved.ln_2, dnormed, dx, true);

        let dy = self.branch_gradient(dx, 3 * index + 2);
        self.linear_bwd_weight(params.attn_proj, saved.attended, dy);
        let dattended = self.linear_bwd_input(params.attn_proj, dy);
        let dqkv = self.activation16(self.rows, 3 * self.config.dim);
        self.program.push(AttentionBwd {
            qkv: saved.qkv,
            out: saved.attended,
            lse,
            dout: dattended,
            dqkv,
            batch,
            heads: self.config.heads,
            dropout: self.mask(3 * index + 1),
        });
        self.linear_bwd_weight(params.attn, saved.ln_1.y, dqkv);
        let dnormed = self.linear_bwd_input(params.attn, dqkv);
        self.norm_bwd(saved.ln_1, dnormed, dx, true);
        self.program.set_layer(None);
    }
}

//! Causal self-attention. If all sequences together are larger than a binding, each dispatch gets some of them.

use alpha_tensor::{
    Tensor,
    op::{Attention, AttentionBwd, AttentionCached, DropoutMask},
};

use super::shader::ShaderBuilder;
use super::{Lowering, LoweringError, Params, REDUCE, RunValue, THREEFRY, folded};

/// The parameters that forward and backward share.
fn shared_params(block: usize, c: usize, heads: usize, dropout: Option<DropoutMask>) -> Params {
    let head_dim = c / heads;
    let mut words = [block, c, heads, head_dim].map(|word| word as u32).to_vec();
    words.push(score_scale(head_dim).to_bits());
    let key = words.len();
    words.extend([0, 0]);
    let (threshold, scale) = dropout.map_or((0, 0.0), |mask| (mask.threshold(), mask.scale()));
    words.extend([threshold, scale.to_bits()]);
    let run_values = dropout.map(|mask| (key, RunValue::DropoutKey(mask))).into_iter().collect();
    Params { words, run_values }
}

/// `1/√hd`.
fn score_scale(head_dim: usize) -> f32 {
    (1.0 / (head_dim as f64).sqrt()) as f32
}

/// The most registers that a head's dimension can take, in vectors.
const MAX_HEAD_VECTORS: usize = 64;

fn builder(
    l: &Lowering<'_>,
    (name, bindings): (&'static str, usize),
    head_dim: usize,
    dropout: Option<DropoutMask>,
) -> Result<ShaderBuilder, LoweringError> {
    let vectors = head_dim.div_ceil(4);
    if vectors > MAX_HEAD_VECTORS {
        return Err(LoweringError::WideHeads { cols: head_dim, max_cols: 4 * MAX_HEAD_VECTORS });
    }
    Ok(ShaderBuilder::new(name, bindings)
        .number("WG", l.profile.attention_width)
        .number("HD4", vectors as u32)
        .flag("DROPOUT", dropout.is_some())
        .part(THREEFRY))
}

pub(super) fn attention(op: &Attention, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (c, heads) = (op.out.cols, op.heads);
    let block = op.out.rows / op.batch.max(1);
    // A mask counts sequences from the operation's first, so there is only one piece.
    let pieces =
        if op.dropout.is_some() { vec![(0, op.out.rows)] } else { l.pieces(op.out.rows, 3 * c, block.max(1))? };
    let is_vector = (c / heads).is_multiple_of(4);
    let shader = builder(l, ("attention", 3), c / heads, op.dropout)?
        .access(&[("qkv", l.storage(&op.qkv, is_vector)?), ("out", l.storage(&op.out, is_vector)?)])
        .part(include_str!("attention.wgsl"))
        .build();
    for (start, end) in pieces {
        let qkv = l.whole(op.qkv.row_range(start, end))?;
        let lse = super::flat_part(op.lse, start * heads, end * heads);
        let operands = vec![qkv, op.out.row_range(start, end).into(), lse.into()];
        let params = shared_params(block, c, heads, op.dropout);
        let groups = [block.div_ceil(l.profile.attention_width as usize), (end - start) / block.max(1), heads];
        l.push(shader.clone(), operands, params, groups)?;
    }
    Ok(())
}

pub(super) fn attention_bwd(op: &AttentionBwd, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (c, heads) = (op.out.cols, op.heads);
    let block = op.out.rows / op.batch.max(1);
    let pieces =
        if op.dropout.is_some() { vec![(0, op.out.rows)] } else { l.pieces(op.out.rows, 3 * c, block.max(1))? };
    let is_vector = (c / heads).is_multiple_of(4);
    for (start, end) in pieces {
        let mean_dp = l.scratch((end - start) * heads);
        let rows = |tensor: &Tensor| tensor.row_range(start, end).into();
        let lse = super::flat_part(op.lse, start * heads, end * heads);
        let operands = vec![
            l.whole(op.qkv.row_range(start, end))?,
            rows(&op.out),
            lse.into(),
            rows(&op.dout),
            rows(&op.dqkv),
            mean_dp,
        ];
        let groups = [block.div_ceil(l.profile.attention_width as usize), (end - start) / block.max(1), heads];
        for entry in ["QUERIES", "KEYS"] {
            let shader = builder(l, ("attention_bwd", 6), c / heads, op.dropout)?
                .entry(&["QUERIES", "KEYS"], entry)
                .access(&[
                    ("qkv", l.storage(&op.qkv, is_vector)?),
                    ("out", l.storage(&op.out, is_vector)?),
                    ("dout", l.storage(&op.dout, is_vector)?),
                    ("dqkv", l.storage(&op.dqkv, is_vector)?),
                ])
                .part(include_str!("attention_bwd.wgsl"))
                .build();
            let params = shared_params(block, c, heads, op.dropout);
            l.push(shader, operands.clone(), params, groups)?;
        }
    }
    Ok(())
}

/// The index of the position in the kernel's own words.
const POSITION_WORD: usize = 5;

pub(super) fn attention_cached(op: &AttentionCached, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (n, c, heads) = (op.out.rows, op.out.cols, op.heads);
    let operands = vec![op.qkv.into(), l.whole(op.k_cache)?, l.whole(op.v_cache)?, op.out.into()];
    let head_dim = c / heads;
    let mut words = [n, c, heads, head_dim].map(|word| word as u32).to_vec();
    words.extend([score_scale(head_dim).to_bits(), 0]);
    let params = Params { words, run_values: vec![(POSITION_WORD, RunValue::Position)] };
    for (entry, groups) in [("STORE", folded(n)), ("ATTEND", [n, heads, 1])] {
        let shader = ShaderBuilder::new("attention_cached", 4)
            .number("WG", l.profile.reduce_width)
            .entry(&["STORE", "ATTEND"], entry)
            .part(REDUCE)
            .part(include_str!("attention_cached.wgsl"))
            .build();
        l.push(shader, operands.clone(), params.clone(), groups)?;
    }
    Ok(())
}

//! Causal self-attention, one query at a time.

use super::{Float, Memory, dropout::Mask, linear::add_scaled};
use crate::{
    backend::RunArgs,
    op::{Attention, AttentionBwd, AttentionCached, DropoutMask},
};

fn dot<F: Float>(a: &[F], b: &[F]) -> F {
    a.iter().zip(b).fold(F::ZERO, |sum, (&a, &b)| sum + a * b)
}

/// `1/√hd`.
fn score_scale<F: Float>(head_dim: usize) -> F {
    F::ONE / F::from_f64(head_dim as f64).sqrt()
}

/// `ln Σ exp`, the largest taken out first.
pub(super) fn log_sum_exp<F: Float>(values: &[F]) -> F {
    let largest = values.iter().fold(values[0], |largest, &value| if value > largest { value } else { largest });
    largest + values.iter().fold(F::ZERO, |sum, &value| sum + (value - largest).exp()).ln()
}

/// Dropout's factors for query `i` of one sequence and head: row `(b·heads + h)·t + i`.
struct Factors(Option<Mask>);

impl Factors {
    fn new(mask: Option<DropoutMask>, args: &RunArgs) -> Factors {
        Factors(mask.map(|mask| Mask::new(mask, args)))
    }

    fn get<F: Float>(&self, row: usize, col: usize) -> F {
        self.0.as_ref().map_or(F::ONE, |mask| mask.factor(row, col))
    }
}

pub(super) fn attention<F: Float>(op: &Attention, args: &RunArgs, memory: &mut Memory<F>) {
    let c = op.out.cols;
    let block = op.out.rows / op.batch.max(1);
    let head_dim = c / op.heads;
    let factors = Factors::new(op.dropout, args);
    let qkv = memory.load(&op.qkv);
    let mut out = vec![F::ZERO; op.out.len()];
    let mut lse = vec![F::ZERO; op.lse.len()];
    for b in 0..op.batch {
        for h in 0..op.heads {
            // Query, key or value (`part` 0, 1, 2) of one token.
            let part = |part: usize, t: usize| &qkv[(b * block + t) * 3 * c + part * c + h * head_dim..][..head_dim];
            for i in 0..block {
                let row = (b * op.heads + h) * block + i;
                let scores: Vec<F> = (0..=i).map(|j| dot(part(0, i), part(1, j)) * score_scale(head_dim)).collect();
                lse[row] = log_sum_exp(&scores);
                let out = &mut out[(b * block + i) * c + h * head_dim..][..head_dim];
                for (j, &score) in scores.iter().enumerate() {
                    let probability = (score - lse[row]).exp();
                    add_scaled(out, probability * factors.get(row, j), part(2, j));
                }
            }
        }
    }
    memory.store(&op.out, &out);
    memory.store(&op.lse, &lse);
}

pub(super) fn attention_bwd<F: Float>(op: &AttentionBwd, args: &RunArgs, memory: &mut Memory<F>) {
    let c = op.out.cols;
    let block = op.out.rows / op.batch.max(1);
    let head_dim = c / op.heads;
    let scale = score_scale::<F>(head_dim);
    let factors = Factors::new(op.dropout, args);
    let (qkv, lse) = (memory.load(&op.qkv), memory.load(&op.lse));
    let (out, dout) = (memory.load(&op.out), memory.load(&op.dout));
    let mut dqkv = vec![F::ZERO; op.dqkv.len()];
    for b in 0..op.batch {
        for h in 0..op.heads {
            let place = |part: usize, t: usize| (b * block + t) * 3 * c + part * c + h * head_dim;
            let part = |part: usize, t: usize| &qkv[place(part, t)..][..head_dim];
            for i in 0..block {
                let row = (b * op.heads + h) * block + i;
                let dout = &dout[(b * block + i) * c + h * head_dim..][..head_dim];
                let out = &out[(b * block + i) * c + h * head_dim..][..head_dim];
                // Σ_j p_ij · dp_ij, with or without dropout.
                let mean_dp = dot(dout, out);
                for j in 0..=i {
                    let probability = (dot(part(0, i), part(1, j)) * scale - lse[row]).exp();
                    let factor = factors.get::<F>(row, j);
                    let dp = factor * dot(dout, part(2, j));
                    let dscore = probability * (dp - mean_dp) * scale;
                    add_scaled(&mut dqkv[place(0, i)..][..head_dim], dscore, part(1, j));
                    add_scaled(&mut dqkv[place(1, j)..][..head_dim], dscore, part(0, i));
                    add_scaled(&mut dqkv[place(2, j)..][..head_dim], factor * probability, dout);
                }
            }
        }
    }
    memory.store(&op.dqkv, &dqkv);
}

pub(super) fn attention_cached<F: Float>(op: &AttentionCached, args: &RunArgs, memory: &mut Memory<F>) {
    let [n, c] = [op.out.rows, op.out.cols];
    let head_dim = c / op.heads;
    let qkv = memory.load(&op.qkv);
    let (mut keys, mut values) = (memory.load(&op.k_cache), memory.load(&op.v_cache));
    let mut out = vec![F::ZERO; n * c];
    for i in 0..n {
        let position = args.position + i;
        keys[position * c..][..c].copy_from_slice(&qkv[i * 3 * c + c..][..c]);
        values[position * c..][..c].copy_from_slice(&qkv[i * 3 * c + 2 * c..][..c]);
        for h in 0..op.heads {
            let query = &qkv[i * 3 * c + h * head_dim..][..head_dim];
            let head = |cache: &[F], j: usize| cache[j * c + h * head_dim..][..head_dim].to_vec();
            let scores: Vec<F> = (0..=position).map(|j| dot(query, &head(&keys, j)) * score_scale(head_dim)).collect();
            let lse = log_sum_exp(&scores);
            for (j, &score) in scores.iter().enumerate() {
                add_scaled(&mut out[i * c + h * head_dim..][..head_dim], (score - lse).exp(), &head(&values, j));
            }
        }
    }
    memory.store(&op.k_cache, &keys);
    memory.store(&op.v_cache, &values);
    memory.store(&op.out, &out);
}

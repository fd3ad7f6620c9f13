//! Token and position embedding.

use super::{Float, Memory};
use crate::{
    backend::RunArgs,
    op::{Embedding, EmbeddingBwd},
};

pub(super) fn embedding<F: Float>(op: &Embedding, args: &RunArgs, memory: &mut Memory<F>) {
    let c = op.out.cols;
    let (wte, wpe) = (memory.load(&op.wte), memory.load(&op.wpe));
    let mut out = vec![F::ZERO; op.out.len()];
    for (row, token) in memory.load_tokens(&op.tokens).into_iter().enumerate() {
        let position = args.position + row % op.block;
        for j in 0..c {
            out[row * c + j] = wte[token as usize * c + j] + wpe[position * c + j];
        }
    }
    memory.store(&op.out, &out);
}

pub(super) fn embedding_bwd<F: Float>(op: &EmbeddingBwd, memory: &mut Memory<F>) {
    let c = op.dout.cols;
    let dout = memory.load(&op.dout);
    let mut dwte = vec![F::ZERO; op.dwte.len()];
    let mut dwpe = vec![F::ZERO; op.dwpe.len()];
    for (row, token) in memory.load_tokens(&op.tokens).into_iter().enumerate() {
        let position = row % op.block;
        for j in 0..c {
            dwte[token as usize * c + j] += dout[row * c + j];
            dwpe[position * c + j] += dout[row * c + j];
        }
    }
    memory.store_gradient(&op.dwte, &dwte, true);
    memory.store_gradient(&op.dwpe, &dwpe, op.accumulate);
}

//! Token and position embedding. A token embedding larger than a binding is bound one window at a time.

use alpha_tensor::op::{Embedding, EmbeddingBwd};

use super::shader::ShaderBuilder;
use super::{GRID, Lowering, LoweringError, Params, RunValue, folded};

/// The index of the position in the kernel's own words.
const POSITION_WORD: usize = 5;

pub(super) fn embedding(op: &Embedding, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (rows, cols) = (op.out.rows, op.out.cols);
    let shader = ShaderBuilder::new("embedding", 4)
        .number("WG", l.profile.reduce_width)
        .part(GRID)
        .part(include_str!("embedding.wgsl"))
        .build();
    for (start, end) in l.row_pieces(op.wte.rows, cols)? {
        let operands = vec![op.tokens.into(), op.wte.row_range(start, end).into(), l.whole(op.wpe)?, l.whole(op.out)?];
        let words = [rows, cols, op.block, start, end - start, 0].map(|word| word as u32).to_vec();
        let params = Params { words, run_values: vec![(POSITION_WORD, RunValue::Position)] };
        l.push(shader.clone(), operands, params, folded(rows))?;
    }
    Ok(())
}

pub(super) fn embedding_bwd(op: &EmbeddingBwd, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let (rows, cols, positions) = (op.dout.rows, op.dout.cols, op.dwpe.rows);
    for (start, end) in l.row_pieces(op.dwte.rows, cols)? {
        // The first dispatch computes the position embedding's gradient.
        let positions = if start == 0 { positions } else { 0 };
        let shader = ShaderBuilder::new("embedding_bwd", 4)
            .number("WG", l.profile.reduce_width)
            .flag("ACCUMULATE", op.accumulate)
            .access(&[
                ("dout", l.storage(&op.dout, true)?),
                ("dwte", l.storage(&op.dwte, true)?),
                ("dwpe", l.storage(&op.dwpe, true)?),
            ])
            .part(GRID)
            .part(include_str!("embedding_bwd.wgsl"))
            .build();
        let operands =
            vec![op.tokens.into(), l.whole(op.dout)?, op.dwte.row_range(start, end).into(), l.whole(op.dwpe)?];
        let words = [rows, cols, op.block, positions, start, end - start].map(|word| word as u32);
        l.push(shader, operands, Params::fixed(words), folded(rows + positions))?;
    }
    Ok(())
}

//! Gradient norm and `AdamW`.

use alpha_tensor::op::{AdamW, GradNorm};

use super::shader::{Shader, ShaderBuilder};
use super::{GRID, Lowering, LoweringError, Operand, Params, REDUCE, RunValue, flat_part, folded};

/// Indices of run values in the norm's own words.
const CHAINED_WORD: usize = 6;
const INVERSE_SCALE_WORD: usize = 7;

fn norm_shader(l: &Lowering<'_>, op: &GradNorm, entry: &str) -> Result<Shader, LoweringError> {
    let shader = ShaderBuilder::new("grad_norm", 3)
        .number("WG", l.profile.reduce_width)
        .entry(&["PARTS", "WHOLE"], entry)
        .access(&[("grads", l.storage(&op.grads, true)?)])
        .part(REDUCE)
        .part(include_str!("grad_norm.wgsl"))
        .build();
    Ok(shader)
}

pub(super) fn grad_norm(op: &GradNorm, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let len = op.grads.len();
    let pieces = l.pieces(len, 1, 4)?;
    let part_len = len.div_ceil(l.profile.parts).next_multiple_of(4).max(4);
    let parts: usize = pieces.iter().map(|(start, end)| (end - start).div_ceil(part_len)).sum();
    let partial = l.scratch(parts);
    let words = |len: usize, first_part: usize| {
        let numbers = [len, part_len, first_part, parts].map(|word| word as u32);
        let mut words = numbers.to_vec();
        words.extend([op.grad_clip.to_bits(), op.spike_threshold.to_bits(), 0, 0]);
        words
    };
    let mut first_part = 0;
    for (start, end) in pieces {
        let operands = vec![flat_part(op.grads, start, end).into(), partial.clone(), Operand::Absent];
        let count = (end - start).div_ceil(part_len);
        let params = Params::fixed(words(end - start, first_part));
        l.push(norm_shader(l, op, "PARTS")?, operands, params, [count, 1, 1])?;
        first_part += count;
    }
    let operands = vec![Operand::Absent, partial, op.results.into()];
    let run_values = vec![(CHAINED_WORD, RunValue::Chained), (INVERSE_SCALE_WORD, RunValue::InverseLossScale)];
    l.push(norm_shader(l, op, "WHOLE")?, operands, Params { words: words(len, 0), run_values }, [1, 1, 1])
}

/// Indices of run values in AdamW's own words.
const LR_WORD: usize = 3;
const CORRECTION_WORD: usize = 8;
const ADAMW_INVERSE_SCALE_WORD: usize = 10;

pub(super) fn adamw(op: &AdamW, l: &mut Lowering<'_>) -> Result<(), LoweringError> {
    let vectors_per_group = (l.profile.reduce_width * l.profile.flat_vectors) as usize;
    let is_alike = op.decay_runs.iter().all(|run| run.end.is_multiple_of(4)) && op.params.offset.is_multiple_of(4);
    let shader = ShaderBuilder::new("adamw", 6)
        .number("WG", l.profile.reduce_width)
        .number("ITEMS", l.profile.flat_vectors)
        .flag("ALIKE", is_alike)
        .access(&[
            ("params", l.storage(&op.params, true)?),
            ("grads", l.storage(&op.grads, true)?),
            ("moment1", l.storage(&op.moment1, true)?),
            ("moment2", l.storage(&op.moment2, true)?),
        ])
        .part(GRID)
        .part(include_str!("adamw.wgsl"))
        .build();
    let runs: Vec<u32> = op.decay_runs.iter().flat_map(|run| [run.end as u32, u32::from(run.is_decayed)]).collect();
    for (start, end) in l.pieces(op.params.len(), 1, 16)? {
        let part = |tensor| Operand::from(flat_part(tensor, start, end));
        let operands = vec![
            part(op.params),
            part(op.grads),
            part(op.moment1),
            part(op.moment2),
            op.results.into(),
            Operand::Constant(runs.clone()),
        ];
        let mut words = [end - start, op.params.offset + start, op.decay_runs.len()].map(|word| word as u32).to_vec();
        words.extend([0.0, op.beta1, op.beta2, op.eps, op.weight_decay, 0.0, 0.0, 0.0].map(f32::to_bits));
        let run_values = vec![
            (LR_WORD, RunValue::Lr),
            (CORRECTION_WORD, RunValue::Correction(op.beta1)),
            (CORRECTION_WORD + 1, RunValue::Correction(op.beta2)),
            (ADAMW_INVERSE_SCALE_WORD, RunValue::InverseLossScale),
        ];
        let groups = folded((end - start).div_ceil(4 * vectors_per_group));
        l.push(shader.clone(), operands, Params { words, run_values }, groups)?;
    }
    Ok(())
}

//! `attention`, `attention_bwd`, `attention_cached`.

use alpha_tensor::{
    Backend, Region, RunArgs, Tensor,
    op::{Attention, AttentionBwd, AttentionCached, DropoutMask},
};

use crate::{
    backends::backends,
    harness::{ARGS, Case, check_ops, compare, read},
};

/// `[batch, t, c, heads]`.
const SHAPES: [[usize; 4]; 13] = [
    [1, 1, 1, 1],
    [1, 1, 4, 2],
    [2, 5, 6, 3],
    [3, 17, 8, 1],
    [1, 33, 20, 4],
    [2, 64, 48, 3],
    [4, 16, 64, 2],
    [1, 130, 32, 2],
    [2, 31, 130, 2],
    [1, 128, 64, 1],
    [3, 65, 35, 5],
    [2, 100, 128, 4],
    [0, 4, 8, 2],
];

const MASKS: [Option<DropoutMask>; 3] =
    [None, Some(DropoutMask { p: 0.1, site: 3 }), Some(DropoutMask { p: 0.5, site: 4 })];

struct Operands {
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
}

fn forward(case: &mut Case, [batch, t, c, heads]: [usize; 4], dropout: Option<DropoutMask>) -> Operands {
    let [qkv, out, lse] = [case.random(batch * t, 3 * c), case.output(batch * t, c), case.output(batch * heads, t)];
    case.push(Attention { qkv, out, lse, batch, heads, dropout });
    case.term_magnitude(out, 1.0);
    case.term_magnitude(lse, 1.0);
    Operands { qkv, out, lse }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape @ [batch, t, c, heads] in SHAPES {
        let reduction = t.max(c / heads);
        for dropout in MASKS {
            let p = dropout.map_or(0.0, |mask| mask.p);
            let mut case = Case::new(format!("attention {shape:?} dropout={p}"), reduction);
            forward(&mut case, shape, dropout);
            cases.push(case);

            let mut case = Case::new(format!("attention_bwd {shape:?} dropout={p}"), reduction);
            let Operands { qkv, out, lse } = forward(&mut case, shape, dropout);
            let (dout, dqkv) = (case.random(batch * t, c), case.output(batch * t, 3 * c));
            case.push(AttentionBwd { qkv, out, lse, dout, dqkv, batch, heads, dropout });
            case.term_magnitude(dqkv, 1.0);
            cases.push(case);
        }
    }
    cases.extend(
        [
            [1, 1, 1, 1, 0],
            [1, 9, 6, 3, 8],
            [5, 9, 6, 3, 2],
            [7, 40, 130, 2, 33],
            [1, 64, 64, 4, 40],
            [33, 64, 20, 4, 0],
        ]
        .map(cached),
    );
    cases
}

/// `n` tokens at `position` against a cache full of numbers, those after `position + n` included.
fn cached([n, block, c, heads, position]: [usize; 5]) -> Case {
    let name = format!("attention_cached n={n} block={block} c={c} heads={heads} position={position}");
    let mut case = Case::new(name, block.max(c / heads));
    case.args = RunArgs { position, ..ARGS };
    let qkv = case.random(n, 3 * c);
    let [keys, values] = [case.normal(block * c), case.normal(block * c)];
    let k_cache = case.tensor(Region::KvCache, [block, c], keys);
    let v_cache = case.tensor(Region::KvCache, [block, c], values);
    let out = case.output(n, c);
    case.push(AttentionCached { qkv, k_cache, v_cache, out, heads });
    case.term_magnitude(out, 1.0);
    case
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

#[test]
fn gradient_of_attention() {
    for shape @ [batch, t, c, heads] in [[2, 4, 6, 2], [1, 5, 3, 1], [2, 1, 4, 2]] {
        for dropout in [None, Some(DropoutMask { p: 0.3, site: 1 })] {
            let mut case = Case::new(format!("attention gradient {shape:?}"), 1);
            let Operands { qkv, out, lse } = forward(&mut case, shape, dropout);
            let weights = case.normal(batch * t * c);
            let dout = case.tensor(Region::Activations, [batch * t, c], weights.clone());
            let dqkv = case.output(batch * t, 3 * c);
            case.push(AttentionBwd { qkv, out, lse, dout, dqkv, batch, heads, dropout });
            case.check_grad(1, out, &weights, &[(qkv, dqkv)]);
        }
    }
}

/// Two tokens, one head of one dimension: the softmax of two numbers, by hand.
#[test]
fn two_tokens_by_hand() {
    let mut case = Case::new("two tokens".into(), 1);
    let qkv = case.tensor(Region::Activations, [2, 3], vec![0.0, 1.0, 10.0, 2.0, 0.5, 20.0]);
    let (out, lse) = (case.output(2, 1), case.output(1, 2));
    case.push(Attention { qkv, out, lse, batch: 1, heads: 1, dropout: None });
    // Scores of the second token: 2·1 and 2·0.5.
    let (e2, e1) = (2f64.exp(), 1f64.exp());
    let expected = [10.0, (e2 * 10.0 + e1 * 20.0) / (e2 + e1)];
    case.check_values(&[(out, &expected), (lse, &[0.0, (e2 + e1).ln()])]);
}

/// With queries of zero every probability is `1/(i + 1)`: the output is a mean of what the
/// documented mask keeps, scores being scaled by `1/√hd` or not.
#[test]
fn dropout_takes_probabilities_by_the_documented_rule() {
    let [batch, t, c, heads] = [2, 5, 4, 2];
    let mask = DropoutMask { p: 0.5, site: 8 };
    let key = mask.key(ARGS.seed, ARGS.step, ARGS.micro_step);
    let mut case = Case::new("attention dropout".into(), t);
    let mut content = case.normal(batch * t * 3 * c);
    for row in content.chunks_mut(3 * c) {
        row[..c].fill(0.0);
    }
    let mut expected = vec![0.0; batch * t * c];
    for (index, expected) in expected.iter_mut().enumerate() {
        let (b, i, col) = (index / (t * c), index / c % t, index % c);
        let h = col / (c / heads);
        for j in 0..=i {
            if DropoutMask::keeps(key, 1 << 31, (b * heads + h) * t + i, j) {
                *expected += 2.0 * content[(b * t + j) * 3 * c + 2 * c + col] / (i + 1) as f64;
            }
        }
    }
    let qkv = case.tensor(Region::Activations, [batch * t, 3 * c], content);
    let (out, lse) = (case.output(batch * t, c), case.output(batch * heads, t));
    case.push(Attention { qkv, out, lse, batch, heads, dropout: Some(mask) });
    case.check_values(&[(out, &expected)]);
}

/// A sequence that is fed in pieces gives the rows that it gives as a whole.
#[test]
fn cached_attention_equals_attention_on_the_whole() {
    for [t, c, heads, prefill] in [[7, 6, 2, 4], [20, 32, 4, 1], [37, 130, 2, 16]] {
        let mut case = Case::new(format!("whole t={t} c={c}"), t);
        let Operands { qkv, out, .. } = forward(&mut case, [1, t, c, heads], None);
        let rows = case.content(qkv).to_vec();
        let whole = case.finish();
        let pieces: Vec<(usize, usize)> =
            std::iter::once((0, prefill)).chain((prefill..t).map(|position| (position, 1))).collect();
        for (name, mut backend) in backends() {
            whole.load(backend.as_mut());
            backend.run(&whole.program, &ARGS, None).expect("it runs");
            let expected = read(backend.as_mut(), whole.place(out));
            let found = feed(backend.as_mut(), &rows, &pieces, [t, c, heads]);
            if let Err(why) = compare(&expected, &found, 1e-5, 1.0) {
                panic!("{name}: t={t} c={c} heads={heads} prefill={prefill}: {why}");
            }
        }
    }
}

/// Runs pieces `(position, length)` of a sequence and returns all rows of the output.
fn feed(backend: &mut dyn Backend, rows: &[f64], pieces: &[(usize, usize)], [block, c, heads]: [usize; 3]) -> Vec<f64> {
    let mut found = Vec::new();
    let mut cache: Option<[Vec<f64>; 2]> = None;
    for &(position, n) in pieces {
        let mut case = Case::new("piece".into(), block);
        let qkv = case.tensor(Region::Activations, [n, 3 * c], rows[position * 3 * c..][..n * 3 * c].to_vec());
        // A cache that is NaN where nothing was stored yet: reading ahead would show.
        let [keys, values] = cache.take().unwrap_or_else(|| [vec![f64::NAN; block * c], vec![f64::NAN; block * c]]);
        let k_cache = case.tensor(Region::KvCache, [block, c], keys);
        let v_cache = case.tensor(Region::KvCache, [block, c], values);
        let out = case.output(n, c);
        case.push(AttentionCached { qkv, k_cache, v_cache, out, heads });
        let runnable = case.finish();
        runnable.load(backend);
        backend.run(&runnable.program, &RunArgs { position, ..ARGS }, None).expect("it runs");
        found.extend(read(backend, runnable.place(out)));
        cache = Some([read(backend, k_cache), read(backend, v_cache)]);
    }
    found
}

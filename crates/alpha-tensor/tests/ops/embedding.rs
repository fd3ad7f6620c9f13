//! `embedding`, `embedding_bwd`.

use alpha_tensor::{
    Region, RunArgs,
    op::{Embedding, EmbeddingBwd},
};

use crate::harness::{ARGS, Case, check_ops};

/// `[batch, block, vocab, positions, c]`.
const SHAPES: [[usize; 5]; 8] = [
    [1, 1, 1, 1, 1],
    [1, 3, 5, 3, 7],
    [2, 5, 11, 9, 16],
    [3, 8, 4, 8, 33],
    [2, 64, 96, 64, 48],
    [5, 31, 257, 40, 129],
    [7, 13, 3, 13, 64],
    [0, 4, 8, 4, 8],
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape @ [batch, block, vocab, positions, c] in SHAPES {
        for position in [0, positions - block] {
            let mut case = Case::new(format!("embedding {shape:?} position={position}"), 1);
            case.args = RunArgs { position, ..ARGS };
            let tokens = case.random_tokens(batch * block, vocab);
            let (tokens, wte, wpe) = (case.tokens(tokens), case.param(vocab, c), case.param(positions, c));
            let out = case.output(batch * block, c);
            case.push(Embedding { tokens, wte, wpe, out, block });
            cases.push(case);
        }
        for accumulate in [false, true] {
            let mut case = Case::new(format!("embedding_bwd {shape:?} accumulate={accumulate}"), batch * block);
            let tokens = case.random_tokens(batch * block, vocab);
            let (tokens, dout) = (case.tokens(tokens), case.random(batch * block, c));
            let (dwte, dwpe) = (case.grad(vocab, c, true), case.grad(positions, c, accumulate));
            case.push(EmbeddingBwd { tokens, dout, dwte, dwpe, block, accumulate });
            case.term_magnitude(dwte, 1.0);
            case.term_magnitude(dwpe, 1.0);
            cases.push(case);
        }
    }
    cases
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

/// Two sequences of two tokens, the first at position 1.
#[test]
fn four_tokens_by_hand() {
    let mut case = Case::new("embedding by hand".into(), 1);
    case.args = RunArgs { position: 1, ..ARGS };
    let tokens = case.tokens(vec![2, 0, 1, 2]);
    let wte = case.tensor(Region::Params, [3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let wpe = case.tensor(Region::Params, [3, 2], vec![100.0, 200.0, 10.0, 20.0, 30.0, 40.0]);
    let out = case.output(4, 2);
    case.push(Embedding { tokens, wte, wpe, out, block: 2 });
    case.check_values(&[(out, &[15.0, 26.0, 31.0, 42.0, 13.0, 24.0, 35.0, 46.0])]);
}

#[test]
fn gradients_of_embedding() {
    for accumulate in [false, true] {
        let [batch, block, vocab, positions, c] = [3, 4, 5, 6, 3];
        let mut case = Case::new("embedding gradient".into(), 1);
        let tokens = case.random_tokens(batch * block, vocab);
        let (tokens, wte, wpe) = (case.tokens(tokens), case.param(vocab, c), case.param(positions, c));
        let out = case.output(batch * block, c);
        let weights = case.normal(batch * block * c);
        let dout = case.tensor(Region::Activations, [batch * block, c], weights.clone());
        let (dwte, dwpe) = (case.grad(vocab, c, true), case.grad(positions, c, accumulate));
        case.args = ARGS;
        case.push(Embedding { tokens, wte, wpe, out, block });
        case.push(EmbeddingBwd { tokens, dout, dwte, dwpe, block, accumulate });
        case.check_grad(1, out, &weights, &[(wte, dwte), (wpe, dwpe)]);
    }
}

//! `linear`, `linear_bwd_input`, `linear_bwd_weight`.

use alpha_tensor::op::{Activation, Linear, LinearBwdInput, LinearBwdWeight};

use crate::harness::{Case, check_ops};

/// `[r, k, n]`.
const SHAPES: [[usize; 3]; 22] = [
    [1, 1, 1],
    [1, 7, 1],
    [1, 64, 192],
    [2, 1, 3],
    [3, 5, 7],
    [2, 16, 33],
    [4, 32, 16],
    [17, 31, 13],
    [61, 3, 67],
    [64, 64, 64],
    [63, 65, 31],
    [5, 129, 48],
    [31, 128, 100],
    [128, 48, 144],
    [33, 257, 17],
    [130, 70, 200],
    [257, 96, 131],
    [0, 5, 7],
    [256, 130, 520],
    // Rows whose starts fall into the same few sets of a cache.
    [9, 1024, 40],
    [7, 36, 2048],
    [1024, 8, 1024],
];
const ACTIVATIONS: [Activation; 3] = [Activation::Gelu, Activation::Silu, Activation::Relu];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for has_bias in [false, true] {
            for has_residual in [false, true] {
                cases.push(linear(shape, has_bias, has_residual));
            }
            for activation in ACTIVATIONS {
                for keeps_pre in [false, true] {
                    cases.push(linear_activation(shape, has_bias, activation, keeps_pre));
                }
            }
            for accumulate in [false, true] {
                cases.push(linear_bwd_weight(shape, has_bias, accumulate));
            }
        }
        cases.push(linear_bwd_input(shape, None));
        cases.extend(ACTIVATIONS.map(|activation| linear_bwd_input(shape, Some(activation))));
    }
    cases
}

fn linear([r, k, n]: [usize; 3], has_bias: bool, has_residual: bool) -> Case {
    let mut case = Case::new(format!("linear {r}×{k}×{n} bias={has_bias} residual={has_residual}"), k);
    let (x, weight) = (case.random(r, k), case.param(k, n));
    let bias = has_bias.then(|| case.param(1, n));
    let residual = has_residual.then(|| case.random(r, n));
    let out = case.output(r, n);
    case.push(Linear { x, weight, bias, activation: None, pre: None, residual, out });
    case.term_magnitude(out, 1.0);
    case
}

fn linear_activation([r, k, n]: [usize; 3], has_bias: bool, activation: Activation, keeps_pre: bool) -> Case {
    let mut case = Case::new(format!("linear {r}×{k}×{n} bias={has_bias} {activation:?} pre={keeps_pre}"), k);
    let (x, weight) = (case.random(r, k), case.param(k, n));
    let bias = has_bias.then(|| case.param(1, n));
    let pre = keeps_pre.then(|| case.output(r, n));
    let out = case.output(r, n);
    case.push(Linear { x, weight, bias, activation: Some(activation), pre, residual: None, out });
    case.term_magnitude(out, 1.0);
    case
}

fn linear_bwd_input([r, k, n]: [usize; 3], activation: Option<Activation>) -> Case {
    let mut case = Case::new(format!("linear_bwd_input {r}×{k}×{n} {activation:?}"), n);
    let (dy, weight) = (case.random(r, n), case.param(k, n));
    let activation = activation.map(|activation| (activation, case.random(r, k), case.output(r, k)));
    let dx = case.output(r, k);
    case.push(LinearBwdInput { dy, weight, activation, dx });
    case.term_magnitude(dx, 1.0);
    case
}

fn linear_bwd_weight([r, k, n]: [usize; 3], has_bias: bool, accumulate: bool) -> Case {
    let name = format!("linear_bwd_weight {r}×{k}×{n} bias={has_bias} accumulate={accumulate}");
    let mut case = Case::new(name, r);
    let (x, dy) = (case.random(r, k), case.random(r, n));
    let dweight = case.grad(k, n, accumulate);
    let dbias = has_bias.then(|| case.grad(1, n, accumulate));
    case.push(LinearBwdWeight { x, dy, dweight, dbias, accumulate });
    case.term_magnitude(dweight, 1.0);
    if let Some(dbias) = dbias {
        case.term_magnitude(dbias, 1.0);
    }
    case
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

/// Two layers as in a feed-forward block: activation between, residual at the end.
#[test]
fn gradients_of_a_feed_forward_block() {
    for activation in ACTIVATIONS {
        for accumulate in [false, true] {
            let [r, k, n, m] = [3, 4, 6, 5];
            let mut case = Case::new(format!("feed-forward gradient {activation:?}"), 1);
            let (x, residual) = (case.random(r, k), case.random(r, m));
            let (w1, b1) = (case.param(k, n), case.param(1, n));
            let (w2, b2) = (case.param(n, m), case.param(1, m));
            let (pre, hidden, out) = (case.output(r, n), case.output(r, n), case.output(r, m));
            let weights = case.normal(r * m);
            let dout = case.tensor(alpha_tensor::Region::Activations, [r, m], weights.clone());
            let (dpre, post, dx) = (case.output(r, n), case.output(r, n), case.output(r, k));
            let (dw1, db1) = (case.grad(k, n, accumulate), case.grad(1, n, accumulate));
            let (dw2, db2) = (case.grad(n, m, accumulate), case.grad(1, m, accumulate));
            let activation = Some(activation);
            case.push(Linear {
                x,
                weight: w1,
                bias: Some(b1),
                activation,
                pre: Some(pre),
                residual: None,
                out: hidden,
            });
            case.push(Linear {
                x: hidden,
                weight: w2,
                bias: Some(b2),
                activation: None,
                pre: None,
                residual: Some(residual),
                out,
            });
            let activation = activation.map(|activation| (activation, pre, post));
            case.push(LinearBwdInput { dy: dout, weight: w2, activation, dx: dpre });
            case.push(LinearBwdWeight { x: post, dy: dout, dweight: dw2, dbias: Some(db2), accumulate });
            case.push(LinearBwdInput { dy: dpre, weight: w1, activation: None, dx });
            case.push(LinearBwdWeight { x, dy: dpre, dweight: dw1, dbias: Some(db1), accumulate });
            // The residual's gradient is `dout` itself.
            let gradients = [(x, dx), (w1, dw1), (b1, db1), (w2, dw2), (b2, db2)];
            case.check_grad(2, out, &weights, &gradients);
        }
    }
}

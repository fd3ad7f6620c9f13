//! `swiglu`, `swiglu_bwd`, `fill`, and known values of the pointwise activations.

use alpha_tensor::{
    Region,
    op::{Activation, Fill, Linear, Swiglu, SwigluBwd},
};

use crate::harness::{Case, check_ops};

const SHAPES: [[usize; 2]; 9] = [[1, 1], [1, 5], [3, 7], [2, 16], [5, 33], [64, 64], [7, 129], [130, 200], [0, 8]];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for [r, n] in SHAPES {
        for spread in [1.0, 40.0] {
            let mut case = Case::new(format!("swiglu {r}×{n} spread={spread}"), 1);
            let pre = wide(&mut case, r, n, spread);
            let out = case.output(r, n);
            case.push(Swiglu { pre, out });
            cases.push(case);

            let mut case = Case::new(format!("swiglu_bwd {r}×{n} spread={spread}"), 1);
            let pre = wide(&mut case, r, n, spread);
            let (dout, dpre, out) = (case.random(r, n), case.output(r, 2 * n), case.output(r, n));
            case.push(SwigluBwd { pre, dout, dpre, out });
            cases.push(case);
        }
        let mut case = Case::new(format!("fill {r}×{n}"), 1);
        let out = case.output(r, n);
        case.push(Fill { out, value: -0.75 });
        cases.push(case);
    }
    cases
}

/// Random numbers large enough to saturate the sigmoid.
fn wide(case: &mut Case, r: usize, n: usize, spread: f64) -> alpha_tensor::Tensor {
    let content = case.normal(r * 2 * n).into_iter().map(|value| value * spread).collect();
    case.tensor(Region::Activations, [r, 2 * n], content)
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

#[test]
fn gradient_of_swiglu() {
    let [r, n] = [3, 5];
    let mut case = Case::new("swiglu gradient".into(), 1);
    let (pre, out) = (case.random(r, 2 * n), case.output(r, n));
    let weights = case.normal(r * n);
    let dout = case.tensor(Region::Activations, [r, n], weights.clone());
    let (dpre, again) = (case.output(r, 2 * n), case.output(r, n));
    case.push(Swiglu { pre, out });
    case.push(SwigluBwd { pre, dout, dpre, out: again });
    case.check_grad(1, out, &weights, &[(pre, dpre)]);
}

/// Values of the definitions, computed elsewhere in double precision.
#[test]
fn activations_have_their_known_values() {
    let x = vec![-30.0, -3.0, -1.0, 0.0, 0.5, 2.0, 30.0];
    let known = [
        (Activation::Gelu, [0.0, -0.003_637_392, -0.158_808_009, 0.0, 0.345_714_010, 1.954_597_694, 30.0]),
        (Activation::Silu, [-2.807_287e-12, -0.142_277_62, -0.268_941_421, 0.0, 0.311_229_666, 1.761_594_156, 30.0]),
        (Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 30.0]),
    ];
    for (activation, expected) in known {
        let mut case = Case::new(format!("{activation:?}"), 1);
        let x = case.tensor(Region::Activations, [7, 1], x.clone());
        let weight = case.tensor(Region::Params, [1, 1], vec![1.0]);
        let out = case.output(7, 1);
        let activation = Some(activation);
        case.push(Linear { x, weight, bias: None, activation, pre: None, residual: None, out });
        case.check_values(&[(out, &expected)]);
    }
}

#[test]
fn swiglu_by_hand() {
    let mut case = Case::new("swiglu by hand".into(), 1);
    let pre = case.tensor(Region::Activations, [1, 4], vec![2.0, -1.0, 3.0, 5.0]);
    let out = case.output(1, 2);
    case.push(Swiglu { pre, out });
    case.check_values(&[(out, &[3.0 * 1.761_594_156, -5.0 * 0.268_941_421])]);
}

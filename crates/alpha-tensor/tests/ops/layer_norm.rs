//! `layer_norm`, `layer_norm_bwd`.

use alpha_tensor::{
    Region, Tensor,
    op::{LayerNorm, LayerNormBwd},
};

use crate::harness::{Case, check_ops};

const SHAPES: [[usize; 2]; 11] =
    [[1, 1], [3, 2], [3, 5], [1, 16], [7, 64], [2, 129], [33, 7], [130, 48], [5, 768], [257, 31], [0, 8]];
const EPS: f32 = 1e-5;

struct Norm {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
}

/// A forward, its operands, and the condition of its worst row: how much larger than the
/// row's spread its values are, by which errors grow.
fn forward(case: &mut Case, [r, c]: [usize; 2], has_bias: bool) -> (Norm, f64) {
    let norm = Norm {
        x: case.random(r, c),
        weight: case.param(1, c),
        bias: has_bias.then(|| case.param(1, c)),
        y: case.output(r, c),
        mean: case.output(1, r),
        rstd: case.output(1, r),
    };
    let Norm { x, weight, bias, y, mean, rstd } = norm;
    case.push(LayerNorm { x, weight, bias, y, mean, rstd, eps: EPS });
    let largest_rstd = case.content(x).chunks(c).map(rstd_of).fold(0.0, f64::max);
    let condition = 1.0 + case.largest(x) * largest_rstd;
    case.term_magnitude(mean, 1.0);
    case.term_magnitude(rstd, largest_rstd * condition);
    case.term_magnitude(y, case.largest(weight) * condition);
    (norm, condition)
}

fn rstd_of(row: &[f64]) -> f64 {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
    1.0 / (variance + f64::from(EPS)).sqrt()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape @ [r, c] in SHAPES {
        for has_bias in [false, true] {
            let mut case = Case::new(format!("layer_norm {r}×{c} bias={has_bias}"), c);
            forward(&mut case, shape, has_bias);
            cases.push(case);
            for (accumulate_dx, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
                cases.push(backward(shape, has_bias, accumulate_dx, accumulate));
            }
        }
    }
    cases
}

fn backward([r, c]: [usize; 2], has_bias: bool, accumulate_dx: bool, accumulate: bool) -> Case {
    let name = format!("layer_norm_bwd {r}×{c} bias={has_bias} accumulate_dx={accumulate_dx} accumulate={accumulate}");
    let mut case = Case::new(name, r.max(c));
    let (norm, condition) = forward(&mut case, [r, c], has_bias);
    let dy = case.random(r, c);
    let dx = if accumulate_dx { case.random(r, c) } else { case.output(r, c) };
    let dweight = case.grad(1, c, accumulate);
    let dbias = has_bias.then(|| case.grad(1, c, accumulate));
    let Norm { x, weight, mean, rstd, .. } = norm;
    case.push(LayerNormBwd { x, weight, mean, rstd, dy, dx, dweight, dbias, accumulate_dx, accumulate });
    let g = case.largest(weight) * case.largest(dy);
    case.term_magnitude(dx, g * condition * condition);
    case.term_magnitude(dweight, case.largest(dy) * condition);
    if let Some(dbias) = dbias {
        case.term_magnitude(dbias, 1.0);
    }
    case
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

/// Rows of mean 3 and 0 and of variance 4 and 1.
#[test]
fn two_rows_by_hand() {
    let mut case = Case::new("layer_norm by hand".into(), 4);
    let x = case.tensor(Region::Activations, [2, 4], vec![1.0, 5.0, 1.0, 5.0, -1.0, 1.0, 1.0, -1.0]);
    let weight = case.tensor(Region::Params, [1, 4], vec![1.0, 2.0, 3.0, 4.0]);
    let bias = Some(case.tensor(Region::Params, [1, 4], vec![0.5, 0.0, 0.0, 0.0]));
    let (y, mean, rstd) = (case.output(2, 4), case.output(1, 2), case.output(1, 2));
    case.push(LayerNorm { x, weight, bias, y, mean, rstd, eps: EPS });
    let eps = f64::from(EPS);
    let (a, b) = (1.0 / (4.0 + eps).sqrt(), 1.0 / (1.0 + eps).sqrt());
    let expected = [0.5 - 2.0 * a, 4.0 * a, -6.0 * a, 8.0 * a, 0.5 - b, 2.0 * b, 3.0 * b, -4.0 * b];
    case.check_values(&[(y, &expected), (mean, &[3.0, 0.0]), (rstd, &[a, b])]);
}

#[test]
fn gradients_of_layer_norm() {
    for (has_bias, accumulate) in [(false, false), (true, false), (true, true)] {
        let [r, c] = [4, 7];
        let mut case = Case::new("layer_norm gradient".into(), c);
        let (Norm { x, weight, bias, y, mean, rstd }, _) = forward(&mut case, [r, c], has_bias);
        let weights = case.normal(r * c);
        let dy = case.tensor(Region::Activations, [r, c], weights.clone());
        let dx = if accumulate { case.random(r, c) } else { case.output(r, c) };
        let dweight = case.grad(1, c, accumulate);
        let dbias = has_bias.then(|| case.grad(1, c, accumulate));
        let accumulate_dx = accumulate;
        case.push(LayerNormBwd { x, weight, mean, rstd, dy, dx, dweight, dbias, accumulate_dx, accumulate });
        let mut gradients = vec![(x, dx), (weight, dweight)];
        gradients.extend(bias.zip(dbias));
        case.check_grad(1, y, &weights, &gradients);
    }
}

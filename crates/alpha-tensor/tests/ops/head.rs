//! `cross_entropy` with `head_bwd`, `logits`, `loss_sum`. What cross-entropy leaves for the
//! backward is up to the backend, so the two are compared as a pair.

use alpha_tensor::{
    Region, Results, Tensor,
    op::{CrossEntropy, HeadBwd, IGNORED_TARGET, Logits, LossSum},
};

use crate::harness::{ARGS, Case, check_ops};

/// `[r, c, vocab]`.
const SHAPES: [[usize; 3]; 10] = [
    [1, 1, 1],
    [1, 4, 2],
    [3, 5, 7],
    [16, 64, 96],
    [7, 33, 130],
    [64, 48, 257],
    [37, 16, 1009],
    [130, 70, 200],
    [2, 128, 5003],
    [0, 8, 16],
];
const GRAD_SCALE: f32 = 1.0 / 24.0;

struct Operands {
    x: Tensor,
    weight: Tensor,
    scratch: Tensor,
    loss: Tensor,
}

/// Every third target is ignored when there are several.
fn forward(case: &mut Case, [r, c, vocab]: [usize; 3], grad_scale: Option<f32>) -> Operands {
    let mut targets = case.random_tokens(r, vocab);
    for target in targets.iter_mut().skip(1).step_by(3) {
        *target = IGNORED_TARGET;
    }
    let targets = case.tokens(targets);
    let (x, weight) = (case.random(r, c), case.param(vocab, c));
    let (scratch, loss) = (case.private(r, vocab), case.output(1, r));
    case.push(CrossEntropy { x, weight, targets, scratch, loss, grad_scale });
    case.term_magnitude(loss, (c as f64).sqrt());
    Operands { x, weight, scratch, loss }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape @ [r, c, vocab] in SHAPES {
        let mut case = Case::new(format!("cross_entropy {r}×{c}×{vocab} no gradient"), c);
        forward(&mut case, shape, None);
        cases.push(case);

        for accumulate in [false, true] {
            let name = format!("cross_entropy + head_bwd {r}×{c}×{vocab} accumulate={accumulate}");
            let mut case = Case::new(name, r.max(c).max(vocab));
            let Operands { x, weight, scratch, .. } = forward(&mut case, shape, Some(GRAD_SCALE));
            let (dx, dweight) = (case.output(r, c), case.grad(vocab, c, accumulate));
            case.push(HeadBwd { x, weight, scratch, dx, dweight, accumulate });
            case.term_magnitude(dx, f64::from(GRAD_SCALE));
            case.term_magnitude(dweight, f64::from(GRAD_SCALE));
            cases.push(case);
        }

        let mut case = Case::new(format!("logits {r}×{c}×{vocab}"), c);
        let (x, weight, out) = (case.random(r, c), case.param(vocab, c), case.output(r, vocab));
        case.push(Logits { x, weight, out });
        case.term_magnitude(out, 1.0);
        cases.push(case);

        for accumulate in [false, true] {
            let mut case = Case::new(format!("loss_sum {r} accumulate={accumulate}"), 1);
            let loss = case.random(1, r);
            let content = if accumulate { vec![0.5, 1.0, 2.0, 1.0] } else { vec![f64::NAN; Results::LEN] };
            case.tensor(Region::Results, [1, Results::LEN], content);
            let out = Results::loss_tensor();
            case.push(LossSum { loss, out, scale: GRAD_SCALE, accumulate });
            case.term_magnitude(out, 0.1);
            cases.push(case);
        }
    }
    cases
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

/// Logits 1 and 3 for each row, one target ignored; the sum is divided by four.
#[test]
fn losses_by_hand() {
    let mut case = Case::new("cross_entropy by hand".into(), 2);
    let x = case.tensor(Region::Activations, [3, 1], vec![1.0; 3]);
    let weight = case.tensor(Region::Params, [2, 1], vec![1.0, 3.0]);
    let targets = case.tokens(vec![1, IGNORED_TARGET, 0]);
    let (scratch, loss) = (case.private(3, 2), case.output(1, 3));
    let results = case.tensor(Region::Results, [1, Results::LEN], vec![0.5, 0.0, 0.0, 0.0]);
    case.push(CrossEntropy { x, weight, targets, scratch, loss, grad_scale: None });
    case.push(LossSum { loss, out: Results::loss_tensor(), scale: 0.25, accumulate: true });
    let lse = 3.0 + (-2f64).exp().ln_1p();
    let losses = [lse - 3.0, 0.0, lse - 1.0];
    let sum = 0.5 + 0.25 * (losses[0] + losses[2]);
    case.check_values(&[(loss, &losses), (results, &[sum, 0.0, 0.0, 0.0])]);
}

#[test]
fn gradients_of_head_and_cross_entropy() {
    for accumulate in [false, true] {
        let [r, c, vocab] = [5, 4, 7];
        let mut case = Case::new("head gradient".into(), 1);
        let Operands { x, weight, scratch, loss } = forward(&mut case, [r, c, vocab], Some(GRAD_SCALE));
        let (dx, dweight) = (case.output(r, c), case.grad(vocab, c, accumulate));
        case.push(HeadBwd { x, weight, scratch, dx, dweight, accumulate });
        let scale = f64::from(GRAD_SCALE) * f64::from(ARGS.loss_scale);
        case.check_grad(1, loss, &vec![scale; r], &[(x, dx), (weight, dweight)]);
    }
}

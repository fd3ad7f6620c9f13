//! `grad_norm`, `adamw`, also against closed forms written here in f64.

use alpha_tensor::{
    Region, Results, RunArgs, Tensor,
    op::{AdamW, DecayRun, GradNorm},
};

use crate::{
    backends::backends,
    harness::{ARGS, Case, check_ops, read},
};

const LENGTHS: [usize; 8] = [1, 7, 16, 33, 257, 1000, 4099, 40_000];
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.95;
const EPS: f32 = 1e-8;
const WEIGHT_DECAY: f32 = 0.1;

fn norm_case(grads: Vec<f64>, loss: f64, grad_clip: f32, spike_threshold: f32) -> (Case, Tensor) {
    let n = grads.len();
    let mut case = Case::new(format!("grad_norm {n} clip={grad_clip} spike={spike_threshold}"), n);
    let grads = case.tensor(Region::Grads, [1, n], grads);
    let results = case.tensor(Region::Results, [1, Results::LEN], vec![loss, f64::NAN, f64::NAN, f64::NAN]);
    assert_eq!(results, Results::tensor());
    case.push(GradNorm { grads, results, grad_clip, spike_threshold });
    (case, results)
}

struct State {
    params: Tensor,
    moment1: Tensor,
    moment2: Tensor,
}

fn adamw_case(n: usize, clip_coef: f64, is_applied: bool) -> (Case, State) {
    let mut case = Case::new(format!("adamw {n} clip_coef={clip_coef} is_applied={is_applied}"), 1);
    let params = case.param(1, n);
    let grads = case.grad(1, n, true);
    let [moment1, moment2] = [case.normal(n), case.normal(n).into_iter().map(f64::abs).collect()];
    let moment1 = case.tensor(Region::Moment1, [1, n], moment1);
    let moment2 = case.tensor(Region::Moment2, [1, n], moment2);
    let results = vec![2.0, 3.0, clip_coef, f64::from(u8::from(is_applied))];
    let results = case.tensor(Region::Results, [1, Results::LEN], results);
    let (beta1, beta2, eps, weight_decay) = (BETA1, BETA2, EPS, WEIGHT_DECAY);
    let decay_runs = decay_runs(n);
    case.push(AdamW { params, grads, moment1, moment2, results, decay_runs, beta1, beta2, eps, weight_decay });
    (case, State { params, moment1, moment2 })
}

/// A decayed run of 48 elements, 32 without decay, the rest decayed.
fn decay_runs(n: usize) -> Vec<DecayRun> {
    let ends = [(48, true), (80, false), (usize::MAX, true)];
    let mut runs = Vec::new();
    for (end, is_decayed) in ends {
        runs.push(DecayRun { end: end.min(n), is_decayed });
        if end >= n {
            break;
        }
    }
    runs
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in LENGTHS {
        for (grad_clip, spike_threshold) in [(0.0, 0.0), (1.0, 0.0), (1e6, 1e9)] {
            let mut draws = Case::new(format!("gradient {n}"), 1);
            cases.push(norm_case(draws.normal(n), 2.0, grad_clip, spike_threshold).0);
        }
        for (clip_coef, is_applied) in [(1.0, true), (0.25, true), (1.0, false)] {
            cases.push(adamw_case(n, f64::from(clip_coef as f32), is_applied).0);
        }
    }
    cases
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

#[test]
fn adamw_equals_its_closed_form() {
    let n = 100;
    let clip_coef = 0.25;
    for update in [1, 4, 1000] {
        let (mut case, state) = adamw_case(n, clip_coef, true);
        case.args = RunArgs { update, ..ARGS };
        let grads = case.content(state.params.in_region(Region::Grads)).to_vec();
        let [p0, m0, v0] = [state.params, state.moment1, state.moment2].map(|tensor| case.content(tensor).to_vec());
        let (beta1, beta2, decay) = (f64::from(BETA1), f64::from(BETA2), f64::from(WEIGHT_DECAY));
        let lr = f64::from(case.args.lr);
        let [mut params, mut m, mut v] = [vec![0.0; n], vec![0.0; n], vec![0.0; n]];
        for i in 0..n {
            let g = clip_coef * grads[i] / f64::from(ARGS.loss_scale);
            m[i] = beta1 * m0[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v0[i] + (1.0 - beta2) * g.powi(2);
            let is_decayed = !(48..80).contains(&i);
            let kept = if is_decayed { 1.0 - lr * decay } else { 1.0 };
            let m_hat = m[i] / (1.0 - beta1.powi(update as i32));
            let v_hat = v[i] / (1.0 - beta2.powi(update as i32));
            params[i] = p0[i] * kept - lr * m_hat / (v_hat.sqrt() + f64::from(EPS));
        }
        case.check_values(&[(state.params, &params), (state.moment1, &m), (state.moment2, &v)]);
    }
}

#[test]
fn an_update_that_is_not_applied_changes_no_bit() {
    for (name, mut backend) in backends() {
        let (case, state) = adamw_case(100, 1.0, false);
        let tensors = [state.params, state.moment1, state.moment2];
        let before = tensors.map(|tensor| case.content(tensor).to_vec());
        let runnable = case.finish();
        runnable.load(backend.as_mut());
        backend.run(&runnable.program, &ARGS, None).expect("it runs");
        assert_eq!(tensors.map(|tensor| read(backend.as_mut(), tensor)), before, "{name}");
    }
}

/// Runs a norm on every backend and hands each its results.
fn for_each_norm(grads: &[f64], loss: f64, grad_clip: f32, spike_threshold: f32, check: impl Fn(&str, Results)) {
    for (name, mut backend) in backends() {
        let scaled = grads.iter().map(|grad| grad * f64::from(ARGS.loss_scale)).collect();
        let (case, _) = norm_case(scaled, loss, grad_clip, spike_threshold);
        let runnable = case.finish();
        runnable.load(backend.as_mut());
        backend.run(&runnable.program, &ARGS, None).expect("it runs");
        check(&name, backend.results().expect("it ran"));
    }
}

#[test]
fn grad_norm_equals_its_closed_form() {
    // 3, 4 and 12 make a norm of 13.
    let grads = [3.0, 0.0, -4.0, 12.0];
    for_each_norm(&grads, 2.5, 0.0, 0.0, |name, results| {
        assert_eq!(results, Results { loss: 2.5, grad_norm: 13.0, clip_coef: 1.0, is_applied: true }, "{name}");
    });
    for_each_norm(&grads, 2.5, 20.0, 0.0, |name, results| {
        assert_eq!(results, Results { loss: 2.5, grad_norm: 13.0, clip_coef: 1.0, is_applied: true }, "{name}");
    });
    for_each_norm(&grads, 2.5, 1.0, 0.0, |name, results| {
        let expected = 1.0 / (13.0 + 1e-6);
        assert!((f64::from(results.clip_coef) - expected).abs() < 1e-7, "{name}: {results:?}");
        assert!(results.is_applied, "{name}");
    });
}

#[test]
fn zero_gradients_are_applied_unclipped() {
    for_each_norm(&[0.0; 20], 2.5, 1.0, 1.0, |name, results| {
        assert_eq!(results, Results { loss: 2.5, grad_norm: 0.0, clip_coef: 1.0, is_applied: true }, "{name}");
    });
}

#[test]
fn spikes_and_what_is_not_finite_are_not_applied() {
    let grads = [3.0, 0.0, -4.0, 12.0];
    for (spike_threshold, is_applied) in [(12.5, false), (13.5, true), (0.0, true)] {
        for_each_norm(&grads, 2.5, 1.0, spike_threshold, |name, results| {
            assert_eq!(results.is_applied, is_applied, "{name}: threshold {spike_threshold}");
        });
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for_each_norm(&[3.0, bad, 4.0], 2.5, 1.0, 0.0, |name, results| {
            assert!(!results.is_applied && !results.grad_norm.is_finite(), "{name}: {bad} {results:?}");
        });
        for_each_norm(&grads, bad, 1.0, 0.0, |name, results| {
            assert!(!results.is_applied, "{name}: loss {bad}");
        });
    }
}

//! `dropout`, in place and not.

use alpha_tensor::{
    RunArgs, Tensor,
    op::{Dropout, DropoutMask},
    rng::{Key, Purpose},
};

use crate::{
    backends::backends,
    harness::{ARGS, Case, check_ops, read},
};

const SHAPES: [[usize; 2]; 9] = [[1, 1], [1, 5], [3, 7], [2, 16], [5, 33], [64, 64], [7, 129], [130, 200], [0, 8]];

/// The tensor of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Own,
    Input,
    Residual,
}

fn dropout([r, n]: [usize; 2], p: f32, has_residual: bool, place: Place) -> (Case, Tensor, Tensor) {
    let mut case = Case::new(format!("dropout {r}×{n} p={p} residual={has_residual} out={place:?}"), 1);
    let x = case.random(r, n);
    let residual = has_residual.then(|| case.random(r, n));
    let out = match (place, residual) {
        (Place::Input, _) => x,
        (Place::Residual, Some(residual)) => residual,
        _ => case.output(r, n),
    };
    case.push(Dropout { x, residual, out, mask: DropoutMask { p, site: 6 } });
    (case, x, out)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for p in [0.1, 0.5] {
            for (has_residual, place) in [
                (false, Place::Own),
                (false, Place::Input),
                (true, Place::Own),
                (true, Place::Input),
                (true, Place::Residual),
            ] {
                cases.push(dropout(shape, p, has_residual, place).0);
            }
        }
    }
    cases
}

#[test]
fn every_backend_agrees_with_the_reference() {
    check_ops(cases());
}

#[test]
fn gradient_of_dropout() {
    let [r, n] = [5, 7];
    let mut case = Case::new("dropout gradient".into(), 1);
    let mask = DropoutMask { p: 0.4, site: 9 };
    let (x, residual, out) = (case.random(r, n), case.random(r, n), case.output(r, n));
    let weights = case.normal(r * n);
    let dout = case.tensor(alpha_tensor::Region::Activations, [r, n], weights.clone());
    let dx = case.output(r, n);
    case.push(Dropout { x, residual: Some(residual), out, mask });
    case.push(Dropout { x: dout, residual: None, out: dx, mask });
    // The residual's gradient is `dout` itself.
    case.check_grad(1, out, &weights, &[(x, dx)]);
}

/// A quarter dropped: what is kept is 4/3 of the input, by the rule of [`DropoutMask::keeps`].
#[test]
fn masks_follow_the_documented_rule() {
    let [r, n] = [9, 13];
    let mask = DropoutMask { p: 0.25, site: 2 };
    let key = Key::new(ARGS.seed, Purpose::Dropout).fold(ARGS.step).fold(u64::from(ARGS.micro_step)).fold(2);
    let mut case = Case::new("dropout rule".into(), 1);
    let (x, residual, out) = (case.random(r, n), case.random(r, n), case.output(r, n));
    let expected: Vec<f64> = case
        .content(x)
        .iter()
        .zip(case.content(residual))
        .enumerate()
        .map(|(index, (x, residual))| {
            let (row, col) = (index / n, index % n);
            let is_kept = key.words([(col / 2) as u32, row as u32])[col % 2] >= 1 << 30;
            residual + if is_kept { x / 0.75 } else { 0.0 }
        })
        .collect();
    case.push(Dropout { x, residual: Some(residual), out, mask });
    case.check_values(&[(out, &expected)]);
}

/// The elements that a backend keeps: those whose output is not zero.
fn kept(backend: &mut dyn alpha_tensor::Backend, args: &RunArgs, site: u32) -> Vec<bool> {
    let mut case = Case::new("kept".into(), 1);
    let (x, out) = (case.random(64, 100), case.output(64, 100));
    case.push(Dropout { x, residual: None, out, mask: DropoutMask { p: 0.25, site } });
    let runnable = case.finish();
    runnable.load(backend);
    backend.run(&runnable.program, args, None).expect("it runs");
    read(backend, runnable.place(out)).into_iter().map(|value| value != 0.0).collect()
}

#[test]
fn masks_have_the_right_share_and_differ_by_step_micro_step_site_and_seed() {
    for (name, mut backend) in backends() {
        let mut kept = |args: RunArgs, site: u32| kept(backend.as_mut(), &args, site);
        let first = kept(ARGS, 1);
        let share = first.iter().filter(|&&is_kept| is_kept).count() as f64 / first.len() as f64;
        // Standard deviation of the share: √(0.25·0.75/6400) = 0.0054.
        assert!((share - 0.75).abs() < 0.02, "{name}: {share}");
        assert_eq!(first, kept(ARGS, 1), "{name}");
        let others = [
            kept(ARGS, 2),
            kept(RunArgs { step: ARGS.step + 1, ..ARGS }, 1),
            kept(RunArgs { micro_step: ARGS.micro_step + 1, ..ARGS }, 1),
            kept(RunArgs { seed: ARGS.seed + 1, ..ARGS }, 1),
        ];
        for other in others {
            let equal = first.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / first.len() as f64;
            // Independent masks agree with probability 0.75² + 0.25².
            assert!((equal - 0.625).abs() < 0.03, "{name}: {equal}");
        }
    }
}

//! Records of every form, whole and damaged.

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn lines(form: &StepForm, text: &str, steps: u64) -> Result<Trajectory, String> {
    let recorded = of_lines(form, file(text).path()).map_err(|error| error.to_string())?;
    trajectory(recorded, steps).map_err(|error| error.to_string())
}

fn losses(run: &Trajectory) -> Vec<f64> {
    run.rows.iter().map(|row| row.loss).collect()
}

#[test]
fn step_lines_are_found_among_others() {
    let form = StepForm::known("nanogpt").unwrap();
    let text = "number of parameters: 0.80M\nstep 0: train loss 4.2, val loss 4.2\n\
                \u{1b}[32miter 0: loss 4.2000, time 10.00ms, mfu -100.00%\u{1b}[0m\r\n\
                iter 1: loss 4.1, time 9.00ms, mfu 1.00%\riter 2: loss nan, time 9.00ms, mfu 1.00%";
    let run = lines(&form, text, 3).unwrap();
    assert_eq!(losses(&run)[..2], [4.2, 4.1]);
    assert!(run.rows[2].loss.is_nan() && run.rows[0].grad_norm.is_nan());
    // `4.1` was printed with as many digits as `4.2000`.
    assert_eq!((run.rows[1].loss_unit, run.extra_steps), (1e-4, 0));
}

#[test]
fn one_step_more_than_asked_is_noted_and_two_are_refused() {
    let form = StepForm::of_expression(r"^(?<step>\d+) (?<loss>\S+)$").unwrap();
    let text = "0 3.5\n1 3.25\n1 3.25\n2 3\n";
    assert_eq!(
        (losses(&lines(&form, text, 3).unwrap()), lines(&form, text, 3).unwrap().extra_steps),
        (vec![3.5, 3.25, 3.0], 0)
    );
    assert_eq!(
        (losses(&lines(&form, text, 2).unwrap()), lines(&form, text, 2).unwrap().extra_steps),
        (vec![3.5, 3.25], 1)
    );
    assert!(lines(&form, text, 1).unwrap_err().contains("recorded 3 steps"));
    // A run that is too short is judged by the rule about steps.
    assert_eq!(lines(&form, text, 9).unwrap().steps(), 3);
}

#[test]
fn steps_that_do_not_follow_each_other_are_refused() {
    let form = StepForm::of_expression(r"^(?<step>\d+) (?<loss>\S+)$").unwrap();
    for (text, named) in [("0 3\n10 2\n", "a line for every step"), ("4 3\n5 2\n4 3\n", "printed step 4 after step 5")]
    {
        let error = lines(&form, text, 5).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn json_and_csv_are_read_by_their_keys() {
    let keys = Keys {
        step: "iter".into(),
        loss: "train/loss".into(),
        grad_norm: Some("norms.total".into()),
        data_hash: Some("tokens".into()),
    };
    let json = "{\"config\":{\"lr\":0.1}}\n{\"iter\":5,\"train/loss\":3.0625,\"norms\":{\"total\":1.5},\"tokens\":\"a\"}\n\
                {\"iter\":5,\"val/loss\":3}\n{\"iter\":6,\"train/loss\":null,\"norms\":{\"total\":0.25},\"tokens\":\"b\"}\n";
    let run = trajectory(of_json(&keys, file(json).path()).unwrap(), 2).unwrap();
    assert_eq!((run.rows[0].loss, run.rows[0].grad_norm, run.rows[1].grad_norm), (3.0625, 1.5, 0.25));
    assert!(run.rows[1].loss.is_nan());
    assert_ne!(run.rows[0].data_hash, run.rows[1].data_hash);
    // Some programs write the numbers of steps as floats.
    let floats = json.replace("\"iter\":5,\"train", "\"iter\":5.0,\"train").replace("\"iter\":6", "\"iter\":6.0");
    assert_eq!(trajectory(of_json(&keys, file(&floats).path()).unwrap(), 2).unwrap().rows[0], run.rows[0]);
    let csv = "train/loss , iter,norms.total,tokens,val\n3.0625,5,1.5,a,\n,5,,,3.1\n3,6,0.25,b,\n";
    let run = trajectory(of_csv(&keys, file(csv).path()).unwrap(), 2).unwrap();
    assert_eq!(
        (run.rows[0].loss, run.rows[0].loss_unit, run.rows[1].loss, run.rows[1].grad_norm),
        (3.0625, 1e-4, 3.0, 0.25)
    );
}

#[test]
fn what_a_record_lacks_is_named() {
    let keys = Keys { grad_norm: Some("norm".into()), ..Keys::default() };
    for (text, named) in [
        ("{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":true,\"norm\":1}\n", "`loss` is `true`"),
        ("{\"step\":1,\"loss\":3,\"norm\":[]}\n", "`norm` is `[]`"),
        ("{\"step\":1.5,\"loss\":3}\n", "`step` is `1.5`"),
        ("{\"step\":1,\"lo\n", "not JSON"),
        ("{\"step\":1,\"loss\":3,\"norm\":1}\n{\"step\":3,\"loss\":3,\"norm\":1}\n", "for every step"),
    ] {
        let error = of_json(&keys, file(text).path()).err().unwrap().to_string();
        assert!(error.contains(named) && error.contains("workload.metrics"), "{error}");
    }
    for (text, named) in [
        ("step,loss\n1,2\n", "has no column `norm`; it has step, loss"),
        ("step,loss,norm\n1,2,\n", "a step has no `norm`"),
        ("step,loss,norm\n1,2,x\n", "`norm` is `x`"),
    ] {
        let error = of_csv(&keys, file(text).path()).err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// A number with many digits before the point has no more behind it, and one with an exponent has its own.
#[test]
fn the_finest_unit_of_a_run_is_that_of_all_its_numbers() {
    let form = StepForm::of_expression(r"^(?<step>\d+) (?<loss>\S+)$").unwrap();
    let units = |text: &str| lines(&form, text, 3).unwrap().rows.iter().map(|row| row.loss_unit).collect::<Vec<_>>();
    assert_eq!(units("0 12345.6789\n1 0.0123\n2 3.5\n"), [1e-4; 3]);
    assert_eq!(units("0 3.5\n1 9.1e-6\n2 3.0625\n"), [1e-4, 10f64.powi(-7), 1e-4]);
    assert_eq!(units("0 3.0000001192092896\n1 3.5\n2 2.75\n"), [0.0; 3]);
}

/// A gradient norm that a JSON row lacks is not a number, and so refused later.
#[test]
fn a_missing_norm_is_not_finite() {
    let keys = Keys { grad_norm: Some("norm".into()), ..Keys::default() };
    let run = trajectory(of_json(&keys, file("{\"step\":1,\"loss\":3}\n").path()).unwrap(), 1).unwrap();
    assert!(run.rows[0].grad_norm.is_nan());
}

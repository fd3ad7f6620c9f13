//! Attribution against a published t value, simulated noise, and names that would break a message.

use super::*;
use crate::trace::ranking::{Kernel, Trace};

fn run(kernels: &[(&str, f64)], rest_ms: Option<f64>) -> TracedRun {
    let sum: f64 = kernels.iter().map(|(_, ms)| ms).sum();
    let rows = kernels.iter().map(|(label, ms)| {
        let (phase, name) = label.split_once('/').unwrap();
        // Totals of two steps.
        Kernel { name: name.into(), phase: phase.into(), time_ms: 2.0 * ms, calls: None, flops: None, bytes: None }
    });
    TracedRun { trace: Trace { steps: 2, kernels: rows.collect() }, step_ms: rest_ms.map(|rest| sum + rest) }
}

fn pair(before: &[(&str, f64)], after: &[(&str, f64)]) -> TracedPair {
    TracedPair { baseline: run(before, Some(1.0)), candidate: run(after, Some(1.0)) }
}

fn area(globs: &[&str]) -> Area {
    Area { kernels: globs.iter().map(|glob| (*glob).to_owned()).collect(), files: Vec::new() }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-3
}

#[test]
fn the_interval_is_students() {
    // Differences 1, 2, 3, 4: mean 2.5, standard error 0.64550; the table of the t distribution has
    // 3.182 for 3 degrees of freedom.
    let pairs: Vec<TracedPair> =
        [1.0, 2.0, 3.0, 4.0].iter().map(|saved| pair(&[("fwd/a", 9.0)], &[("fwd/a", 9.0 - saved)])).collect();
    let found = attribute(&pairs, &[&area(&["a"])], 30.0);
    let change = &found.kernels[0].change;
    let half = 3.182 * 0.645_50;
    assert!(close(change.saved_ms, 2.5) && close(change.saved_pct, 25.0), "{change:?}");
    assert!(close(change.interval_ms.0, 2.5 - half) && close(change.interval_ms.1, 2.5 + half), "{change:?}");
    assert_eq!((found.finding, found.pairs), (Finding::Inside, 4));
    assert_eq!(found.step.unwrap().name, "step");
}

#[test]
fn phases_and_kernels_add_up_to_the_step() {
    let before = [("fwd/a", 3.0), ("fwd/b", 2.0), ("bwd/a", 4.0)];
    let after = [("fwd/a", 2.0), ("fwd/c", 2.5), ("bwd/a", 3.0)];
    let found = attribute(&vec![pair(&before, &after); 2], &[&area(&["bwd/*"])], 10.0);
    let step = found.step.unwrap();
    assert!(close(step.saved_ms, 1.5) && close(step.baseline_ms, 10.0));
    for parts in [found.phases, found.kernels.into_iter().map(|kernel| kernel.change).collect()] {
        assert!(close(parts.iter().map(|part| part.saved_ms).sum(), 1.5), "{parts:?}");
        assert!(close(parts.iter().map(|part| part.baseline_ms).sum(), 10.0), "{parts:?}");
    }
    assert!(close(found.inside.unwrap().saved_ms, 1.0) && close(found.outside.unwrap().saved_ms, 0.5));
}

#[test]
fn a_quarter_is_the_limit() {
    // 10 ms a step and 1 ms saved, of which `outside` ms are another kernel's.
    let finding = |outside: f64, globs: &[&str]| {
        let before = [("fwd/a", 5.0), ("fwd/b", 4.0)];
        let after = [("fwd/a", 4.0 + outside), ("fwd/b", 4.0 - outside)];
        attribute(&vec![pair(&before, &after); 3], &[&area(globs)], 100.0 / 9.0).finding
    };
    assert_eq!(finding(0.24, &["a"]), Finding::Inside);
    assert_eq!(finding(0.26, &["a"]), Finding::Outside);
    assert_eq!(finding(0.26, &["fwd/a", "fwd/b"]), Finding::Inside);
    assert_eq!(finding(0.26, &[]), Finding::Outside, "an area without kernels covers nothing");
}

#[test]
fn widening_is_another_area() {
    let pairs = vec![pair(&[("fwd/a", 5.0), ("fwd/b", 4.0)], &[("fwd/a", 5.0), ("fwd/b", 3.0)]); 3];
    assert_eq!(attribute(&pairs, &[&area(&["a"])], 11.0).finding, Finding::Outside);
    assert_eq!(attribute(&pairs, &[&area(&["a"]), &area(&["b"])], 11.0).finding, Finding::Inside);
}

#[test]
fn the_rest_is_a_part() {
    let pairs =
        vec![
            TracedPair { baseline: run(&[("fwd/a", 5.0)], Some(5.0)), candidate: run(&[("fwd/a", 5.0)], Some(4.0)) };
            3
        ];
    let found = attribute(&pairs, &[&area(&["a"])], 11.0);
    assert_eq!(found.finding, Finding::Outside);
    assert!(found.explanation.contains("`rest/unexplained` 1.000 ms"), "{}", found.explanation);
    assert_eq!(attribute(&pairs, &[&area(&["rest/*"])], 11.0).finding, Finding::Inside);
}

#[test]
fn work_that_moves_into_another_kernel_is_no_gain_outside() {
    let pairs = vec![pair(&[("fwd/a", 5.0), ("fwd/b", 1.0)], &[("fwd/a", 1.0), ("fwd/b", 4.0)]); 3];
    assert_eq!(attribute(&pairs, &[&area(&["a"])], 16.0).finding, Finding::Inside);
}

#[test]
fn nothing_to_attribute_to_is_said() {
    let (whole, bare) = (pair(&[("fwd/a", 5.0)], &[("fwd/a", 5.0)]), pair(&[], &[("fwd/a", 5.0)]));
    for (pairs, named) in
        [(vec![], "at least 2"), (vec![whole.clone()], "at least 2"), (vec![whole.clone(), bare], "baseline's traces")]
    {
        let found = attribute(&pairs, &[&area(&["a"])], 10.0);
        assert_eq!(found.finding, Finding::NotAttributable);
        assert!(found.explanation.contains(named), "{}", found.explanation);
        assert!(table(&found).contains("not attributable"));
    }
    let hiding = vec![whole, pair(&[("fwd/a", 5.0)], &[])];
    assert_eq!(attribute(&hiding, &[&area(&["a"])], 10.0).finding, Finding::Outside);
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// Four pairs whose kernels vary by 2 % each and whose runs vary by 2 %, now and then by 10 %.
fn noisy(after: &[(&str, f64)], random: &mut fastrand::Rng) -> Vec<TracedPair> {
    let mut arm = |kernels: &[(&'static str, f64)]| {
        let sd = if random.f64() < 0.1 { 0.10 } else { 0.02 };
        let pace = 1.0 + sd * normal(random).abs();
        let kernels: Vec<(&str, f64)> =
            kernels.iter().map(|(label, ms)| (*label, ms * pace * (1.0 + 0.02 * normal(random)))).collect();
        run(&kernels, Some(0.2 * pace))
    };
    let after: Vec<(&'static str, f64)> = BEFORE.iter().zip(after).map(|((label, _), (_, ms))| (*label, *ms)).collect();
    (0..4).map(|_| TracedPair { baseline: arm(&BEFORE), candidate: arm(&after) }).collect()
}

const BEFORE: [(&str, f64); 6] =
    [("fwd/a", 2.0), ("fwd/b", 2.0), ("bwd/a", 3.0), ("bwd/b", 2.0), ("optim/c", 0.8), ("gradnorm/d", 0.2)];

#[test]
fn noise_is_not_refused_and_a_gain_elsewhere_is() {
    let mut random = fastrand::Rng::with_seed(5);
    let count = |change: usize, finding: Finding, random: &mut fastrand::Rng| {
        let mut after = BEFORE;
        after[change].1 *= 0.6;
        let gain_pct = 100.0 * (BEFORE[change].1 * 0.4) / (10.2 - BEFORE[change].1 * 0.4);
        (0..200)
            .filter(|_| attribute(&noisy(&after, random), &[&area(&["bwd/a", "optim/c"])], gain_pct).finding == finding)
            .count()
    };
    // bwd/a is inside and saves 1.2 of 10.2 ms. Outside is refused by mistake in at most 2.5 % for all
    // of it together and 2.5 % for its kernels: 10 of 200, standard error 3.
    let refused = count(2, Finding::Outside, &mut random);
    assert!(refused <= 16, "{refused} of 200 refused by mistake");
    assert!(count(2, Finding::Inside, &mut random) >= 150);
    // fwd/b is outside and saves 0.8 ms.
    let refused = count(1, Finding::Outside, &mut random);
    assert!(refused >= 180, "{refused} of 200 gains elsewhere refused");
}

#[test]
fn the_table_is_narrow_short_and_harmless() {
    let kernels: Vec<(String, f64)> = (0..40).map(|index| (format!("fwd/kernel_{index}"), f64::from(index))).collect();
    let mut before: Vec<(&str, f64)> = kernels.iter().map(|(name, ms)| (name.as_str(), *ms)).collect();
    before.push(("bwd/evil\n\nSigned-off-by: nobody", 500.0));
    before.push(("#/comment\u{202e}", 400.0)); // Outside, and so named in the explanation.
    let after: Vec<(&str, f64)> = before.iter().map(|(name, ms)| (*name, ms * 0.9)).collect();
    let found = attribute(&vec![pair(&before, &after); 2], &[&area(&["bwd/*"])], 10.0);
    let text = table(&found);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + MOST_ROWS, "{text}");
    assert!(lines.iter().all(|line| line.starts_with("  ") && line.len() <= 100 && line.is_ascii()), "{text}");
    assert!(!lines.iter().any(|line| line.trim_start().starts_with("Signed-off-by")), "{text}");
    assert!(text.contains("bwd/evil??Signed-off-by:..") && text.contains(" inside"), "{text}");
    assert!(lines.last().unwrap().contains("more kernels"), "{text}");
    assert!(found.explanation.is_ascii(), "{}", found.explanation);
}

const MOST_ROWS: usize = 20;

#[test]
fn the_table_reads_like_this() {
    let pairs = vec![pair(&[("fwd/a", 5.0), ("bwd/a", 4.0)], &[("fwd/a", 4.0), ("bwd/a", 4.0)]); 2];
    let text = table(&attribute(&pairs, &[&area(&["fwd/a"])], 11.1));
    let expected = "  \
  ms a step                     before     after     saved       95 % interval % of it  area
  step                          10.000     9.000     1.000      [1.000, 1.000]   10.00
  fwd                            5.000     4.000     1.000      [1.000, 1.000]   10.00
  bwd                            4.000     4.000     0.000      [0.000, 0.000]    0.00
  rest                           1.000     1.000     0.000      [0.000, 0.000]    0.00
  fwd/a                          5.000     4.000     1.000      [1.000, 1.000]   10.00  inside
  bwd/a                          4.000     4.000     0.000      [0.000, 0.000]    0.00  outside
  rest/unexplained               1.000     1.000     0.000      [0.000, 0.000]    0.00  outside
";
    assert_eq!(text, expected, "{text}");
}

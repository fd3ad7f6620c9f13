//! The ranking against closed forms, nonsense, and profiles in which one kernel was made slow.

use proptest::prelude::*;

use super::*;

const PEAKS: Peaks = Peaks { gflops: 200.0, gb_s: 20.0 };

fn kernel(label: &str, time_ms: f64, flops: f64, bytes: f64, calls: f64) -> Kernel {
    let (phase, name) = label.split_once('/').unwrap();
    let (flops, bytes, calls) = (Some(flops), Some(bytes), Some(calls));
    Kernel { name: name.into(), phase: phase.into(), time_ms, calls, flops, bytes }
}

fn run(kernels: &[Kernel], step_ms: Option<f64>) -> TracedRun {
    TracedRun { trace: Trace { steps: 1, kernels: kernels.to_vec() }, step_ms }
}

fn ranked(runs: &[TracedRun], resolvable_pct: f64) -> Report {
    let areas = BTreeMap::new();
    let resolvable_pct = Some(resolvable_pct);
    rank(&Basis { runs, peaks: Some(PEAKS), past: &[], areas: &areas, files: &[], resolvable_pct }).unwrap()
}

#[test]
fn potential_is_the_closed_form() {
    // 8·10⁸ operations take 4 ms at the peak: r = 0.4 of 10 ms, a fifth of a step of 50 ms.
    let report = ranked(&[run(&[kernel("fwd/linear", 10.0, 8e8, 1e6, 1.0)], Some(50.0))], 0.0);
    let linear = report.ranked.iter().find(|entry| entry.share.name == "fwd/linear").unwrap();
    assert_eq!((linear.share.share_pct, linear.floor_ms, linear.kind), (20.0, Some(4.0), Kind::Compute));
    let gain: f64 = 1.0 / (1.0 - 0.2 * 0.6) - 1.0;
    assert!((linear.potential_pct - 100.0 * gain).abs() < 1e-9);
    assert!((linear.score - gain.ln_1p() * 0.25 / 1.0).abs() < 1e-12);
    let rest = report.ranked.iter().find(|entry| entry.share.name == REST).unwrap();
    assert_eq!((rest.share.time_ms, rest.share.share_pct, rest.kind), (40.0, 80.0, Kind::Waiting));
    assert!(report.notes.iter().any(|note| note.contains("one process")));
}

#[test]
fn what_cannot_matter_is_hidden_with_its_limit() {
    // Shares of 0.6 and 1 %: the mean is 0.8, at most is the upper end.
    let runs = [0.6, 1.0].map(|ms| run(&[kernel("fwd/a", ms, 1.0, 1.0, 1.0)], Some(100.0)));
    let hidden = &ranked(&runs, 2.0).hidden;
    assert_eq!(hidden.len(), 1);
    assert_eq!(hidden[0].reason, "at most +1.0 %, and this machine resolves +2.0 %");
    assert!(ranked(&runs, 0.9).hidden.is_empty(), "its upper end can be seen");
}

#[test]
fn faster_than_the_machine_is_quarantined() {
    let kernels = [
        kernel("fwd/impossible", 1.0, 1e9, 1.0, 1.0),
        kernel("fwd/at_once", 0.0, 1e3, 1.0, 1.0),
        kernel("fwd/cached", 1.0, 1e7, 1e9, 1.0),
        kernel("fwd/nothing", 0.0, 0.0, 0.0, 0.0),
    ];
    let report = ranked(&[run(&kernels, Some(2.0))], 0.0);
    let names: Vec<&str> = report.quarantined.iter().map(|entry| entry.share.name.as_str()).collect();
    assert_eq!(names, ["fwd/at_once", "fwd/impossible"]);
    assert!(report.quarantined[1].reason.starts_with("beyond the roofline: 1.0000 ms for work that takes at least 5"));
    let cached = report.ranked.iter().find(|entry| entry.share.name == "fwd/cached").unwrap();
    assert_eq!(cached.floor_ms, Some(0.05), "the floor of its flops");
    assert!(cached.remark.is_some());
}

#[test]
fn missing_counters_and_peaks_are_said() {
    let mut bare = kernel("fwd/a", 1.0, 1.0, 1.0, 1.0);
    (bare.flops, bare.calls) = (None, None);
    let areas = BTreeMap::new();
    let runs = [run(&[bare], None)];
    let mut basis =
        Basis { runs: &runs, peaks: Some(PEAKS), past: &[], areas: &areas, files: &[], resolvable_pct: None };
    let report = rank(&basis).unwrap();
    let entry = &report.ranked[0];
    assert_eq!((entry.floor_ms, entry.kind, entry.calls), (None, Kind::Unknown, None));
    assert!(entry.remark.as_ref().unwrap().contains("floor is unknown"));
    assert!((entry.potential_pct - 9900.0).abs() < 1e-6, "a part that is all cannot vanish altogether");
    assert!(report.notes.iter().any(|note| note.contains("no times of whole steps")));
    assert!(report.notes.iter().any(|note| note.contains("resolves is not known")));
    basis.peaks = None;
    assert!(rank(&basis).unwrap().notes.iter().any(|note| note.contains("no measured peaks")));
}

#[test]
fn traces_without_time_are_refused() {
    let fails = |runs: &[TracedRun]| {
        let areas = BTreeMap::new();
        rank(&Basis { runs, peaks: None, past: &[], areas: &areas, files: &[], resolvable_pct: None }).is_err()
    };
    assert!(fails(&[]));
    assert!(fails(&[run(&[], None)]));
    assert!(fails(&[run(&[], Some(0.0))]));
    assert!(fails(&[run(&[], Some(-1.0))]));
    assert!(!fails(&[run(&[], Some(1.0))]), "all of it is unexplained");
    assert!(fails(&[run(&[], Some(f64::NAN))]));
}

#[test]
fn kernels_longer_than_their_step_are_said() {
    let report = ranked(&[run(&[kernel("fwd/a", 3.0, 1.0, 1.0, 1.0)], Some(2.0))], 0.0);
    assert!(report.notes.iter().any(|note| note.contains("longer than the step")));
    assert_eq!(report.ranked.len(), 1, "no rest below nothing");
    assert_eq!(report.step_ms, 3.0);
}

#[test]
fn phases_add_up_to_the_step() {
    let kernels =
        [kernel("fwd/a", 1.0, 1.0, 1.0, 1.0), kernel("bwd/a", 4.0, 1.0, 1.0, 1.0), kernel("fwd/b", 2.0, 1.0, 1.0, 1.0)];
    let report = ranked(&[run(&kernels, Some(10.0))], 0.0);
    let phases: Vec<(&str, f64)> = report.phases.iter().map(|phase| (phase.name.as_str(), phase.share_pct)).collect();
    assert_eq!(phases, [("bwd", 40.0), ("fwd", 30.0), (REST, 30.0)]);
}

#[test]
fn failures_and_wide_areas_go_down() {
    let kernels = [kernel("fwd/a", 10.0, 1.0, 1e6, 1.0), kernel("fwd/b", 10.0, 1.0, 1e6, 1.0)];
    let area = |glob: &str, file: &str| Area { kernels: vec![glob.into()], files: vec![file.into()] };
    let areas: BTreeMap<String, Area> = [("a".to_owned(), area("a", "a/*")), ("b".to_owned(), area("b", "b/*"))].into();
    let runs = [run(&kernels, Some(20.0))];
    let first = |past: &[PastAttempts], files: &[String]| {
        let peaks = Some(PEAKS);
        let report = rank(&Basis { runs: &runs, peaks, past, areas: &areas, files, resolvable_pct: None }).unwrap();
        report.ranked[0].share.name.clone()
    };
    let files = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(first(&[], &files(&["a/1", "b/1", "b/2"])), "fwd/a");
    assert_eq!(first(&[], &files(&["a/1", "a/2", "b/1"])), "fwd/b");
    let failed = |area: &str| [PastAttempts { area: area.into(), kind: None, attempts: 2, accepted: 0 }];
    assert_eq!(first(&failed("a"), &files(&["a/1", "b/1"])), "fwd/b");
    assert_eq!(first(&failed("b"), &files(&["a/1", "b/1"])), "fwd/a");
}

#[test]
fn the_report_has_its_schema_and_flat_rows() {
    let runs = vec![run(&[kernel("fwd/a", 1.0, 1.0, 1e5, 8.0)], Some(2.0)); 2];
    let json = serde_json::to_value(ranked(&runs, 0.0)).unwrap();
    assert_eq!(json["schema"], "alpha.loop.next/1");
    let names: Vec<&serde_json::Value> = json["ranked"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert!(names.contains(&&"fwd/a".into()) && names.contains(&&REST.into()), "{names:?}");
    assert_eq!(json["ranked"][0]["share_interval_pct"], serde_json::json!([50.0, 50.0]));
}

/// Tokens of a step, width, layers, vocabulary, context.
type Shape = (f64, f64, f64, f64, f64);

/// A step of a GPT as it would be on a machine with [`PEAKS`]: operations and bytes follow from the
/// shape, and each kernel runs somewhere between half and 85 % of the roofline.
fn plausible_profile((tokens, dim, layers, vocab, block): Shape, random: &mut fastrand::Rng) -> Vec<Kernel> {
    let matrices = 12.0 * dim * dim * layers;
    let parameters = matrices + vocab * dim;
    let activations = 4.0 * layers * tokens * dim;
    let matrix = (2.0 * tokens * matrices, 18.0 * activations + 4.0 * matrices);
    let attention = (2.0 * tokens * block * dim * layers, 4.0 * activations);
    let head = (2.0 * tokens * vocab * dim, 8.0 * vocab * dim);
    let work = [
        ("fwd/embedding", (0.0, 12.0 * tokens * dim), 1.0),
        ("fwd/layer_norm", (4.0 * activations, 4.0 * activations), 2.0 * layers + 1.0),
        ("fwd/linear", matrix, 4.0 * layers),
        ("fwd/attention", attention, layers),
        ("fwd/cross_entropy", head, 1.0),
        ("bwd/head_bwd", (2.0 * head.0, 2.0 * head.1), 1.0),
        ("bwd/layer_norm_bwd", (6.0 * activations, 6.0 * activations), 2.0 * layers + 1.0),
        ("bwd/linear_bwd_input", matrix, 4.0 * layers),
        ("bwd/linear_bwd_weight", matrix, 4.0 * layers),
        ("bwd/attention_bwd", (2.5 * attention.0, 2.0 * attention.1), layers),
        ("bwd/embedding_bwd", (0.0, 16.0 * tokens * dim), 1.0),
        ("gradnorm/grad_norm", (2.0 * parameters, 4.0 * parameters), 1.0),
        ("optim/adamw", (14.0 * parameters, 28.0 * parameters), 1.0),
    ];
    work.map(|(label, (flops, bytes), calls)| {
        let floor_ms = (flops / PEAKS.gflops).max(bytes / PEAKS.gb_s) / 1e6;
        kernel(label, floor_ms / (0.5 + 0.35 * random.f64()), flops, bytes, calls)
    })
    .to_vec()
}

/// Three processes, each at its own pace, each kernel with noise of its own.
fn traced(profile: &[Kernel], random: &mut fastrand::Rng) -> Vec<TracedRun> {
    (0..3)
        .map(|_| {
            let pace = 1.0 + 0.2 * random.f64();
            let mut kernels = profile.to_vec();
            for kernel in &mut kernels {
                kernel.time_ms *= pace * (1.0 + 0.05 * random.f64());
            }
            let sum: f64 = kernels.iter().map(|kernel| kernel.time_ms).sum();
            run(&kernels, Some(1.01 * sum))
        })
        .collect()
}

/// Makes six kernels of a profile 2 to 3 times as slow, one at a time, among those where that costs
/// the step 3 % or more; counts how often the slow one is among the first three, and how often the
/// same kernel was there before.
fn plant_six(shape: Shape, random: &mut fastrand::Rng) -> (usize, usize) {
    let profile = plausible_profile(shape, random);
    let is_found = |label: &str, report: &Report| report.ranked.iter().take(3).any(|entry| entry.share.name == label);
    let healthy = ranked(&traced(&profile, random), 1.0);
    let step_ms: f64 = profile.iter().map(|kernel| kernel.time_ms).sum();
    let mut plants: Vec<(usize, f64)> = (0..profile.len())
        .map(|index| (index, 2.0 + random.f64()))
        .filter(|(index, factor)| (factor - 1.0) * profile[*index].time_ms >= 0.03 * step_ms)
        .collect();
    random.shuffle(&mut plants);
    assert!(plants.len() >= 6);
    plants[..6].iter().fold((0, 0), |(found, before), (index, factor)| {
        let mut slow = profile.clone();
        slow[*index].time_ms *= factor;
        let label = slow[*index].label();
        let report = ranked(&traced(&slow, random), 1.0);
        (found + usize::from(is_found(&label, &report)), before + usize::from(is_found(&label, &healthy)))
    })
}

#[test]
fn planted_inefficiencies_are_among_the_first_three() {
    let shapes: [Shape; 4] = [
        (128.0, 128.0, 2.0, 2000.0, 64.0),
        (2048.0, 256.0, 6.0, 2000.0, 256.0),
        (512.0, 768.0, 12.0, 50257.0, 256.0),
        (4096.0, 768.0, 12.0, 50257.0, 1024.0),
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let (mut profiles, mut good, mut found, mut before) = (0, 0, 0, 0);
    for _ in 0..10 {
        for shape in shapes {
            let (hits, hits_before) = plant_six(shape, &mut random);
            profiles += 1;
            good += usize::from(hits >= 5);
            (found, before) = (found + hits, before + hits_before);
        }
    }
    assert!(good * 10 >= profiles * 9, "five of six in {good} of {profiles} profiles, {found} kernels in all");
    assert!(before * 2 < found, "{before} of {found} would have been there anyway");
}

#[test]
fn many_short_calls_are_a_kind_of_their_own() {
    // The same time and work, in one call or in 400.
    let kernels = |calls| [kernel("fwd/many", 4.0, 1e6, 1e6, calls), kernel("fwd/linear", 16.0, 2e9, 1.0, 24.0)];
    let kind = |calls| ranked(&[run(&kernels(calls), Some(20.0))], 0.0).ranked[0].kind;
    assert_eq!((kind(400.0), kind(1.0)), (Kind::Calls, Kind::Passes));
}

proptest! {
    #[test]
    fn any_trace_gives_finite_figures(
        rows in proptest::collection::vec(
            ("[ab]/[cd]", 0.0..1e6f64, proptest::option::of(0.0..1e15f64), proptest::option::of(0.0..1e15f64)), 0..8),
        step_ms in proptest::option::of(0.0..1e6f64),
        count in 1usize..4,
    ) {
        let kernels: Vec<String> = rows
            .iter()
            .map(|(label, time_ms, flops, calls)| {
                let row = serde_json::json!({
                    "phase": &label[..1], "name": &label[2..], "time_ms": time_ms,
                    "flops": flops, "bytes": flops, "calls": calls,
                });
                row.to_string()
            })
            .collect();
        let json = format!(r#"{{"steps":3,"kernels":[{}]}}"#, kernels.join(","));
        let trace = parse_kernels(json.as_bytes()).unwrap();
        let runs = vec![TracedRun { trace, step_ms }; count];
        let areas = BTreeMap::new();
        let basis = Basis { runs: &runs, peaks: Some(PEAKS), past: &[], areas: &areas, files: &[], resolvable_pct: None };
        if let Ok(report) = rank(&basis) {
            let total: f64 = report.phases.iter().map(|phase| phase.share_pct).sum();
            prop_assert!((total - 100.0).abs() < 1e-6, "{total}");
            for entry in &report.ranked {
                let figures = [entry.score, entry.potential_pct, entry.at_most_pct, entry.chance, entry.risk];
                prop_assert!(figures.iter().all(|figure| figure.is_finite() && *figure >= 0.0), "{entry:?}");
                prop_assert!(entry.chance <= 1.0 && entry.share.share_pct <= 100.0 + 1e-9);
                prop_assert!(entry.floor_ms.unwrap_or(0.0) <= entry.share.time_ms);
            }
        }
    }
}

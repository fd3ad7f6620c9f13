//! Whole runs on a GPU, or on a software device instead, compared with the same runs on the processor. Where a machine has
//! neither, the tests say so and pass: `scripts/test.sh` installs a software device.

use std::process::Stdio;

use serde_json::Value;

use crate::{
    outcome::{Done, finish},
    place::{Place, Running},
};

const HELIOS: &str = "--backend=helios";

/// W1 of docs/performance.md, with other data.
const W1: &[&str] = &["--block=64", "--batch=2", "--dim=128", "--heads=4", "--lr=3e-4", "--evalInterval=0"];

/// Whether there is a device; prints a line if there is none.
fn has_device(place: &Place) -> bool {
    let done = place.alpha(&["devices", "--json=true"]).succeeded();
    let found: Value = serde_json::from_str(&done.stdout).unwrap();
    let is_there = !found["gpus"].as_array().unwrap().is_empty();
    #[expect(clippy::print_stdout, reason = "tests say what they skipped")]
    if !is_there {
        println!("SKIPPED helios: no device");
    }
    is_there
}

fn with_device() -> Option<Place> {
    let place = Place::with_text().sharing_its_cache();
    has_device(&place).then_some(place)
}

/// Largest relative difference of two columns.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

/// The values of every step that training decides.
fn trajectory(place: &Place, run: &str) -> Vec<[Value; 6]> {
    let keys = ["step", "loss", "gradNorm", "lr", "clip_coef", "data_hash"];
    place.metrics(run).iter().map(|row| keys.map(|key| row[key].clone())).collect()
}

#[test]
fn a_hundred_steps_are_those_of_the_cpu() {
    let Some(place) = with_device() else { return };
    for (run, backend) in [("gpu", HELIOS), ("cpu", "--backend=cpu")] {
        place.train(run, &[W1, &[backend, "--steps=100"]].concat()).succeeded();
    }
    let [gpu, cpu] = ["gpu", "cpu"].map(|run| place.column(run, "loss"));
    assert!(distance(&gpu[..5], &cpu[..5]) < 1e-6, "{gpu:?} {cpu:?}");
    assert!((gpu[99] - cpu[99]).abs() < 1e-3, "{} {}", gpu[99], cpu[99]);
    assert!(cpu[99] < 0.9 * cpu[0], "nothing was learned");
}

#[test]
fn every_kind_of_model_trains_as_on_the_cpu() {
    let Some(place) = with_device() else { return };
    for (number, flags) in [
        &["--activation=swiglu", "--tie=false", "--bias=false"][..],
        &["--activation=relu", "--dropout=0.2", "--accumSteps=3"],
        &["--activation=silu", "--checkpoint=true", "--dim=36", "--heads=6", "--block=15"],
    ]
    .into_iter()
    .enumerate()
    {
        let [gpu, cpu] = [HELIOS, "--backend=cpu"].map(|backend| {
            let run = format!("{number}{backend}");
            place.train(&run, &[flags, &[backend, "--steps=8"]].concat()).succeeded();
            ["loss", "gradNorm"].map(|column| place.column(&run, column))
        });
        for (gpu, cpu) in gpu.iter().zip(&cpu) {
            assert!(distance(gpu, cpu) < 2e-4, "{flags:?}: {gpu:?} {cpu:?}");
        }
    }
}

/// The ceilings of a step: dispatches, one submission, nothing read back.
#[test]
fn a_step_is_one_submission_of_few_dispatches() {
    let Some(place) = with_device() else { return };
    let dispatches = |layers: &str, accumulation: &str| {
        place
            .train("run", &[W1, &[HELIOS, "--steps=3", "--tokenizer=byte", layers, accumulation]].concat())
            .succeeded();
        assert_eq!(place.column("run", "submissions"), [1.0; 3], "{layers} {accumulation}");
        assert_eq!(place.column("run", "read_backs"), [0.0; 3]);
        let counts = place.column("run", "dispatches");
        assert_eq!(counts, place.column("run", "gpu_ops_count"));
        assert_eq!(counts, [counts[0]; 3]);
        counts[0]
    };
    let two = dispatches("--layers=2", "--accumSteps=1");
    let three = dispatches("--layers=3", "--accumSteps=1");
    assert!(two <= 60.0, "{two} dispatches");
    assert!(three - two <= 24.0, "{} dispatches a layer", three - two);
    let accumulated = dispatches("--layers=2", "--accumSteps=4");
    assert!(accumulated < 4.0 * two, "{accumulated}");
}

#[test]
fn the_same_run_has_the_same_bits() {
    let Some(place) = with_device() else { return };
    let base = &[HELIOS, "--dropout=0.1", "--accumSteps=2", "--steps=12"][..];
    place.train("base", base).succeeded();
    let (expected, weights) = (trajectory(&place, "base"), place.weights("base", 12));
    for flags in [
        &[][..],
        &["--trace"],
        &["--evalInterval=5", "--sampleInterval=4", "--postSamples"],
        // Not enqueued ahead: whether an update is skipped must be known.
        &["--onNonfinite=skip"],
    ] {
        place.train("other", &[base, flags].concat()).succeeded();
        assert_eq!(trajectory(&place, "other"), expected, "with {flags:?}");
        assert!(place.weights("other", 12) == weights, "weights with {flags:?}");
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_a_whole_one() {
    let Some(place) = with_device() else { return };
    place.train("whole", &[HELIOS, "--steps=12", "--evalInterval=6"]).succeeded();
    place.train("parts", &[HELIOS, "--steps=12", "--evalInterval=6"]).succeeded();
    let cut = place.path("parts").join("checkpoint-12");
    std::fs::remove_dir_all(cut).unwrap();
    let done = place.resume("parts", &[]).succeeded();
    assert!(done.stderr.contains("resuming from"), "{}", done.stderr);
    assert_eq!(trajectory(&place, "parts"), trajectory(&place, "whole"));
    assert!(place.weights("parts", 12) == place.weights("whole", 12));
}

/// A signal comes while steps are enqueued behind each other: no step is lost, and none counts twice.
#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let Some(place) = with_device() else { return };
    let flags = [HELIOS, "--steps=60", "--evalInterval=0", "--logEvery=1"];
    place.train("whole", &flags).succeeded();
    let mut running = Running::start(place.train_command("parts", &flags).stderr(Stdio::piped()));
    running.read_lines(5);
    let done = running.end_by("INT");
    assert!(done.code == Some(130) || done.code == Some(0), "{done:?}");
    place.resume("parts", &[]).succeeded();
    assert_eq!(trajectory(&place, "parts"), trajectory(&place, "whole"));
    assert!(place.weights("parts", 60) == place.weights("whole", 60));
}

#[test]
fn sample_eval_and_check_agree_with_the_cpu() {
    let Some(place) = with_device() else { return };
    place.train("run", &["--steps=60", "--evalInterval=0"]).succeeded();
    let run = |command: &[&str], backend: &str| -> Value {
        let done = place.alpha(&[command, &["--checkpoint=run/checkpoint-60", backend, "--json"]].concat()).succeeded();
        serde_json::from_str(&done.stdout).unwrap()
    };
    let sample = ["sample", "--prompt=the cat", "--steps=40", "--temp=0"];
    assert_eq!(run(&sample, HELIOS)["tokens"], run(&sample, "--backend=cpu")["tokens"]);
    let eval = ["eval", "--data=text.txt", "--maxTokens=500"];
    let [gpu, cpu] = [HELIOS, "--backend=cpu"].map(|backend| run(&eval, backend)["loss"].as_f64().unwrap());
    assert!((gpu - cpu).abs() < 1e-5, "{gpu} {cpu}");
    let check = ["check", HELIOS, "--layers=2", "--dim=32", "--heads=4", "--block=16"];
    let done = place.alpha(&check).succeeded();
    assert!(done.stderr.contains("gradients agree"), "{}", done.stderr);
}

#[test]
fn a_step_that_is_not_finite_ends_the_run_as_on_the_cpu() {
    let Some(place) = with_device() else { return };
    // Steps are enqueued behind the bad one; they must neither count nor change what is saved.
    let flags = ["--lr=1e30", "--steps=40", "--gradClip=0", "--warmupIters=-1", "--evalInterval=0"];
    let outcome = |run: &str, backend: &str| -> (Done, usize) {
        let done = place.train(run, &[&flags[..], &[backend]].concat());
        done.failed(1, &["is not finite", "nonfinite-"]);
        (done, place.metrics(run).len())
    };
    let (gpu, gpu_rows) = outcome("gpu", HELIOS);
    let (_, cpu_rows) = outcome("cpu", "--backend=cpu");
    assert_eq!(gpu_rows, cpu_rows, "{}", gpu.stderr);
    assert_eq!(place.checkpoint_steps("gpu"), place.checkpoint_steps("cpu"));
    let skipped = place.train("skip", &[&flags[..], &[HELIOS, "--onNonfinite=skip"]].concat()).succeeded();
    assert!(skipped.stderr.contains("updates left out"), "{}", skipped.stderr);
}

#[test]
fn records_and_first_lines_name_the_device() {
    let Some(place) = with_device() else { return };
    let done = place.train("run", &[HELIOS, "--steps=2", "--trace"]).succeeded();
    let devices: Value = serde_json::from_str(&place.alpha(&["devices", "--json=true"]).succeeded().stdout).unwrap();
    let first = &devices["gpus"][0];
    let name = first["name"].as_str().unwrap();
    assert!(done.stderr.contains(&format!("backend: helios on `{name}")), "{}", done.stderr);
    if first["kind"] == "software" {
        assert!(done.stderr.contains("A SOFTWARE DEVICE, NOT A GPU"), "{}", done.stderr);
    }
    let rows = place.metrics("run");
    assert!(rows.iter().all(|row| row["device"].as_str().unwrap().starts_with(name)));
    // Phases partition the step on a device too.
    for row in &rows {
        let part = |name: &str| row[format!("timing_{name}_ms")].as_f64().unwrap();
        let sum: f64 = ["data", "fwd", "bwd", "grad_norm", "grad_clip", "optim", "flush"].map(part).iter().sum();
        let whole = row["ms_per_iter"].as_f64().unwrap();
        assert!((sum - whole).abs() <= 0.03 * whole, "{sum} {whole}");
        assert!(part("fwd") > 0.0 && part("bwd") > 0.0 && part("optim") > 0.0);
    }
    let trace = place.json("run/trace.json");
    let tracks: Vec<&str> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(tracks, ["host", "device"]);
}

#[test]
fn a_device_that_is_not_there_is_said_before_anything_else() {
    let place = Place::new();
    let none = finish(
        place
            .command(env!("CARGO_BIN_EXE_alpha"))
            .args(["train", "--data=nowhere.txt", HELIOS])
            .env("VK_DRIVER_FILES", "/nowhere")
            .env("VK_ICD_FILENAMES", "/nowhere"),
    );
    none.refused(3, &["no GPU found", "--backend=cpu"]);
    if has_device(&place) {
        place
            .alpha(&["train", "--data=nowhere.txt", HELIOS, "--device=99"])
            .refused(3, &["no device `99`", "alpha devices"]);
        place.alpha(&["eval", "--data=x", "--checkpoint=c", "--device=no such"]).refused(3, &["no device `no such`"]);
    }
}

#[test]
fn more_memory_than_there_is_names_a_batch_that_fits() {
    let Some(place) = with_device() else { return };
    let done = place.train("run", &[HELIOS, "--dim=2048", "--heads=32", "--layers=40", "--batch=1024", "--block=256"]);
    done.failed(1, &["of memory", "are free"]);
    assert!(!place.path("run").exists(), "the run folder was made");
}

/// Training in 16 bits learns the same: losses differ from those of f32 by no more than the format's rounding explains.
#[test]
fn sixteen_bits_train_as_thirty_two_do() {
    let Some(place) = with_device() else { return };
    let flags = ["--steps=40", "--evalInterval=20", "--accumSteps=2", "--activation=swiglu", "--dropout=0.1"];
    place.train("f32", &[&flags[..], &["--backend=cpu"]].concat()).succeeded();
    let expected = place.column("f32", "loss");
    // The effect of rounding grows over the steps.
    for (dtype, at_first, at_last) in [("f16", 1e-4, 1e-2), ("bf16", 1e-3, 4e-2)] {
        let dtype_flag = format!("--dtype={dtype}");
        place.train(dtype, &[&flags[..], &[HELIOS, &dtype_flag]].concat()).succeeded();
        let found = place.column(dtype, "loss");
        assert!(distance(&found[..10], &expected[..10]) < at_first, "{dtype}: {found:?} {expected:?}");
        assert!(distance(&found, &expected) < at_last, "{dtype}: {found:?} {expected:?}");
        assert!(found != expected, "{dtype} rounded nothing");
        let val_losses: Vec<f64> = place.metrics(dtype).iter().filter_map(|row| row["valLoss"].as_f64()).collect();
        assert_eq!(val_losses.len(), 2, "{dtype}");
        assert_eq!(place.metrics(dtype)[0].get("loss_scale").is_some(), dtype == "f16");
    }
}

/// Weights so large that gradients overflow f16 at the first step: its update is left out, the scale is halved until
/// they fit, and a resumed run does the same.
#[test]
fn gradients_that_overflow_f16_halve_the_loss_scale() {
    let Some(place) = with_device() else { return };
    place.train("large", &["--steps=2", "--lr=30", "--warmupIters=-1", "--evalInterval=0"]).succeeded();
    let flags = [HELIOS, "--dtype=f16", "--init=large/checkpoint-2", "--steps=24", "--lr=1e-3", "--evalInterval=12"];
    let done = place.train("whole", &flags).succeeded();
    assert!(done.stderr.contains("step 1: a gradient overflowed f16 at loss scale 65536"), "{}", done.stderr);
    assert!(done.stderr.contains("overflowed f16\n"), "{}", done.stderr);
    let rows = place.metrics("whole");
    assert_eq!(rows.len(), 24);
    let mut scale = 65536.0;
    for row in &rows {
        assert_eq!(row["loss_scale"], scale, "{row}");
        if row["skipped"] == "overflow" {
            assert!(row["gradNorm"].is_null() && row["loss"].is_number(), "{row}");
            scale /= 2.0;
        }
    }
    assert!(rows[23]["skipped"].is_null(), "no scale fits: {}", rows[23]);
    place.train("parts", &flags).succeeded();
    std::fs::remove_dir_all(place.path("parts").join("checkpoint-24")).unwrap();
    place.resume("parts", &[]).succeeded();
    assert_eq!(trajectory(&place, "parts"), trajectory(&place, "whole"));
    assert!(place.weights("parts", 24) == place.weights("whole", 24));
    // The number format belongs to the run, under either name.
    place.train("f32", &[HELIOS, "--steps=2", "--evalInterval=2"]).succeeded();
    for flag in ["--fp16=true", "--dtype=f16"] {
        place.resume("f32", &["--steps=4", flag]).refused(2, &["`--dtype=f16`", "has f32"]);
    }
}

#[test]
fn sixteen_bits_are_refused_where_they_cannot_be() {
    let place = Place::with_text();
    place.train("run", &["--dtype=f16"]).refused(2, &["`cpu` has neither bf16 nor f16 yet", "--dtype=f32"]);
    if has_device(&place) {
        place.train("run", &[HELIOS, "--dtype=bf16", "--dim=36", "--heads=6"]).refused(2, &["heads have 6 columns"]);
        place.train("run", &[HELIOS, "--dtype=f16", "--ffnDim=50"]).refused(2, &["--ffnDim=50", "multiple of 4"]);
    }
    assert!(!place.path("run").exists());
}

/// The chosen kernels are cached and printed; a kernel that the user names is used, or refused.
#[test]
fn kernels_are_chosen_once_and_can_be_pinned() {
    let Some(place) = with_device() else { return };
    place.train("chosen", &[HELIOS, "--steps=3"]).succeeded();
    let devices: Value = serde_json::from_str(&place.alpha(&["devices", "--json=true"]).succeeded().stdout).unwrap();
    let first = &devices["gpus"][0];
    assert!(first["gflops"].as_f64().unwrap() > 0.0 && first["gb_s"].as_f64().unwrap() > 0.0, "{first}");
    assert_eq!(first["matmul"].as_array().unwrap().len(), 3, "{first}");
    let text = place.alpha(&["devices"]).succeeded().stdout;
    assert!(text.contains(&format!("products {}", first["matmul"][0].as_str().unwrap())), "{text}");
    // In f32 the choice changes no bit.
    place.train("pinned", &[HELIOS, "--steps=3", "--matmul=staged:4x1:16x16:16"]).succeeded();
    assert_eq!(trajectory(&place, "pinned"), trajectory(&place, "chosen"));
    place.train("run", &[HELIOS, "--matmul=fastest"]).failed(2, &["`fastest`", "direct:8x4:8x1"]);
    place
        .train("run", &[HELIOS, "--matmul=staged:8x8:32x32:16"])
        .refused(3, &["staged:8x8:32x32:16", "bytes of workgroup memory"]);
    place.train("run", &[HELIOS, "--matmul=coop:16:4x4:2x2:32"]).refused(3, &["cooperative matrices"]);
    place.train("run", &["--matmul=direct:8x4:8x1"]).refused(2, &["names a kernel of GPUs"]);
}

/// A device's cache entry can be torn, or impossible to write: the run is the same, and reports the latter.
#[test]
fn a_cache_that_is_broken_or_cannot_be_written_changes_nothing() {
    let Some(shared) = with_device() else { return };
    shared.train("run", &[HELIOS, "--steps=3"]).succeeded();
    let expected = trajectory(&shared, "run");
    let own = Place::with_text();
    own.train("run", &[HELIOS, "--steps=3"]).succeeded();
    let mut broken = 0;
    for entry in std::fs::read_dir(own.path("cache/alpha")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "entry") {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x20;
            std::fs::write(&path, bytes).unwrap();
            broken += 1;
        }
    }
    assert!(broken >= 2, "only {broken} entries are kept");
    own.train("run", &[HELIOS, "--steps=3"]).succeeded();
    assert_eq!(trajectory(&own, "run"), expected);
    own.write("file", "");
    let mut command = own.train_command("run", &[HELIOS, "--steps=3"]);
    let done = finish(command.env("XDG_CACHE_HOME", own.path("file"))).succeeded();
    assert!(done.stderr.contains("warning: cannot write the cache"), "{}", done.stderr);
    assert_eq!(trajectory(&own, "run"), expected);
}

//! Trade-offs: faster on the workload, worse at something that is guarded. Each is refused by the guard's name.

use crate::{changes::FASTER, toy::Toy};

const LARGE_BATCH: &str = r#"
[guards.large_batch]
kind = "workload"
margin_pct = 25

[guards.large_batch.workload]
command = "./out/trainer --steps={steps} --seed={seed} --batch=6"
steps = 20
tokens_per_step = 48
inputs = ["data/text.txt"]
turn_timeout = "8s"
"#;
const FIRST_STEP: &str = "
[guards.first_step]
kind = \"first_step\"
margin_pct = 30
";
const DECODE: &str = r#"
[guards.decode]
kind = "command"
margin_pct = 100
command = "./out/trainer --sample={checkpoint} --tokens=64"
"#;
const EVALUATION: &str = r#"
[guards.evaluation]
kind = "command"
margin_pct = 100
command = "./out/trainer --eval={checkpoint}"
inputs = ["data/text.txt"]
"#;
const BUILD: &str = "
[guards.build]
kind = \"build_time\"
margin_pct = 500
";

/// A toy with these guards beside that of memory, and a true gain as the candidate.
fn guarded(guards: &[&str]) -> Toy {
    let toy = Toy::new();
    toy.write("loop.toml", &[&[toy.read("loop.toml").as_str()], guards].concat().concat());
    toy.commit("more guards");
    toy.begin();
    toy.change(FASTER);
    toy
}

#[track_caller]
fn refused_by(guard: &str, definition: &str, trade: impl FnOnce(&Toy)) {
    let toy = guarded(&[definition]);
    trade(&toy);
    let compared = toy.json(&["compare"]);
    compared.is_refused_for(&[guard]);
    let guards = compared.object["guards"].as_array().unwrap();
    let broken: Vec<_> = guards.iter().filter(|guard| guard["holds"] != true).map(|guard| &guard["name"]).collect();
    assert_eq!(broken, [guard], "{:#}", compared.object);
    toy.alpha(&["commit", "-m", "a trade-off"]).failed(4, &[guard]);
}

#[test]
fn memory_for_speed() {
    refused_by("memory", "", |toy| toy.edit_start(&["ballast = bytearray(b\"x\" * 16_000_000)"]));
}

#[test]
fn one_workload_for_another() {
    refused_by("large_batch", LARGE_BATCH, |toy| {
        toy.edit_start(&["if int(flags.get(\"batch\", BATCH)) != BATCH:", "    WORK[\"head\"] = 600_000"]);
    });
}

/// Long for a start, short beside what the steps save: whole runs are still faster by more than half of that.
#[test]
fn the_start_for_the_steps() {
    refused_by("first_step", FIRST_STEP, |toy| {
        toy.restore();
        toy.edit("\"attention\": 40_000", "\"attention\": 400_000");
        toy.commit("a slower baseline");
        toy.alpha(&["drop"]).succeeded();
        toy.begin();
        toy.edit("\"attention\": 400_000", "\"attention\": 0");
        toy.edit_start(&["spin(4_000_000)"]);
    });
}

#[test]
fn decoding_for_training() {
    refused_by("decode", DECODE, |toy| toy.edit("def sample(flags):\n", "def sample(flags):\n    spin(10_000_000)\n"));
}

#[test]
fn evaluation_for_training() {
    refused_by("evaluation", EVALUATION, |toy| {
        toy.edit("    tokens = read_tokens()[1]\n", "    spin(10_000_000)\n    tokens = read_tokens()[1]\n");
    });
}

#[test]
fn the_build_for_the_run() {
    refused_by("build", BUILD, |toy| {
        toy.edit_file("build.sh", "mkdir -p out\n", "mkdir -p out\npython3 -c 'for _ in range(60_000_000): pass'\n");
    });
}

#[test]
fn a_fair_gain_passes_all_of_them() {
    let toy = guarded(&[LARGE_BATCH, FIRST_STEP, DECODE, EVALUATION, BUILD]);
    let compared = toy.json(&["compare"]).says("FASTER", 0);
    let guards = compared.object["guards"].as_array().unwrap();
    assert!(guards.len() == 6 && guards.iter().all(|guard| guard["holds"] == true), "{guards:#?}");
}

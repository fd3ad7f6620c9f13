//! Messages and output of all commands but `train`.

use crate::{alpha, alpha_in, assert_transcript, folder};

#[test]
fn unknown_commands() {
    let folder = folder();
    assert_transcript!(folder, &[&["trian"], &["frobnicate"], &["--versoin"], &["-x"]]);
}

#[test]
fn messages_of_sample_eval_and_check() {
    let folder = folder();
    assert_transcript!(
        folder,
        &[
            &["sample"],
            &["sample", "--checkpoint"],
            &["sample", "--checkpoint=c", "--temp=-1"],
            &["sample", "--checkpoint=c", "--temp", "nan"],
            &["sample", "--checkpoint=c", "--temp=1e-300"],
            &["sample", "--checkpoint=c", "--topp=0"],
            &["sample", "--checkpoint=c", "--topp=1.5"],
            &["sample", "--checkpoint=c", "--topk=-1"],
            &["sample", "--checkpoint=c", "--steps=0"],
            &["sample", "--checkpoint=c", "--tempo=1"],
            &["sample", "--checkpoint=c", "--backend=helios"],
            &["eval", "--checkpoint=c"],
            &["eval", "--checkpoint=c", "--data="],
            &["eval", "--checkpoint=c", "--data=d", "--split=test"],
            &["eval", "--checkpoint=c", "--data=d", "--maxTokens=0"],
            &["check", "--dim=10", "--heads=3"],
            &["check", "--dropout=1"],
        ]
    );
}

#[test]
fn messages_of_tokenizer_datagen_and_completions() {
    let folder = folder();
    std::fs::write(folder.path().join("x"), "a text for a tokenizer").unwrap();
    assert_transcript!(
        folder,
        &[
            &["tokenizer", "biuld"],
            &["tokenizer", "build", "--out=t.json"],
            &["tokenizer", "build", "--input=", "--out=t.json"],
            &["tokenizer", "build", "--input=x", "--out=t.json", "--type=bpe-5k"],
            &["tokenizer", "build", "--input=x", "--out=t.json", "--type=char", "--vocabSize=300"],
            &["tokenizer", "build", "--input=x", "--out=t.json", "--vocab-size", "100"],
            &["datagen", "xyz"],
            &["datagen", "abc", "--seed=-1"],
            &["completions"],
            &["completions", "tcsh"],
        ]
    );
}

#[test]
fn devices_describe_the_processor() {
    let (code, stdout, stderr) = alpha(&["devices"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for word in ["cpu ", "cores ", "features ", "peak ", "GFLOP/s", "GB/s"] {
        assert!(stdout.contains(word), "{stdout}");
    }
    let (code, stdout, _) = alpha(&["devices", "--json"]);
    let devices: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, devices["gpus"].as_array().unwrap().len()), (0, 0));
    assert_eq!(devices["schema"], "alpha.devices/1");
    let cpu = &devices["cpu"];
    let (cores, peaks) = (cpu["cores"].as_u64().unwrap(), cpu["peaks"].as_array().unwrap());
    assert!(cpu["model"].is_string() && cpu["features"].is_array(), "{cpu}");
    // One thread, and all of them, whose peaks are those of the machine.
    let threads: Vec<u64> = peaks.iter().map(|peak| peak["threads"].as_u64().unwrap()).collect();
    assert_eq!(threads, if cores == 1 { vec![1] } else { vec![1, cores] });
    let all = peaks.last().unwrap();
    assert_eq!((&devices["gflops"], &devices["gb_s"]), (&all["fma_gflops"], &all["triad_gb_s"]));
    assert!(devices["gflops"].as_f64().unwrap() > 0.1 && devices["gb_s"].as_f64().unwrap() > 0.1, "{devices}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_alpha"))
        .args(["completions", "bash"])
        .current_dir(folder().path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn messages_have_no_colour_where_nobody_looks() {
    let (_, _, stderr) = alpha_in(folder().path(), &["train"]);
    assert!(!stderr.contains('\x1b'), "{stderr}");
}

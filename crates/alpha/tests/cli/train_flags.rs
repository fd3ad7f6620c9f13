//! `alpha train`: every message about flags, and its exit code. No test here trains.

use crate::{alpha, assert_transcript, folder};

#[test]
fn unknown_flags_and_wrong_types() {
    let folder = folder();
    assert_transcript!(
        folder,
        &[
            &["train", "--stepz=5"],
            &["train", "--accum_steps=5"],
            &["train", "--frobnicate"],
            &["train", "data.txt"],
            &["train", "--data=x", "--steps"],
            &["train", "--data=x", "--steps=five"],
            &["train", "--data=x", "--steps=1.5"],
            &["train", "--data=x", "--steps="],
            &["train", "--data=x", "--batch=99999999999999999999"],
            &["train", "--data=x", "--lr=fast"],
            &["train", "--data=x", "--tie=maybe"],
            &["train", "--data=x", "--trace", "yes"],
            &["train", "--data=x", "--warmupIters=1e3"],
            &["train", "--data=x", "--schedule=cosin"],
            &["train", "--data=x", "--activation=tanh"],
            &["train", "--data=x", "--optim=lion"],
            &["train", "--data=x", "--backend=cuda"],
            &["train", "--data=x", "--dtype=f64"],
            &["train", "--data=x", "--tokenDtype=u8"],
            &["train", "--data=x", "--onNonfinite=ignore"],
            &["train", "--data=x", "--domain=abd"],
            &["train", "--data=x", "--domain=poems"],
        ]
    );
}

#[test]
fn impossible_values_and_combinations() {
    let folder = folder();
    assert_transcript!(
        folder,
        &[
            &["train"],
            &["train", "--data="],
            &["train", "--data=x", "--steps=0"],
            &["train", "--data=x", "--iters", "-1"],
            &["train", "--data=x", "--batch=-4"],
            &["train", "--data=x", "--accum-steps=0"],
            &["train", "--data=x", "--block", "0"],
            &["train", "--data=x", "--layers=0"],
            &["train", "--data=x", "--dim=-128"],
            &["train", "--data=x", "--heads=0"],
            &["train", "--data=x", "--ffnDim=0"],
            &["train", "--data=x", "--vocabSize=0"],
            &["train", "--data=x", "--threads=0"],
            &["train", "--data=x", "--evalIters=0"],
            &["train", "--data=x", "--logEvery=0"],
            &["train", "--data=x", "--keepCheckpoints=0"],
            &["train", "--data=x", "--seed=-1"],
            &["train", "--data=x", "--runDir="],
            &["train", "--data=x", "--dim=100", "--heads=8"],
            &["train", "--data=x", "--dim=4", "--heads=8"],
            &["train", "--data=x", "--lr=nan"],
            &["train", "--data=x", "--lr=inf"],
            &["train", "--data=x", "--lr=-1"],
            &["train", "--data=x", "--lr", "-1e-3"],
            &["train", "--data=x", "--lr=1e-4", "--lrMin=1e-3"],
            &["train", "--data=x", "--lrMin=-1e-5"],
            &["train", "--data=x", "--dropout=1"],
            &["train", "--data=x", "--dropout", "-0.1"],
            &["train", "--data=x", "--beta1=1"],
            &["train", "--data=x", "--beta2=-0.5"],
            &["train", "--data=x", "--eps=0"],
            &["train", "--data=x", "--weightDecay=-0.1"],
            &["train", "--data=x", "--gradClip=-1"],
            &["train", "--data=x", "--spikeThreshold=nan"],
            &["train", "--data=x", "--gradClip=1e-300"],
            &["train", "--data=x", "--lr=1e-46"],
            &["train", "--data=x", "--beta2=0.99999999"],
            &["train", "--data=x", "--dropout=0.99999999"],
            &["train", "--data=x", "--batch=100000", "--block=100000"],
            &["train", "--data=x", "--batch=9000000000000000000", "--block=4"],
            &["train", "--data=x", "--dim=1000000", "--heads=1"],
            &["train", "--data=x", "--vocabSize=100000000"],
            &["train", "--data=x", "--tokenizer=bpe-5k"],
            &["train", "--data=x", "--resume=auto"],
            &["train", "--data=x", "--resume="],
            &["train", "--data=x", "--resume=nowhere/checkpoint-5"],
            &["train", "--data=x", "--device=0", "--backend=cpu"],
        ]
    );
}

#[test]
fn what_is_not_there() {
    let folder = folder();
    assert_transcript!(
        folder,
        &[
            &["train", "--data=x", "--remote=true"],
            &["train", "--data=x", "--remote"],
            &["train", "--data=x", "--dtype=bf16"],
            &["train", "--data=x", "--dtype=f16"],
            &["train", "--data=x", "--fp16=true"],
            &["train", "--data=x", "--backend=helios"],
            &["train", "--data=x", "--device=1"],
        ]
    );
}

#[test]
fn flags_that_are_gone() {
    let folder = folder();
    assert_transcript!(
        folder,
        &[
            &["train", "--data=x", "--syncEvery=1"],
            &["train", "--data=x", "--sync-every", "1"],
            &["train", "--data=x", "--gcEvery=10"],
            &["train", "--data=x", "--gpuProfile"],
            &["train", "--data=x", "--minGpuSize=4096"],
            &["train", "--data=x", "--noFallback=true"],
            &["train", "--data=x", "--log=run.log"],
            &["train", "--data=x", "--embGradScale=true"],
            &["train", "--data=x", "--symbio=true"],
        ]
    );
}

/// The command that existing scripts run, on a machine without a GPU: exit code 3, before the data is looked for.
#[test]
fn the_original_command_needs_a_device() {
    let (code, stdout, stderr) = alpha(&[
        "train",
        "--data=data/abc-small.txt",
        "--backend=helios",
        "--steps=5",
        "--batch=2",
        "--block=64",
        "--layers=2",
        "--dim=128",
        "--heads=4",
        "--accumSteps=1",
        "--evalInterval=5",
        "--evalIters=1",
        "--sampleInterval=0",
        "--postSamples=false",
        "--remote=false",
        "--trace=true",
        "--runDir=runs/feedback-loop",
    ]);
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert!(stderr.starts_with("error: no GPU found") && stderr.contains("hint: "), "{stderr}");
}

//! Any bytes as what trainers and other tools write: `metrics.jsonl`, ledger records.

#![no_main]

use std::{cell::OnceCell, fs};

use feedback::{ledger::Ledger, parity::trajectory::Trajectory};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder for files")).path();
        let metrics = folder.join("metrics.jsonl");
        fs::write(&metrics, bytes).expect("the folder takes files");
        let _ = Trajectory::read(&metrics, &["flops"]);
        let ledger = folder.join("ledger");
        fs::create_dir_all(&ledger).expect("the folder takes folders");
        fs::write(ledger.join("0000000000000001.json"), bytes).expect("the folder takes files");
        let _ = Ledger::open(&ledger);
    });
});

//! Any bytes as the files of a checkpoint: safetensors, its index, `config.json`.

#![no_main]

use std::{cell::OnceCell, fs};

use alpha_train::checkpoint::{config_json, safetensors::Header, training_state, weights};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let _ = Header::read(&mut &bytes[..], bytes.len() as u64);
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder for files")).path();
        let names = [config_json::FILE_NAME, training_state::FILE_NAME, weights::FILE_NAME, weights::INDEX_NAME];
        for name in names {
            let _ = fs::remove_file(folder.join(name)); // of the input before
        }
        fs::write(folder.join(names[usize::from(choice % 4)]), bytes).expect("the folder takes files");
        let _ = config_json::read_config(folder);
        let _ = training_state::read_training_state(folder);
    });
});

//! Any bytes as data, under several names: text, jsonl, shards, numpy arrays, compressed files.

#![no_main]

use std::{cell::OnceCell, fs};

use alpha_data::{Cache, DataOptions, Dataset, Kind, TokenDtype, Work};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let name = ["x.txt", "x.jsonl", "x.bin", "x.npy", "x.txt.gz", "x"][usize::from(choice % 6)];
    let token_dtype = [None, Some(TokenDtype::U16), Some(TokenDtype::U32)][usize::from(choice / 6 % 3)];
    let is_text = token_dtype.is_none();
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder for files"));
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("the folder takes files");
        let options = DataOptions {
            data: path.to_str().expect("a plain name").to_owned(),
            token_dtype,
            tokenizer: is_text.then_some(if choice / 18 % 2 == 0 { Kind::Byte } else { Kind::Word }),
            block: 2,
            packed: choice / 36 % 2 == 0,
            vocab_size: (!is_text).then_some(70_000),
            ..DataOptions::default()
        };
        let work = Work { cache: &Cache::none(), threads: 1, ..Work::default() };
        if let Ok(data) = Dataset::open(&options, &work) {
            let mut tokens = vec![0; data.train.len().min(1000) as usize];
            let _ = data.train.read(0, &mut tokens);
        }
    });
});

//! Any bytes as a `tokenizer.json`; if it loads, it encodes and decodes.

#![no_main]

use std::{cell::OnceCell, fs};

use alpha_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| {
        let path = folder.get_or_init(|| tempfile::tempdir().expect("a folder for files")).path().join("tokenizer.json");
        fs::write(&path, bytes).expect("the folder takes files");
        let Ok(tokenizer) = Tokenizer::load(&path) else { return };
        for text in ["", "the river  ran\r\n\n12 é 春 <s>\u{0}", " <|endoftext|> "] {
            if let Ok(ids) = tokenizer.encode(text) {
                let _ = tokenizer.decode(&ids);
                let _ = tokenizer.text_bytes(&[], &ids);
            }
        }
        let _ = tokenizer.decode_after(&[0, 1], &[2, 3, u32::MAX]);
    });
});

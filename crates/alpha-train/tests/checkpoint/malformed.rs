//! Malformed safetensors files: each is an error, none a panic, and the files that are
//! accepted are those that the official reader accepts.

use std::fs;

use alpha_nn::ParamLayout;
use alpha_train::checkpoint::{load_params, read_training_state, safetensors::Header};
use miette::Diagnostic as _;
use proptest::prelude::*;
use safetensors::SafeTensors;

use crate::{filled_backend, memory_backend::MemoryBackend, save, small_config, state};

fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.extend(data);
    bytes
}

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let message = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap_err().to_string();
    assert!(message.contains(expected), "`{expected}` is not in: {message}");
    assert!(SafeTensors::deserialize(bytes).is_err(), "the official reader accepts it");
}

#[track_caller]
fn check_accepted(bytes: &[u8]) {
    Header::read(&mut &bytes[..], bytes.len() as u64).unwrap();
    SafeTensors::deserialize(bytes).unwrap();
}

#[test]
fn headers_of_the_wrong_length() {
    check_refused(b"", "expected at least 8");
    check_refused(b"1234567", "expected at least 8");
    check_refused(&0u64.to_le_bytes(), "begin with `{`");
    check_refused(&u64::MAX.to_le_bytes(), "claims 18446744073709551615 bytes, expected at most 0");
    check_refused(&[&3u64.to_le_bytes()[..], b"{}"].concat(), "claims 3 bytes, expected at most 2");
    check_refused(&[&1u64.to_le_bytes()[..], b"{}"].concat(), "not what safetensors has");
}

#[test]
fn headers_that_are_not_json() {
    check_refused(&[&2u64.to_le_bytes()[..], b"{\xff"].concat(), "not what safetensors has");
    check_refused(&with_header("{\"a", b""), "not what safetensors has");
    check_refused(&with_header("[]", b""), "begin with `{`");
    check_refused(&with_header("{\"a\": 1}", b""), "not what safetensors has");
    check_refused(&with_header(&format!("{{\"a\":{}", "[".repeat(10_000)), b""), "not what safetensors has");
    check_refused(&with_header(r#"{"__metadata__": {"a": 1}}"#, b""), "not what safetensors has");
}

#[test]
fn tensors_in_the_wrong_place() {
    let one = |shape: &str, offsets: &str| {
        with_header(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 8])
    };
    check_accepted(&one("[2]", "[0,8]"));
    check_accepted(&one("[2,1,1]", "[0,8]"));
    check_refused(&one("[3]", "[0,8]"), "needs 12");
    check_refused(&one("[2]", "[0,7]"), "needs 8");
    check_refused(&one("[2]", "[8,0]"), "begins at byte 8, expected 0");
    check_refused(&one("[1]", "[4,8]"), "begins at byte 4, expected 0");
    check_refused(&one("[1]", "[0,4]"), "holds 8 bytes of tensors, its header says 4");
    check_refused(&one("[4]", "[0,16]"), "holds 8 bytes of tensors, its header says 16");
    check_refused(&one("[0]", "[8,0]"), "begins at byte 8, expected 0");
    check_refused(&one("[4294967296,4294967296,2]", "[0,8]"), "too large");
    check_refused(&one("[2]", "[0,18446744073709551615]"), "needs 8");
    check_refused(&one("[-2]", "[0,8]"), "not what safetensors has");
    check_refused(&one("[2]", "[0]"), "not what safetensors has");
    let two = |first: &str, second: &str| {
        let tensor = |offsets| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
        with_header(&format!(r#"{{"a":{},"b":{}}}"#, tensor(first), tensor(second)), &[0; 8])
    };
    check_accepted(&two("[4,8]", "[0,4]"));
    check_refused(&two("[0,4]", "[0,4]"), "begins at byte 0, expected 4");
    check_refused(&two("[0,4]", "[2,6]"), "begins at byte 2, expected 4");
    check_refused(&with_header(r#"{"a":{"dtype":"F31","shape":[],"data_offsets":[0,4]}}"#, &[0; 4]), "F31");
}

#[test]
fn truncated_files_are_named_with_both_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let layout = ParamLayout::new(&small_config());
    let folder = save(dir.path(), &small_config(), &mut filled_backend(&layout), &state(1));
    for name in ["model.safetensors", "training_state.safetensors"] {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        for len in [0, 5, 8, 100, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            let result = if name.starts_with("model") {
                load_params(&folder, &layout, &mut MemoryBackend::new(&layout))
            } else {
                read_training_state(&folder).map(|_| ())
            };
            let error = result.unwrap_err();
            let message = error.to_string();
            assert!(message.contains(name) && error.help().is_some(), "{message}");
            assert!(message.contains("expected") || message.contains("its header says"), "{message}");
            assert_eq!(error.exit_code(), 1);
        }
    }
}

#[test]
fn a_folder_in_place_of_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let layout = ParamLayout::new(&small_config());
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let message = load_params(dir.path(), &layout, &mut MemoryBackend::new(&layout)).unwrap_err().to_string();
    assert!(message.contains("not a file"), "{message}");
}

/// Valid bytes to mutate.
fn valid() -> Vec<u8> {
    with_header(
        r#"{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I16","shape":[1,3],"data_offsets":[8,14]}}"#,
        &[7; 14],
    )
}

/// Both readers agree on whether the bytes are a safetensors file. (Element types of less than
/// one byte, which only the official one knows, do not arise here.)
fn check_agreement(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = Header::read(&mut &bytes[..], bytes.len() as u64);
    let theirs = SafeTensors::deserialize(bytes);
    prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "ours {:?}, theirs {:?}", ours, theirs.err());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_agreement(&bytes)?;
    }

    #[test]
    fn any_header_is_read_without_panic(json in "\\{.{0,80}", data in prop::collection::vec(any::<u8>(), 0..20)) {
        check_agreement(&with_header(&json, &data))?;
    }

    #[test]
    fn mutations_are_judged_as_the_official_reader_judges_them(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = valid();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_agreement(&bytes)?;
    }

    #[test]
    fn digits_are_judged_as_the_official_reader_judges_them(
        index in any::<prop::sample::Index>(), digit in b'0'..=b'9', count in 1usize..3,
    ) {
        let mut bytes = valid();
        let digits: Vec<usize> = (8..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
        for offset in 0..count {
            bytes[digits[(index.index(digits.len()) + offset) % digits.len()]] = digit;
        }
        check_agreement(&bytes)?;
    }
}

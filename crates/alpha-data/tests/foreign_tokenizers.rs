//! Tokenizers of other programs against the results of the Python package `tokenizers` for the same files and texts. The README
//! of `tests/tokenizers` describes the format.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use alpha_data::{Cache, DataError, DataOptions, Dataset, Kind, Tokenizer, Work};
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers")
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder().join(name)).unwrap()).unwrap()
}

fn texts() -> BTreeMap<String, String> {
    let text = |parts: &Value| -> String {
        let part = |part: &Value| part[0].as_str().unwrap().repeat(part[1].as_u64().unwrap() as usize);
        parts.as_array().unwrap().iter().map(part).collect()
    };
    read("texts.json").as_object().unwrap().iter().map(|(name, parts)| (name.clone(), text(parts))).collect()
}

/// The name of every kind and its expected results.
fn kinds() -> Vec<(String, Value)> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".expected.json").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 42, "{} kinds", names.len());
    names.into_iter().map(|name| (name.clone(), read(&format!("{name}.expected.json")))).collect()
}

fn load(kind: &str) -> Result<Tokenizer, DataError> {
    Tokenizer::load(&folder().join(format!("{kind}.json")))
}

/// Kinds that the package loads but nobody should train with.
fn is_refused(expected: &Value) -> bool {
    expected.get("refuse").is_some()
}

/// FNV-1a with 64 bits.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> String {
    let hash = bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

fn assert_ids(expected: &Value, found: &[u32], place: &str) {
    if let Some(ids) = expected.as_array() {
        let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(found, ids, "{place}");
    } else {
        assert_eq!(found.len() as u64, expected["count"].as_u64().unwrap(), "{place}");
        assert_eq!(fnv(found.iter().flat_map(|id| id.to_le_bytes())), expected["fnv"].as_str().unwrap(), "{place}");
    }
}

fn assert_text(expected: &Value, text: &str, found: &str, place: &str) {
    match expected {
        Value::Bool(true) => assert_eq!(found, text, "{place}"),
        Value::String(expected) => assert_eq!(found, expected, "{place}"),
        expected => assert_eq!(fnv(found.bytes()), expected["fnv"].as_str().unwrap(), "{place}"),
    }
}

/// Calls `check` for each kind and text for which the package gives reliable ids.
fn each_text(mut check: impl FnMut(&Tokenizer, &str, &Value, &str)) {
    let all = texts();
    let mut checked = 0;
    for (kind, expected) in kinds() {
        if is_refused(&expected) {
            continue;
        }
        let tokenizer = load(&kind).unwrap_or_else(|error| panic!("{kind}: {error}"));
        for (name, expected_of_text) in expected["texts"].as_object().unwrap() {
            let by_engine = expected.get("engine").is_some() && name == "code";
            if !by_engine {
                check(&tokenizer, &all[name], expected_of_text, &format!("{kind}, {name}"));
                checked += 1;
            }
        }
    }
    assert!(checked > 700, "{checked} texts");
}

#[test]
fn ids_and_texts_are_those_of_the_package() {
    each_text(|tokenizer, text, expected, place| {
        let found = tokenizer.encode(text);
        if let Some(lost) = expected.get("lost") {
            let error = found.unwrap_err();
            let offset = lost["first"][0].as_u64().unwrap();
            assert!(
                matches!(&error, DataError::NotInVocabulary { offset: at, .. } if *at <= offset && offset < at + 4),
                "{place}: {error}, {lost}"
            );
            return;
        }
        if expected.get("error").is_some() {
            assert!(found.is_err(), "{place}");
            return;
        }
        let ids = found.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_ids(&expected["ids"], &ids, place);
        assert_text(&expected["text"], text, &tokenizer.decode(&ids).unwrap(), place);
    });
}

#[test]
fn what_follows_a_prompt_is_decoded_as_it_stands_behind_it() {
    each_text(|tokenizer, text, expected, place| {
        let Some(splits) = expected.get("splits").and_then(Value::as_array) else { return };
        let Some(ids) = expected["ids"].as_array() else { return };
        let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let whole = tokenizer.decode(&ids).unwrap();
        for split in splits {
            let (before, after) = ids.split_at(split[0].as_u64().unwrap() as usize);
            let start = tokenizer.decode(before).unwrap();
            let joined =
                format!("{}{}", start.trim_end_matches('\u{FFFD}'), tokenizer.decode_after(before, after).unwrap());
            assert_eq!(joined, whole, "{place}, {split}, {text:?}");
        }
    });
}

/// The whole path of training, with a text that is read in pieces.
#[test]
fn pieces_of_a_text_have_the_tokens_of_the_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let words = "The river ran past the old mill, and the wheel turned; 12 children sang.\nSnow lay on it.\n\nA stone, a bird. ";
    let long: String = (0..5_000).flat_map(|number| [words, ["", "\n", "  ", "x "][number % 4]]).collect();
    let path = temporary.path().join("long.txt");
    fs::write(&path, &long).unwrap();
    let mut compared = 0;
    for (kind, expected) in kinds() {
        if is_refused(&expected) {
            continue;
        }
        let tokenizer = load(&kind).unwrap();
        let Ok(whole) = tokenizer.encode(&long) else { continue };
        let options = DataOptions {
            data: path.to_str().unwrap().to_owned(),
            tokenizer: Some(Kind::File(folder().join(format!("{kind}.json")))),
            block: 8,
            packed: true,
            ..DataOptions::default()
        };
        let dataset = Dataset::open(&options, &Work { cache: &Cache::none(), ..Work::default() }).unwrap();
        let mut pieces = vec![0; dataset.train.len() as usize];
        dataset.train.read(0, &mut pieces).unwrap();
        let is_forced = dataset.warnings.iter().any(|warning| warning.contains("without a space"));
        assert!(pieces == whole || is_forced, "{kind}: {} tokens, {} of the whole", pieces.len(), whole.len());
        compared += usize::from(pieces == whole);
    }
    assert!(compared >= 30, "{compared} kinds");
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    for (kind, expected) in kinds() {
        if is_refused(&expected) && !["truncation-panics", "truncation-pair"].contains(&kind.as_str()) {
            let error = load(&kind).err().unwrap_or_else(|| panic!("{kind} was taken: {}", expected["refuse"]));
            assert!(matches!(error, DataError::TokenizerFile { .. }), "{kind}: {error}");
        }
    }
}

#[test]
fn files_at_which_the_library_panics_are_errors() {
    let temporary = tempfile::tempdir().unwrap();
    for (name, broken) in read("broken.json").as_object().unwrap() {
        let path = temporary.path().join("tokenizer.json");
        fs::write(&path, serde_json::to_vec(&broken[2]).unwrap()).unwrap();
        let loaded = Tokenizer::load(&path);
        match broken[0].as_str().unwrap() {
            "load" | "silent" => assert!(loaded.is_err(), "{name}"),
            "decode" => {
                let tokenizer = loaded.unwrap();
                for ids in [&[][..], &[0], &[0, 0]] {
                    let _ = tokenizer.decode(ids);
                }
            }
            _ => drop(loaded.map(|tokenizer| tokenizer.encode("some text"))),
        }
    }
    let whole = fs::read(folder().join("llama2.json")).unwrap();
    for len in (0..whole.len()).step_by(97) {
        let path = temporary.path().join("cut.json");
        fs::write(&path, &whole[..len]).unwrap();
        assert!(Tokenizer::load(&path).is_err(), "{len} bytes");
    }
}

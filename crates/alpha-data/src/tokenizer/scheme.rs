//! The `tokenizer.json` of `char`, `byte` and `word`, and how a file is recognised as one of these or as BPE like GPT-2's.
//!
//! The JSON describes to the `tokenizers` crate what [`super::encoder`] does directly, without a regular-expression match for
//! each character. [`Scheme::detect`] checks pre-tokenizer, decoder and model; the crate encodes for every other file.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::END_OF_TEXT;

/// How a tokenizer encodes.
#[derive(Debug)]
pub(super) enum Scheme {
    /// Ids by character.
    Char {
        /// Id of each character below U+0080, or `u32::MAX`.
        ascii: Box<[u32; 128]>,
        /// Ids of the others.
        rest: HashMap<char, u32>,
    },
    /// Id = byte.
    Byte,
    /// Ids by word.
    Word(HashMap<String, u32>),
    /// Byte-level BPE within GPT-2's words; the `tokenizers` crate merges.
    Bpe,
    /// By the `tokenizers` crate alone.
    Foreign,
}

pub(super) fn char_json(tokens: &[String]) -> Vec<u8> {
    document(tokens, &char_pre_tokenizer(), &json!({"type": "Fuse"}), &word_level(tokens))
}

pub(super) fn word_json(tokens: &[String]) -> Vec<u8> {
    document(tokens, &word_pre_tokenizer(), &word_decoder(), &word_level(tokens))
}

pub(super) fn byte_json(with_end_of_text: bool) -> Vec<u8> {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    if with_end_of_text {
        tokens.push(END_OF_TEXT.to_owned());
    }
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": numbered(&tokens), "merges": [],
    });
    document(&tokens, &byte_level(), &byte_level(), &model)
}

/// A complete `tokenizer.json` around a model.
fn document(tokens: &[String], pre_tokenizer: &Value, decoder: &Value, model: &Value) -> Vec<u8> {
    let mut added_tokens = Vec::new();
    if let Some(id) = tokens.iter().position(|token| token == END_OF_TEXT) {
        added_tokens.push(json!({
            "id": id, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
    }
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": decoder,
        "model": model,
    });
    serde_json::to_vec_pretty(&document).expect("a JSON value always serialises")
}

/// The words and newlines of a text, with their byte offsets.
pub(super) fn words(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let offset = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_inclusive('\n').flat_map(move |line| {
        let newline = line.ends_with('\n').then(|| &line[line.len() - 1..]);
        line.split_whitespace().chain(newline).map(move |word| (word, offset(word)))
    })
}

impl Scheme {
    /// Recognises the files that this module writes, and BPE like GPT-2's.
    pub(super) fn detect(json: &Value, vocab: &HashMap<String, u32>) -> Scheme {
        let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let flags = ["single_word", "lstrip", "rstrip"];
        let is_known = |token: &Value| token["content"] == END_OF_TEXT && flags.iter().all(|flag| token[flag] == false);
        if !json["normalizer"].is_null() || !added.iter().all(is_known) {
            return Scheme::Foreign;
        }
        if is_gpt2_like(json) {
            return Scheme::Bpe;
        }
        let unknown = json["model"]["unk_token"].as_str();
        if unknown.is_some_and(|token| vocab.contains_key(token)) {
            return Scheme::Foreign;
        }
        let has = |pre_tokenizer: Value, decoder: Value, model: &str| {
            json["pre_tokenizer"] == pre_tokenizer && json["decoder"] == decoder && json["model"]["type"] == model
        };
        if has(char_pre_tokenizer(), json!({"type": "Fuse"}), "WordLevel") {
            let mut ascii = Box::new([u32::MAX; 128]);
            let mut rest = HashMap::new();
            for (token, id) in vocab {
                let mut chars = token.chars();
                match (chars.next(), chars.next()) {
                    (Some(char), None) if char.is_ascii() => ascii[char as usize] = *id,
                    (Some(char), None) => {
                        rest.insert(char, *id);
                    }
                    _ if token == END_OF_TEXT => {}
                    _ => return Scheme::Foreign,
                }
            }
            return Scheme::Char { ascii, rest };
        }
        if has(word_pre_tokenizer(), word_decoder(), "WordLevel") {
            return Scheme::Word(vocab.clone());
        }
        let is_byte = |byte: u8| vocab.get(byte_char(byte).encode_utf8(&mut [0; 4]) as &str) == Some(&u32::from(byte));
        let no_merges = json["model"]["merges"].as_array().is_some_and(Vec::is_empty);
        if has(byte_level(), byte_level(), "BPE") && no_merges && (0..=255).all(is_byte) {
            return Scheme::Byte;
        }
        Scheme::Foreign
    }
}

/// Whether this is byte-level BPE with GPT-2's pattern and without options that change the merges.
fn is_gpt2_like(json: &Value) -> bool {
    let (pre_tokenizer, model) = (&json["pre_tokenizer"], &json["model"]);
    let absent = ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"];
    let is_absent = |key: &str| model[key].is_null() || model[key] == "";
    pre_tokenizer["type"] == "ByteLevel"
        && pre_tokenizer["add_prefix_space"] == false
        && pre_tokenizer["use_regex"] != false
        && model["type"] == "BPE"
        && absent.iter().all(|key| is_absent(key))
        && model["byte_fallback"] != true
        && model["ignore_merges"] != true
}

/// Whether a stage of a tokenizer is of this type, or has a part of this type in its `list`.
pub(super) fn is_or_has(stage: &Value, list: &str, kind: &str) -> bool {
    let is_of_kind = |stage: &Value| stage["type"] == kind;
    is_of_kind(stage) || stage[list].as_array().is_some_and(|parts| parts.iter().any(is_of_kind))
}

/// The printable character for a byte in byte-level vocabularies (GPT-2's table). Visible Latin-1 characters stand for
/// themselves; the other bytes follow in order from U+0100 on.
pub(super) fn byte_char(byte: u8) -> char {
    let is_visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_visible(byte) {
        return char::from(byte);
    }
    let hidden_before = (0..byte).filter(|byte| !is_visible(*byte)).count() as u32;
    char::from_u32(0x100 + hidden_before).expect("at most 256 characters from U+0100 on are all valid")
}

fn numbered(tokens: &[String]) -> Value {
    tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect::<serde_json::Map<_, _>>().into()
}

/// The crate requires a name for the unknown token. This one is neither a character nor a word, so it is never in the vocabulary,
/// and unknown text is an error in the crate too.
fn word_level(tokens: &[String]) -> Value {
    json!({"type": "WordLevel", "vocab": numbered(tokens), "unk_token": "<not a word>"})
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

fn char_pre_tokenizer() -> Value {
    json!({"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false})
}

fn word_pre_tokenizer() -> Value {
    json!({"type": "Split", "pattern": {"Regex": "\\n|\\S+"}, "behavior": "Removed", "invert": true})
}

/// A space before every token but the first (no word begins with a space, so the prefix never applies), then no spaces around
/// newlines.
fn word_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "WordPiece", "prefix": " ", "cleanup": false},
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"String": " \n"}, "content": "\n"},
        {"type": "Replace", "pattern": {"String": "\n "}, "content": "\n"},
    ]})
}

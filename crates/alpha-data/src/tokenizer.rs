//! Text to token ids and back. Every tokenizer is a standard `tokenizer.json`, which other tools can open.
//!
//! | kind | vocabulary | decode(encode(x)) |
//! | --- | --- | --- |
//! | `bpe` | byte-level BPE, GPT-2's pattern: 256 bytes and merges | x, for any text |
//! | `byte` | the 256 bytes, id = byte | x, for any text |
//! | `char` | the characters of the data, by code point | x |
//! | `word` | `\n` and the words of the data, most frequent first | x with each run of other white space one space, and none at either end of a line |
//!
//! `char` and `word` know only the characters and words of their data. Other text is an error that names the first unknown
//! character or word.
//!
//! If data has documents (jsonl, several files), the vocabulary has an end-of-text token `<|endoftext|>`, which follows each
//! document. It is the last id of `byte`, `char` and `word`, and the first of `bpe` (whose size includes it). Otherwise there
//! is no such token, so that `char` has exactly as many ids as the text has different characters. As in other tools, a literal
//! `<|endoftext|>` in text encodes to that token.

mod python_json;
mod kind;
mod scheme;
mod pattern;
mod build;
mod encoder;
mod foreign;

pub(crate) use self::encoder::{Encoder, Text};
pub use self::{kind::Kind, python_json::python_json};

use std::{fs, io, path::Path, sync::OnceLock};

use serde_json::Value;
use tokenizers::PostProcessor;

use self::scheme::Scheme;
use crate::{
    DataError, TokenizerFault, cache,
    corpus::char_start,
    source::{BYTE_ORDER_MARK, LFS_POINTER},
};

/// The token that follows each document.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Names of the end-of-text token in families of tokenizers; it must be an added token.
const END_OF_TEXT_NAMES: [&str; 5] = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"];

/// A file of the model beside its `tokenizer.json`; `null` if there is none.
fn model_file(tokenizer: &Path, name: &str) -> Result<Value, DataError> {
    let path = tokenizer.with_file_name(name);
    match fs::read(&path) {
        Ok(bytes) => python_json(&bytes).map_err(|error| DataError::ModelFile { path, why: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(DataError::io("read", &path, source)),
    }
}

/// A loaded or built tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: Vec<u8>,
    scheme: Scheme,
    /// Whether a token may depend on all of the text before it, so that text must not be cut.
    is_indivisible: bool,
    /// Whether a character of a token stands for a byte of text.
    is_byte_level: bool,
    vocab_size: usize,
    end_of_text: Option<u32>,
    /// The tokens with which the file's model ends texts; the first ends documents.
    eos_tokens: Vec<u32>,
    byte_lengths: OnceLock<Option<Vec<u32>>>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. The model's files beside it say which tokens end a text: `eos_token_id` (one or several) of
    /// `config.json` and `generation_config.json`, else `eos_token` of `tokenizer_config.json`.
    pub fn load(path: &Path) -> Result<Tokenizer, DataError> {
        let json = fs::read(path).map_err(|source| DataError::io("read", path, source))?;
        if json.starts_with(LFS_POINTER) {
            return Err(DataError::TokenizerFile { path: path.to_owned(), why: TokenizerFault::LfsPointer });
        }
        let tokenizer = Tokenizer::from_json(json);
        let mut tokenizer = tokenizer.map_err(|why| DataError::TokenizerFile { path: path.to_owned(), why })?;
        tokenizer.eos_tokens = tokenizer.read_eos_tokens(path)?;
        Ok(tokenizer)
    }

    /// The tokens that end a text by the model's files beside a `tokenizer.json`. Ids outside the vocabulary are ignored, because
    /// default configurations name GPT-2's token for every vocabulary.
    fn read_eos_tokens(&self, path: &Path) -> Result<Vec<u32>, DataError> {
        let mut ends: Vec<u32> = Vec::new();
        for name in ["config.json", "generation_config.json"] {
            let ids = match &model_file(path, name)?["eos_token_id"] {
                Value::Array(ids) => ids.clone(),
                one => vec![one.clone()],
            };
            let ids = ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok());
            for id in ids.filter(|id| (*id as usize) < self.vocab_size) {
                if !ends.contains(&id) {
                    ends.push(id);
                }
            }
        }
        if ends.is_empty() {
            let config = model_file(path, "tokenizer_config.json")?;
            let token = config["eos_token"].as_str().or_else(|| config["eos_token"]["content"].as_str());
            ends.extend(token.and_then(|token| self.inner.token_to_id(token)));
        }
        Ok(ends)
    }

    /// Writes `tokenizer.json`: the bytes that were loaded or built. A link is followed.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        cache::write_named(path, &self.json).map_err(|source| DataError::io("write", path, source))
    }

    /// The text of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Identifies the text of `tokenizer.json`.
    pub fn hash(&self) -> String {
        blake3::hash(&self.json).to_hex().to_string()
    }

    /// Whether this is the tokenizer that `kind` names.
    pub(crate) fn matches(&self, kind: &Kind) -> bool {
        match (kind, &self.scheme) {
            (Kind::Char, Scheme::Char { .. }) | (Kind::Byte, Scheme::Byte) | (Kind::Word, Scheme::Word(_)) => true,
            (Kind::Bpe { vocab }, Scheme::Bpe) => self.vocab_size <= *vocab,
            (Kind::File(path), _) => fs::read(path).is_ok_and(|json| json == self.json),
            _ => false,
        }
    }

    /// The first token of this tokenizer that has a different id in `other`.
    pub fn token_that_differs(&self, other: &Tokenizer) -> Option<String> {
        let [own, others] = [self.inner.get_vocab(true), other.inner.get_vocab(true)];
        let differs = |(token, id): &(&String, &u32)| others.get(*token).is_none_or(|other| other != *id);
        own.iter().filter(differs).min_by_key(|(_, id)| **id).map(|(token, _)| token.clone())
    }

    /// How many special tokens the template would add to a text; they are never added here.
    pub(crate) fn template_tokens(&self) -> usize {
        self.inner.get_post_processor().map_or(0, |template| template.added_tokens(false))
    }

    /// Number of ids: the largest plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a document, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.eos_tokens.first().copied().or(self.end_of_text)
    }

    /// Whether this token ends a text.
    pub fn is_end(&self, token: u32) -> bool {
        self.eos_tokens.contains(&token) || self.end_of_text() == Some(token)
    }

    /// Ids of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.encoder(1).encode(text)
    }

    /// Text of ids. Unknown ids give no text; broken UTF-8 gives U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.decode_with(tokens, false)
    }

    fn decode_with(&self, tokens: &[u32], skips_special: bool) -> Result<String, DataError> {
        if tokens.is_empty() {
            return Ok(String::new());
        }
        let decoded = if matches!(self.scheme, Scheme::Foreign) {
            foreign::catch_panic(|| self.inner.decode(tokens, skips_special))
        } else {
            self.inner.decode(tokens, skips_special).map_err(TokenizerFault::from)
        };
        Ok(decoded?)
    }

    /// Text of `tokens` when they follow `before`: a decoder puts a space between words, but not at the start of a text. If the
    /// boundary cuts a character in two, the whole character belongs to this text.
    pub fn decode_after(&self, before: &[u32], tokens: &[u32]) -> Result<String, DataError> {
        let start = self.decode(before)?;
        let whole = self.decode(&[before, tokens].concat())?;
        // `tokens` may complete the last character.
        let start = start.trim_end_matches('\u{FFFD}');
        let common = start.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
        Ok(whole[char_start(&whole, common)..].to_owned())
    }

    /// Number of bytes of the text of `tokens` when they follow `before`, for bits per byte. Special tokens count as no text. The
    /// number is exact for byte-level and character vocabularies; for others it is the length of the decoded text.
    pub fn text_bytes(&self, before: &[u32], tokens: &[u32]) -> Result<u64, DataError> {
        if let Some(lengths) = self.byte_lengths.get_or_init(|| self.find_byte_lengths()) {
            return Ok(tokens.iter().map(|token| u64::from(lengths.get(*token as usize).copied().unwrap_or(0))).sum());
        }
        let length = |tokens: &[u32]| self.decode_with(tokens, true).map(|text| text.len());
        Ok(length(&[before, tokens].concat())?.saturating_sub(length(before)?) as u64)
    }

    /// Encodes many texts, one after another.
    pub(crate) fn encoder(&self, threads: usize) -> Encoder<'_> {
        Encoder::new(self, threads)
    }

    pub(crate) fn from_json(mut json: Vec<u8>) -> Result<Tokenizer, TokenizerFault> {
        if json.starts_with(BYTE_ORDER_MARK) {
            json.drain(..BYTE_ORDER_MARK.len());
        }
        let document: Value = serde_json::from_slice(&json)?;
        let mut inner = foreign::catch_panic(|| tokenizers::Tokenizer::from_bytes(&json))?;
        foreign::check(&document, &inner)?;
        // Both stay in the file: other programs need them for batches of sentences. `transformers` switches them off too.
        inner.with_truncation(None)?;
        inner.with_padding(None);
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |id| *id as usize + 1);
        if vocab_size == 0 {
            return Err(TokenizerFault::EmptyVocabulary);
        }
        let added = inner.get_added_tokens_decoder();
        let id_of = |name: &&str| added.iter().find(|(_, token)| token.content == **name).map(|(id, _)| *id);
        let end_of_text = END_OF_TEXT_NAMES.iter().find_map(id_of);
        let scheme = Scheme::detect(&document, &vocab);
        let is_indivisible = scheme::is_or_has(&document["pre_tokenizer"], "pretokenizers", "FixedLength");
        let is_byte_level = scheme::is_or_has(&document["decoder"], "decoders", "ByteLevel");
        Ok(Tokenizer {
            inner,
            json,
            scheme,
            is_indivisible,
            is_byte_level,
            vocab_size,
            end_of_text,
            eos_tokens: Vec::new(),
            byte_lengths: OnceLock::new(),
        })
    }

    /// Bytes of text of each id, if they do not depend on neighbouring ids.
    fn find_byte_lengths(&self) -> Option<Vec<u32>> {
        if !self.is_byte_level && !matches!(self.scheme, Scheme::Char { .. }) {
            return None;
        }
        let added = self.inner.get_added_tokens_decoder();
        let length = |id: u32| match added.get(&id) {
            Some(token) if token.special => 0,
            Some(token) => token.content.len(),
            None => self
                .inner
                .id_to_token(id)
                .map_or(0, |token| if self.is_byte_level { token.chars().count() } else { token.len() }),
        };
        Some((0..self.vocab_size as u32).map(|id| length(id) as u32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Corpus, Work};
    use proptest::prelude::*;

    const TEXT: &str = "the cat sat on the mat\nthe dog, the log — déjà vu\n\nthe end of the cat\n";

    fn build(kind: &Kind, texts: &[&str]) -> Tokenizer {
        Tokenizer::build(kind, &Corpus::from_texts(texts), &Work::default()).unwrap().0
    }

    fn kinds() -> [Kind; 4] {
        [Kind::Char, Kind::Byte, Kind::Word, Kind::Bpe { vocab: 270 }]
    }

    /// Our encoders against the crate with the `tokenizer.json` that we write.
    #[test]
    fn every_kind_encodes_as_its_json_does_elsewhere() {
        for kind in kinds() {
            for texts in [vec![TEXT], vec![TEXT, "another\n"]] {
                let tokenizer = build(&kind, &texts);
                let elsewhere = tokenizers::Tokenizer::from_bytes(tokenizer.json()).unwrap();
                let mut sample = "the mat déjà\nthe  cat \n\n the".to_owned();
                if texts.len() > 1 {
                    sample.push_str("<|endoftext|>the<|endoftext|>");
                }
                let expected = elsewhere.encode(sample.as_str(), false).unwrap();
                assert_eq!(tokenizer.encode(&sample).unwrap(), expected.get_ids(), "{kind}");
                assert_eq!(tokenizer.vocab_size(), elsewhere.get_vocab_size(true), "{kind}");
            }
        }
    }

    #[test]
    fn only_data_with_documents_has_an_end_of_text() {
        for kind in kinds() {
            assert_eq!(build(&kind, &[TEXT]).end_of_text(), None);
            let tokenizer = build(&kind, &[TEXT, TEXT]);
            let end_of_text = tokenizer.end_of_text().unwrap();
            assert_eq!(tokenizer.encode(END_OF_TEXT).unwrap(), [end_of_text]);
            assert_eq!(tokenizer.decode(&[end_of_text]).unwrap(), END_OF_TEXT);
            assert_eq!(tokenizer.text_bytes(&[], &[end_of_text]).unwrap(), 0);
        }
    }

    #[test]
    fn char_ids_follow_code_points() {
        let tokenizer = build(&Kind::Char, &["banana é"]);
        assert_eq!(tokenizer.vocab_size(), 5);
        assert_eq!(tokenizer.encode(" abné").unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn byte_ids_are_bytes() {
        let tokenizer = build(&Kind::Byte, &["x"]);
        assert_eq!(tokenizer.encode("é\n").unwrap(), [0xC3, 0xA9, 0x0A]);
        assert_eq!(tokenizer.vocab_size(), 256);
        assert_eq!(build(&Kind::Byte, &["x", "y"]).end_of_text(), Some(256));
    }

    #[test]
    fn word_normalises_white_space_only() {
        let tokenizer = build(&Kind::Word, &["a bb\nc a\n"]);
        let decoded = tokenizer.decode(&tokenizer.encode("  a \t bb \n\n c\na").unwrap()).unwrap();
        assert_eq!(decoded, "a bb\n\nc\na");
        assert_eq!(tokenizer.encode("\n").unwrap().len(), 1);
    }

    #[test]
    fn closed_vocabularies_name_what_they_lack() {
        let error = build(&Kind::Char, &["abc"]).encode("ab\u{1F600}").unwrap_err();
        assert!(
            matches!(&error, DataError::NotInVocabulary { token, offset: 2, .. } if token == "\u{1F600}"),
            "{error}"
        );
        let error = build(&Kind::Word, &["a b"]).encode("a b cat").unwrap_err();
        assert!(matches!(&error, DataError::NotInVocabulary { token, offset: 4, .. } if token == "cat"), "{error}");
    }

    #[test]
    fn too_little_text_gives_fewer_merges_and_says_so() {
        let (tokenizer, warnings) = Tokenizer::build(
            &Kind::Bpe { vocab: 5000 },
            &Corpus::from_texts(&["to be or not to be"]),
            &Work::default(),
        )
        .unwrap();
        assert!(tokenizer.vocab_size() < 300);
        assert!(warnings[0].contains("5000") && warnings[0].contains(&tokenizer.vocab_size().to_string()));
        let small = Tokenizer::build(&Kind::Bpe { vocab: 200 }, &Corpus::from_texts(&["x"]), &Work::default());
        assert!(small.unwrap_err().is_usage());
    }

    #[test]
    fn building_is_deterministic_and_json_round_trips() {
        let text = TEXT.repeat(50);
        for kind in kinds() {
            let first = build(&kind, &[&text]);
            assert_eq!(first.json(), build(&kind, &[&text]).json());
            let again = Tokenizer::from_json(first.json().to_vec()).unwrap();
            assert_eq!(again.encode("the cat").unwrap(), first.encode("the cat").unwrap());
        }
    }

    #[test]
    fn text_bytes_count_the_text() {
        for kind in kinds() {
            let tokenizer = build(&kind, &[TEXT, TEXT]);
            let text = "the cat sat\ndéjà vu";
            assert_eq!(
                tokenizer.text_bytes(&[], &tokenizer.encode(text).unwrap()).unwrap(),
                text.len() as u64,
                "{kind}"
            );
        }
    }

    #[test]
    fn malformed_json_is_an_error_not_a_panic() {
        let good = build(&Kind::Bpe { vocab: 258 }, &[TEXT]).json().to_vec();
        let text = String::from_utf8(good.clone()).unwrap();
        let mut seeds: Vec<Vec<u8>> = [
            "",
            "{}",
            "null",
            "[]",
            "{\"model\":{}}",
            "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}",
            "\u{0}",
            "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
            "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
            "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":99999999999}}}",
        ]
        .iter()
        .map(|seed| seed.as_bytes().to_vec())
        .collect();
        seeds.push(good[..good.len() / 2].to_vec());
        seeds.push(text.replace("ByteLevel", "Nothing").into_bytes());
        seeds.push([&good[..], b"x"].concat());
        for seed in seeds {
            assert!(Tokenizer::from_json(seed.clone()).is_err(), "{}", String::from_utf8_lossy(&seed));
        }
    }

    proptest! {
        #[test]
        fn byte_level_round_trips_any_text(text: String) {
            static TOKENIZERS: OnceLock<[Tokenizer; 2]> = OnceLock::new();
            let tokenizers =
                TOKENIZERS.get_or_init(|| [build(&Kind::Byte, &[TEXT]), build(&Kind::Bpe { vocab: 300 }, &[TEXT, TEXT])]);
            for tokenizer in tokenizers {
                let tokens = tokenizer.encode(&text).unwrap();
                prop_assert_eq!(tokenizer.decode(&tokens).unwrap(), text.as_str());
                prop_assert_eq!(tokenizer.text_bytes(&[], &tokens).unwrap(), text.len() as u64);
            }
        }

        #[test]
        fn char_round_trips_its_own_text(text in "\\PC{1,80}") {
            let tokenizer = build(&Kind::Char, &[&text]);
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn word_round_trips_up_to_white_space(text in "[a-c# \n\t\u{3000}]{1,60}") {
            let tokenizer = build(&Kind::Word, &[&text]);
            let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let expected = text.split('\n').map(line).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), expected);
        }

        #[test]
        fn any_bytes_load_or_err(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tokenizer::from_json(bytes);
        }
    }
}

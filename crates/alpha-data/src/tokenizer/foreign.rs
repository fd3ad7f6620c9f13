//! Tokenizers of other programs: their `tokenizer.json` means what the `tokenizers` package takes it to mean, as
//! `transformers` uses it: truncation and padding are off, and a template's special tokens are not added.
//!
//! The stages are the crate's (added tokens, normalizer, pre-tokenizer, model), run one by one, so that text which the model
//! passes over is an error that names it instead of a gap, and so that threads are ours to give.

use std::{
    collections::HashMap,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token,
};

use super::{Text, Tokenizer};
use crate::{DataError, TokenizerFault, corpus::char_start};

/// Refuses a `tokenizer.json` that asks for what cannot be kept. `inner` is what the crate made of it.
pub(super) fn check(json: &Value, inner: &tokenizers::Tokenizer) -> Result<(), TokenizerFault> {
    if let Some(dropout) = json["model"]["dropout"].as_f64().filter(|dropout| *dropout > 0.0) {
        return Err(TokenizerFault::Dropout { dropout });
    }
    let mut by_id: HashMap<u32, &str> = HashMap::new();
    let vocab = inner.get_vocab(true);
    for (token, id) in &vocab {
        if let Some(other) = by_id.insert(*id, token) {
            let mut tokens = [token.clone(), other.to_owned()];
            tokens.sort();
            return Err(TokenizerFault::SameId { tokens, id: *id });
        }
    }
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let mut normalized: HashMap<String, &str> = HashMap::new();
    for token in added {
        let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else { continue };
        // The `tokenizers` package gives an added token the id of the model's token of that name, or the next free one.
        let given = inner.token_to_id(content);
        if given.map(u64::from) != Some(id) {
            return Err(TokenizerFault::AddedId { token: content.to_owned(), id, given });
        }
        if token["normalized"] == true {
            let mut text = NormalizedString::from(content);
            if let Some(normalizer) = inner.get_normalizer()
                && normalizer.normalize(&mut text).is_err()
            {
                continue;
            }
            if let Some(other) = normalized.insert(text.get().to_owned(), content) {
                return Err(TokenizerFault::SameText { tokens: [other, content].map(str::to_owned) });
            }
        }
    }
    Ok(())
}

/// Whether a tokenizer may depend on all of a text before a place, so that no text is cut.
pub(super) fn is_indivisible(json: &Value) -> bool {
    let is_fixed = |stage: &Value| stage["type"] == "FixedLength";
    let stages = json["pre_tokenizer"]["pretokenizers"].as_array();
    is_fixed(&json["pre_tokenizer"]) || stages.is_some_and(|stages| stages.iter().any(is_fixed))
}

/// Runs what the crate does with a file or with ids that nobody has checked: it panics at some.
pub(super) fn catch_panic<R>(job: impl FnOnce() -> tokenizers::Result<R>) -> Result<R, TokenizerFault> {
    /// The hook that reports panics is the process's: one at a time, so that each puts back what it found.
    static HOOK: Mutex<()> = Mutex::new(());
    let _one = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(AssertUnwindSafe(job));
    panic::set_hook(hook);
    match done {
        Ok(done) => Ok(done?),
        Err(_) => Err(TokenizerFault::Panic),
    }
}

impl Tokenizer {
    /// Ids of a piece of text, as they are within the whole.
    pub(super) fn encode_foreign(&self, Text { text, context }: Text<'_>) -> Result<Vec<u32>, DataError> {
        if context.is_empty() {
            return self.run_stages(text, 0);
        }
        // A prefix that belongs to the start of a text then stands before the context.
        let before = self.run_stages(context, 0)?;
        let mut ids = self.run_stages(&format!("{context}{text}"), context.len())?;
        if !ids.starts_with(&before) {
            return Err(TokenizerFault::Joins { context: context.to_owned() }.into());
        }
        ids.drain(..before.len());
        Ok(ids)
    }

    /// Whether a token depends on both of two texts that follow one another. Ours are cut where none does.
    pub(crate) fn joins(&self, before: &str, after: &str) -> bool {
        if !matches!(self.scheme, super::Scheme::Foreign) {
            return false;
        }
        if self.is_indivisible {
            return true;
        }
        let ids = |text: &str| self.run_stages(text, 0).ok();
        match (ids(before), ids(&format!("{before}{after}"))) {
            (Some(before), Some(both)) => !both.starts_with(&before),
            // What cannot be encoded is said with its place when its piece is.
            _ => false,
        }
    }

    /// Ids of a text; places in an error count from `start` of it.
    fn run_stages(&self, text: &str, start: usize) -> Result<Vec<u32>, DataError> {
        let stages = self.stages_of(text).map_err(TokenizerFault::from)?;
        let mut ids = Vec::with_capacity(text.len() / 3);
        for (part, (from, to), tokens) in stages.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            let tokens = tokens.as_deref().unwrap_or_default();
            if !is_covered(part, tokens) {
                return Err(self.missing_token(text, from..to, start));
            }
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(ids)
    }

    fn stages_of(&self, text: &str) -> tokenizers::Result<PreTokenizedString> {
        let inner = &self.inner;
        let mut stages = inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut stages)?;
        }
        let model = inner.get_model();
        stages.tokenize(|part| model.tokenize(part.get()))?;
        Ok(stages)
    }

    /// The error for a part of a text of which the model passed something over: the first character that has no token alone.
    fn missing_token(&self, text: &str, part: Range<usize>, start: usize) -> DataError {
        let has_token = |char: char| {
            self.stages_of(char.encode_utf8(&mut [0; 4])).is_ok_and(|stages| {
                let splits = stages.get_splits(OffsetReferential::Original, OffsetType::Byte);
                splits.iter().all(|(part, _, tokens)| is_covered(part, tokens.as_deref().unwrap_or_default()))
            })
        };
        let from = char_start(text, part.start);
        let part = &text[from..char_start(text, part.end).max(from)];
        let (at, token) = match part.char_indices().find(|(_, char)| !has_token(*char)) {
            Some((at, char)) => (at, char.to_string()),
            None => (0, part.to_owned()),
        };
        DataError::NotInVocabulary { token, offset: (from + at).saturating_sub(start) as u64, path: None, line: None }
    }
}

/// Whether a part's tokens reach to its end: a model passes over what it has no token for.
fn is_covered(part: &str, tokens: &[Token]) -> bool {
    tokens.last().map_or(0, |token| token.offsets.1) >= part.len()
}

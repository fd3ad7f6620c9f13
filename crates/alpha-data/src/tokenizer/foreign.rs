//! Tokenizers of other programs. Their `tokenizer.json` is interpreted as by the `tokenizers` package when `transformers` uses
//! it: truncation and padding are off, and a template's special tokens are not added.
//!
//! The stages of the crate (added tokens, normalizer, pre-tokenizer, model) run one by one here, so that text which the model
//! skips is an error that names it, not a gap, and so that this crate controls the threads.

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

/// Refuses a `tokenizer.json` whose meaning is not certain. `inner` is what the crate has loaded from it.
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
        // The `tokenizers` package gives an added token the id of the model's token of that name, or the next free id.
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

/// Runs a job of the crate on an unchecked file or unchecked ids, at some of which the crate panics.
pub(super) fn catch_panic<R>(job: impl FnOnce() -> tokenizers::Result<R>) -> Result<R, TokenizerFault> {
    /// The panic hook is global: only one thread at a time may replace it, so that each restores the one that it found.
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
    /// Ids of a piece of text, as in the whole text.
    pub(super) fn encode_foreign(&self, Text { text, context }: Text<'_>) -> Result<Vec<u32>, DataError> {
        if context.is_empty() {
            return self.run_stages(text, 0);
        }
        // If the tokenizer puts a prefix before a text, it is before the context.
        let before = self.run_stages(context, 0)?;
        let mut ids = self.run_stages(&format!("{context}{text}"), context.len())?;
        if !ids.starts_with(&before) {
            return Err(TokenizerFault::Joins { context: context.to_owned() }.into());
        }
        ids.drain(..before.len());
        Ok(ids)
    }

    /// Whether some token of two consecutive texts depends on both of them. With our own tokenizers, none does at a cut.
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
            // Encoding the piece will report the error with its place.
            _ => false,
        }
    }

    /// Ids of a text; offsets in an error count from byte `start` of it.
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

    /// The error for a part of a text of which the model skipped something. It names the first character without a token.
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

/// Whether a part's tokens reach its end: a model skips text without a token.
fn is_covered(part: &str, tokens: &[Token]) -> bool {
    tokens.last().map_or(0, |token| token.offsets.1) >= part.len()
}

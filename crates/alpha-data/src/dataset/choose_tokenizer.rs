//! Choosing the tokenizer for data.

use std::path::{Path, PathBuf};

use super::{CACHE_VERSION, DataOptions};
use crate::{Corpus, DataError, Kind, Tokenizer, Work, cache};

/// The tokenizer for text.
pub(super) fn tokenizer_of_text(
    options: &DataOptions,
    corpus: &Corpus,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer, DataError> {
    if options.vocab_size.is_some() {
        return Err(DataError::VocabSizeForText { data: options.data.clone() });
    }
    let artifacts = options.tokenizer_artifacts.as_deref().map(artifacts_file);
    // The weights do not know a tokenizer that would be built now.
    let is_named = artifacts.as_deref().is_some_and(Path::exists) || matches!(options.tokenizer, Some(Kind::File(_)));
    if let Some(folder) = options.lacks_tokenizer.clone().filter(|_| !is_named) {
        let has_parts = folder.join("vocab.json").exists() || folder.join("tokenizer.model").exists();
        return Err(DataError::NoTokenizerOf { folder, has_parts });
    }
    load_or_build_tokenizer(options.tokenizer.as_ref(), corpus, artifacts, work, warnings)
}

pub(super) fn tokenizer_of_shards(options: &DataOptions) -> Result<Option<Tokenizer>, DataError> {
    match &options.tokenizer {
        Some(Kind::File(path)) => Tokenizer::load(path).map(Some),
        Some(kind) => Err(DataError::TokenizerForTokens { data: options.data.clone(), kind: kind.to_string() }),
        None => options.tokenizer_artifacts.as_deref().map(|path| Tokenizer::load(&artifacts_file(path))).transpose(),
    }
}

/// `--tokenizerArtifacts` names a file, or a folder with a `tokenizer.json`.
fn artifacts_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() }
}

/// Loads the tokenizer from `artifacts` if that file exists, else takes it from the cache or builds it, and writes it to
/// `artifacts`.
fn load_or_build_tokenizer(
    asked: Option<&Kind>,
    corpus: &Corpus,
    artifacts: Option<PathBuf>,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer, DataError> {
    if let Some(path) = artifacts.as_deref().filter(|path| path.exists()) {
        let tokenizer = Tokenizer::load(path)?;
        let (path, found) = (path.display(), tokenizer.vocab_size());
        match asked {
            Some(kind) if !tokenizer.matches(kind) => {
                warnings.push(format!("`{path}` is used, which is not what `--tokenizer={kind}` names"));
            }
            Some(kind @ Kind::Bpe { vocab }) if found < *vocab => {
                warnings.push(format!("`{path}` has {found} tokens, and `--tokenizer={kind}` asks for {vocab}"));
            }
            _ => {}
        }
        return Ok(tokenizer);
    }
    let kind = &asked.cloned().unwrap_or_default();
    let is_built = !matches!(kind, Kind::File(_));
    let hash = corpus.hash(work.progress)?;
    let key = cache::key(&[CACHE_VERSION, kind.to_string().as_bytes(), hash.as_bytes()]);
    let cached = is_built.then(|| work.cache.read(&key, "tokenizer")).flatten();
    let tokenizer = if let Some(tokenizer) = cached.and_then(|json| Tokenizer::from_json(json).ok()) {
        // The warning of the building still holds.
        if let Kind::Bpe { vocab } = kind {
            warnings.extend(tokenizer.shortfall(*vocab, corpus));
        }
        tokenizer
    } else {
        let (tokenizer, built_warnings) = Tokenizer::build(kind, corpus, work)?;
        warnings.extend(built_warnings);
        if is_built {
            warnings.extend(work.cache.write(&key, "tokenizer", tokenizer.json()).err().map(|error| error.to_string()));
        }
        tokenizer
    };
    if let Some(path) = artifacts {
        tokenizer.save(&path)?;
    }
    Ok(tokenizer)
}

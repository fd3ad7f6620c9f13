//! Encoding a corpus, with a cache of token files.

use std::{
    io::{BufWriter, Cursor},
    sync::Arc,
};

use super::{
    CACHE_VERSION,
    token_file::{self, TokenFile},
};
use crate::{
    Corpus, DataError, Tokenizer, Work,
    cache::{self, CacheError, WriteError},
    data_file::DataFile,
};

/// Without a cache, tokens of a text up to this size stay in memory.
const MEMORY_BYTES: u64 = 64 << 20;

/// The warnings for special tokens that are left out.
fn left_out(corpus: &Corpus, tokenizer: &Tokenizer) -> Vec<String> {
    let has_end = tokenizer.end_of_text().is_some();
    let mut warnings = Vec::new();
    if corpus.has_documents() && !has_end {
        warnings.push(format!(
            "the tokenizer has no end-of-text token, so the documents of `{}` follow each other without one",
            corpus.first_path().display()
        ));
    }
    if tokenizer.template_tokens() > 0 {
        let end = if has_end { "; a document ends with its end-of-text token" } else { "" };
        warnings.push(format!("the special tokens that the tokenizer's template puts around a text are left out{end}"));
    }
    warnings
}

/// The tokens of a text, from the cache or encoded now.
pub(super) fn encode_corpus(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<TokenFile, DataError> {
    warnings.extend(left_out(corpus, tokenizer));
    let hash = corpus.hash(work.progress)?;
    // The id that ends documents may come from files beside the `tokenizer.json`.
    let end = format!("{:?}", tokenizer.end_of_text());
    let key = cache::key(&[
        CACHE_VERSION,
        &token_file::VERSION.to_le_bytes(),
        tokenizer.json(),
        hash.as_bytes(),
        end.as_bytes(),
    ]);
    if let Some(path) = work.cache.path(&key, "tokens") {
        if let Some(file) = DataFile::open(&path).ok().and_then(token_file::open) {
            // The warnings of the encoding still hold.
            let old_warnings = work.cache.read(&key, "said").and_then(|text| String::from_utf8(text).ok());
            warnings.extend(old_warnings.iter().flat_map(|text| text.lines().map(str::to_owned)));
            return Ok(file);
        }
        let mut new_warnings = Vec::new();
        let written = cache::write_with(&path, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            token_file::write(&mut out, corpus, tokenizer, work, &mut new_warnings)
        });
        match written {
            Ok(()) => {
                if !new_warnings.is_empty() {
                    warnings.extend(
                        work.cache
                            .write(&key, "said", new_warnings.join("\n").as_bytes())
                            .err()
                            .map(|error| error.to_string()),
                    );
                }
                warnings.extend(new_warnings);
                if let Some(file) = DataFile::open(&path).ok().and_then(token_file::open) {
                    return Ok(file);
                }
                warnings.push(format!("the cache `{}` does not read back as written; it is not used", path.display()));
            }
            Err(WriteError::Data(error)) => return Err(error),
            Err(WriteError::Io(source)) => warnings.push(CacheError { path, source }.to_string()),
        }
    }
    encode_uncached(corpus, tokenizer, work, warnings)
}

fn encode_uncached(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<TokenFile, DataError> {
    let name = corpus.first_path().to_owned();
    if corpus.bytes() <= MEMORY_BYTES {
        let mut out = Cursor::new(Vec::new());
        token_file::write(&mut out, corpus, tokenizer, work, warnings).map_err(|error| error.at(&name))?;
        let file = DataFile::in_memory(name, out.into_inner());
        return Ok(token_file::open(file).expect("memory reads back as written"));
    }
    let (file, path) = cache::unnamed_file()?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    token_file::write(&mut out, corpus, tokenizer, work, warnings).map_err(|error| error.at(&path))?;
    drop(out);
    token_file::open(DataFile::shared(Arc::new(file), &name)?).ok_or_else(|| {
        DataError::io("read", &path, std::io::Error::other("the temporary file does not read back as written"))
    })
}

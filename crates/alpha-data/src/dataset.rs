//! From the data flags to what training reads: tokenizer, training and validation tokens.
//!
//! Text goes through two cached steps. The tokenizer is keyed by its kind and the text; the
//! tokens by the `tokenizer.json` and the text; both keys hash the content itself, so that a
//! cache never changes a result. Without a usable cache small token files stay in memory and
//! large ones go to an unnamed temporary file.

use std::{
    fs::{self, File},
    io::{BufWriter, Cursor},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Cache, Corpus, DataError, Kind, Source, TokenDtype, TokenStream, Tokenizer, cache,
    mapped::MappedFile,
    shard::Shard,
    split::split_position,
    token_file::{self, TokenFile, WriteError},
};

/// Largest text whose tokens stay in memory when no cache can be written.
const MEMORY_BYTES: u64 = 64 << 20;

/// Changes when the same text and kind no longer give the same tokenizer or tokens.
const CACHE_VERSION: &[u8] = b"alpha-data 1, tokenizers 0.23";

/// The flags that concern data.
#[derive(Clone, Debug, Default)]
pub struct DataOptions {
    /// `--data`: a file, a folder or a glob.
    pub data: String,
    /// `--valData`.
    pub val_data: Option<String>,
    /// `--tokenDtype`, for tokens without a header.
    pub token_dtype: Option<TokenDtype>,
    /// `--tokenizer`, if given; text without one gets [`Kind::default`].
    pub tokenizer: Option<Kind>,
    /// `--tokenizerArtifacts`: a `tokenizer.json` to load, or to write once built.
    pub tokenizer_artifacts: Option<PathBuf>,
    /// `--vocabSize`, for data that is tokens.
    pub vocab_size: Option<usize>,
    /// The vocabulary of `--init` or of a checkpoint; comes before every other.
    pub model_vocab: Option<usize>,
    /// `--block`, for the least sizes of a split.
    pub block: usize,
    /// `--packed`: without `val_data` nothing is split off.
    pub packed: bool,
}

/// Where the validation tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValSource {
    /// `--valData`.
    Given,
    /// The last tenth of the data.
    Split,
    /// The training tokens themselves (`--packed` alone): evaluate with [`crate::EvalLoader::packed`].
    Training,
}

/// Everything that training reads.
#[derive(Debug)]
pub struct Dataset {
    /// None for tokens that came without one.
    pub tokenizer: Option<Tokenizer>,
    /// Number of ids, by model, tokenizer, flag or format.
    pub vocab: usize,
    /// Tokens to train on.
    pub train: TokenStream,
    /// Tokens to validate on.
    pub val: TokenStream,
    /// What `val` is.
    pub val_source: ValSource,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// Finds, tokenizes and splits the data.
    pub fn open(options: &DataOptions, cache: &Cache) -> Result<Dataset, DataError> {
        let source = Source::resolve(&options.data, options.token_dtype)?;
        let mut warnings = Vec::new();
        let corpus = Corpus::open(&source)?;
        let tokenizer = match &corpus {
            Some(_) if options.vocab_size.is_some() => {
                return Err(DataError::VocabSizeForText { data: options.data.clone() });
            }
            Some(corpus) => {
                let kind = options.tokenizer.clone().unwrap_or_default();
                let artifacts = options.tokenizer_artifacts.as_deref();
                Some(load_or_build_tokenizer(&kind, corpus, artifacts, cache, &mut warnings)?)
            }
            None => tokenizer_of_shards(options)?,
        };
        let vocab_given = options.model_vocab.or(tokenizer.as_ref().map(Tokenizer::vocab_size)).or(options.vocab_size);
        let shards = if corpus.is_none() { open_shards(&source, options.token_dtype)? } else { Vec::new() };
        let format_vocab = || shards.first().and_then(|shard| shard.format_vocab());
        let vocab =
            vocab_given.or_else(format_vocab).ok_or_else(|| DataError::VocabUnknown { data: options.data.clone() })?;
        if let Some(tokenizer) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|size| *size > vocab) {
            return Err(DataError::TokenizerTooLarge { tokenizer, model: vocab });
        }
        let (stream, documents) = match (&corpus, &tokenizer) {
            (Some(corpus), Some(tokenizer)) => {
                let file = encode_corpus(corpus, tokenizer, cache, &mut warnings)?;
                (TokenStream::new(vec![file.shard.clone()], vocab), Some(file))
            }
            _ => (TokenStream::new(shards, vocab), None),
        };
        let (train, val, val_source) = match &options.val_data {
            Some(val_data) => {
                let val = open_stream(val_data, options.token_dtype, tokenizer.as_ref(), vocab, cache, &mut warnings)?;
                (stream, val, ValSource::Given)
            }
            None if options.packed => (stream.clone(), stream, ValSource::Training),
            None => {
                let position = split_position(&stream, documents.as_ref(), options.block)?;
                (stream.slice(0..position), stream.slice(position..stream.len()), ValSource::Split)
            }
        };
        Ok(Dataset { tokenizer, vocab, train, val, val_source, warnings })
    }
}

/// Tokens of `data`: text through `tokenizer`, shards as they are.
pub fn open_stream(
    data: &str,
    token_dtype: Option<TokenDtype>,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
    cache: &Cache,
    warnings: &mut Vec<String>,
) -> Result<TokenStream, DataError> {
    let source = Source::resolve(data, token_dtype)?;
    let shards = match Corpus::open(&source)? {
        None => open_shards(&source, token_dtype)?,
        Some(corpus) => {
            let tokenizer = tokenizer.ok_or_else(|| DataError::NoTokenizer { data: data.to_owned() })?;
            vec![encode_corpus(&corpus, tokenizer, cache, warnings)?.shard]
        }
    };
    Ok(TokenStream::new(shards, vocab))
}

fn open_shards(source: &Source, token_dtype: Option<TokenDtype>) -> Result<Vec<Arc<Shard>>, DataError> {
    let open = |path: &PathBuf| Ok(Arc::new(Shard::open(MappedFile::open(path)?, token_dtype)?));
    source.paths().iter().map(open).collect()
}

fn tokenizer_of_shards(options: &DataOptions) -> Result<Option<Tokenizer>, DataError> {
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

/// The tokenizer for a text: from `artifacts` if that file exists, else from the cache, else
/// built, cached, and written to `artifacts`.
pub fn load_or_build_tokenizer(
    kind: &Kind,
    corpus: &Corpus,
    artifacts: Option<&Path>,
    cache: &Cache,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer, DataError> {
    let artifacts = artifacts.map(artifacts_file);
    if let Some(path) = artifacts.as_deref().filter(|path| path.exists()) {
        return Tokenizer::load(path);
    }
    let is_built = !matches!(kind, Kind::File(_));
    let key = cache::key(&[CACHE_VERSION, kind.to_string().as_bytes(), corpus.hash().as_bytes()]);
    let cached = is_built.then(|| cache.read(&key, "tokenizer")).flatten();
    let tokenizer = if let Some(tokenizer) = cached.and_then(|json| Tokenizer::from_json(json).ok()) {
        // What was said when it was built is as true now.
        if let Kind::Bpe { vocab } = kind {
            warnings.extend(tokenizer.shortfall(*vocab, corpus));
        }
        tokenizer
    } else {
        let (tokenizer, built_warnings) = Tokenizer::build(kind, corpus)?;
        warnings.extend(built_warnings);
        if is_built {
            warnings.extend(cache.write(&key, "tokenizer", tokenizer.json()).err());
        }
        tokenizer
    };
    if let Some(path) = artifacts {
        tokenizer.save(&path)?;
    }
    Ok(tokenizer)
}

/// The tokens of a text, from the cache or encoded now.
pub(crate) fn encode_corpus(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    cache: &Cache,
    warnings: &mut Vec<String>,
) -> Result<TokenFile, DataError> {
    if corpus.has_documents() && tokenizer.end_of_text().is_none() {
        warnings.push(format!(
            "the tokenizer has no end-of-text token, so the documents of `{}` follow each other without one",
            corpus.first_path().display()
        ));
    }
    let key =
        cache::key(&[CACHE_VERSION, &token_file::VERSION.to_le_bytes(), tokenizer.json(), corpus.hash().as_bytes()]);
    if let Some(path) = cache.path(&key, "tokens") {
        if let Some(file) = MappedFile::open(&path).ok().and_then(token_file::open) {
            return Ok(file);
        }
        let written = cache::write_with(&path, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            token_file::write(&mut out, corpus, tokenizer)
        });
        match written {
            Ok(()) => {
                if let Some(file) = MappedFile::open(&path).ok().and_then(token_file::open) {
                    return Ok(file);
                }
                warnings.push(format!("the cache `{}` does not read back as written; it is not used", path.display()));
            }
            Err(WriteError::Data(error)) => return Err(error),
            Err(WriteError::Io(error)) => warnings.push(cache::unwritable(&path, &error)),
        }
    }
    encode_uncached(corpus, tokenizer)
}

fn encode_uncached(corpus: &Corpus, tokenizer: &Tokenizer) -> Result<TokenFile, DataError> {
    let name = corpus.first_path().to_owned();
    if corpus.bytes() <= MEMORY_BYTES {
        let mut out = Cursor::new(Vec::new());
        token_file::write(&mut out, corpus, tokenizer).map_err(|error| data_error(error, &name))?;
        let file = MappedFile::owned(name, out.into_inner());
        return Ok(token_file::open(file).expect("memory reads back as written"));
    }
    let path = std::env::temp_dir().join(format!("alpha-{}.tokens", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|source| DataError::io("write", &path, source))?;
    // The space goes back to the system when the process ends, however it ends.
    fs::remove_file(&path).map_err(|source| DataError::io("write", &path, source))?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    token_file::write(&mut out, corpus, tokenizer).map_err(|error| data_error(error, &path))?;
    drop(out);
    token_file::open(MappedFile::map(&file, &name)?).ok_or_else(|| {
        DataError::io("read", &path, std::io::Error::other("the temporary file does not read back as written"))
    })
}

fn data_error(error: WriteError, path: &Path) -> DataError {
    match error {
        WriteError::Data(error) => error,
        WriteError::Io(source) => DataError::io("write", path, source),
    }
}

//! From the data flags to what training reads: tokenizer, training and validation tokens.
//!
//! Text goes through two cached steps. The tokenizer is keyed by its kind and the text; the
//! tokens by the `tokenizer.json` and the text; both keys hash the content itself, so that a
//! cache never changes a result. Without a usable cache small token files stay in memory and
//! large ones go to an unnamed temporary file.

mod token_file;
mod split;

use std::{
    io::{BufWriter, Cursor},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use self::{split::split_position, token_file::TokenFile};
use crate::{
    Corpus, DataError, Kind, Source, TokenDtype, TokenStream, Tokenizer, Work,
    cache::{self, CacheError, WriteError},
    data_file::DataFile,
    source::SourceFile,
    stream::shard::{self, Shard},
};

/// Largest text whose tokens stay in memory when no cache can be written.
const MEMORY_BYTES: u64 = 64 << 20;

/// Changes when the same text and kind no longer give the same tokenizer or tokens.
const CACHE_VERSION: &[u8] = b"alpha-data 2, tokenizers 0.23";

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
    /// The folder of weights that came without the tokenizer which text is to be read with.
    pub lacks_tokenizer: Option<PathBuf>,
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

/// What data holds, whatever its files are called and wherever they lie: two that differ were, next to certainly, made of
/// other data. Of token shards beyond 64 MiB a sample of their bytes is compared, and their lengths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// Of `--data`.
    pub data: String,
    /// Of `--valData`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_data: Option<String>,
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
    /// What all of it is made of.
    pub identity: DataIdentity,
    /// Where it was found.
    pub files: Vec<PathBuf>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// Finds, tokenizes and splits the data.
    pub fn open(options: &DataOptions, work: &Work<'_>) -> Result<Dataset, DataError> {
        let mut warnings = Vec::new();
        let source = Source::resolve(&options.data, options.token_dtype, work, &mut warnings)?;
        let mut files = source.paths();
        let corpus = Corpus::open(&source)?;
        let tokenizer = match &corpus {
            Some(corpus) => Some(tokenizer_of_text(options, corpus, work, &mut warnings)?),
            None => tokenizer_of_shards(options)?,
        };
        let content = Content::open(corpus, &source, options.token_dtype)?;
        let vocab = vocab(options, tokenizer.as_ref(), &content)?;
        let reader = TokenReader { token_dtype: options.token_dtype, tokenizer: tokenizer.as_ref(), vocab };
        let all = reader.read(content, &options.data, work, &mut warnings)?;
        let mut identity = DataIdentity { data: all.identity, val_data: None };
        let (train, val, val_source) = match &options.val_data {
            Some(val_data) => {
                let source = Source::resolve(val_data, options.token_dtype, work, &mut warnings)?;
                files.extend(source.paths());
                let content = Content::open(Corpus::open(&source)?, &source, options.token_dtype)?;
                let val = reader.read(content, val_data, work, &mut warnings)?;
                identity.val_data = Some(val.identity);
                (all.stream, val.stream, ValSource::Given)
            }
            None if options.packed => (all.stream.clone(), all.stream, ValSource::Training),
            None => {
                let position = split_position(&all.stream, all.documents.as_ref(), options.block)?;
                let len = all.stream.len();
                warnings.extend(uneven_split(position, len));
                (all.stream.slice(0..position), all.stream.slice(position..len), ValSource::Split)
            }
        };
        Ok(Dataset { tokenizer, vocab, train, val, val_source, identity, files, warnings })
    }
}

/// Number of ids: by model, flag, tokenizer or format.
fn vocab(options: &DataOptions, tokenizer: Option<&Tokenizer>, content: &Content) -> Result<usize, DataError> {
    let size = tokenizer.map(Tokenizer::vocab_size);
    let given = options.model_vocab.or(options.vocab_size).or(size);
    let vocab = given
        .or_else(|| content.format_vocab())
        .ok_or_else(|| DataError::VocabUnknown { data: options.data.clone() })?;
    match size {
        Some(tokenizer) if tokenizer > vocab => Err(DataError::TokenizerTooLarge { tokenizer, model: vocab }),
        _ => Ok(vocab),
    }
}

/// The warning for documents so uneven that a tenth of them is far from a tenth of the text.
fn uneven_split(train_tokens: u64, tokens: u64) -> Option<String> {
    let val_tokens = tokens - train_tokens;
    let share = val_tokens as f64 / tokens as f64;
    (!(0.02..=0.3).contains(&share)).then(|| {
        format!(
            "the last tenth of the documents, which validates, has {val_tokens} of {tokens} tokens: documents differ much in \
             length; `--valData` chooses what validates"
        )
    })
}

/// How data is read as tokens: text through the tokenizer, shards as they are.
#[derive(Clone, Copy, Debug)]
pub struct TokenReader<'a> {
    /// The type of tokens without a header.
    pub token_dtype: Option<TokenDtype>,
    /// What text needs.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Number of ids.
    pub vocab: usize,
}

impl TokenReader<'_> {
    /// Finds `data` and reads it.
    pub fn open(&self, data: &str, work: &Work<'_>, warnings: &mut Vec<String>) -> Result<TokenStream, DataError> {
        let source = Source::resolve(data, self.token_dtype, work, warnings)?;
        let content = Content::open(Corpus::open(&source)?, &source, self.token_dtype)?;
        Ok(self.read(content, data, work, warnings)?.stream)
    }

    /// Reads content, which the user calls `data`.
    fn read(
        &self,
        content: Content,
        data: &str,
        work: &Work<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Tokens, DataError> {
        let (shards, documents, identity) = match content {
            Content::Shards(shards) => {
                let identity = shard::identity(&shards)?;
                (shards, None, identity)
            }
            Content::Text(corpus) => {
                let tokenizer = self.tokenizer.ok_or_else(|| DataError::NoTokenizer { data: data.to_owned() })?;
                if tokenizer.vocab_size() > self.vocab {
                    let (tokenizer, model) = (tokenizer.vocab_size(), self.vocab);
                    return Err(DataError::TokenizerTooLarge { tokenizer, model });
                }
                let file = encode_corpus(&corpus, tokenizer, work, warnings)?;
                (vec![file.shard.clone()], Some(file), corpus.hash(work.progress)?)
            }
        };
        Ok(Tokens { stream: TokenStream::new(shards, self.vocab), documents, identity: identity.to_string() })
    }
}

/// Tokens that were read.
struct Tokens {
    stream: TokenStream,
    /// Where documents start, of text.
    documents: Option<TokenFile>,
    /// What the content is, whatever it is called.
    identity: String,
}

/// What a source holds.
enum Content {
    Text(Corpus),
    Shards(Vec<Arc<Shard>>),
}

impl Content {
    /// The corpus of a source, or its shards where it has none.
    fn open(corpus: Option<Corpus>, source: &Source, token_dtype: Option<TokenDtype>) -> Result<Content, DataError> {
        if let Some(corpus) = corpus {
            return Ok(Content::Text(corpus));
        }
        let open = |file: &SourceFile| Ok(Arc::new(Shard::open(file.open()?, token_dtype)?));
        source.files().iter().map(open).collect::<Result<_, _>>().map(Content::Shards)
    }

    /// The vocabulary that the format of the shards implies.
    fn format_vocab(&self) -> Option<usize> {
        match self {
            Content::Text(_) => None,
            Content::Shards(shards) => shards.first()?.format_vocab(),
        }
    }
}

/// The tokenizer for text.
fn tokenizer_of_text(
    options: &DataOptions,
    corpus: &Corpus,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer, DataError> {
    if options.vocab_size.is_some() {
        return Err(DataError::VocabSizeForText { data: options.data.clone() });
    }
    let artifacts = options.tokenizer_artifacts.as_deref().map(artifacts_file);
    // A tokenizer that would be built now is not the one that the weights know.
    let is_named = artifacts.as_deref().is_some_and(Path::exists) || matches!(options.tokenizer, Some(Kind::File(_)));
    if let Some(folder) = options.lacks_tokenizer.clone().filter(|_| !is_named) {
        let has_parts = folder.join("vocab.json").exists() || folder.join("tokenizer.model").exists();
        return Err(DataError::NoTokenizerOf { folder, has_parts });
    }
    load_or_build_tokenizer(options.tokenizer.as_ref(), corpus, artifacts, work, warnings)
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
fn load_or_build_tokenizer(
    asked: Option<&Kind>,
    corpus: &Corpus,
    artifacts: Option<PathBuf>,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<Tokenizer, DataError> {
    if let Some(path) = artifacts.as_deref().filter(|path| path.exists()) {
        let tokenizer = Tokenizer::load(path)?;
        if let Some(kind) = asked.filter(|kind| !tokenizer.is_of(kind)) {
            warnings.push(format!("`{}` is used, which is not what `--tokenizer={kind}` names", path.display()));
        }
        return Ok(tokenizer);
    }
    let kind = &asked.cloned().unwrap_or_default();
    let is_built = !matches!(kind, Kind::File(_));
    let hash = corpus.hash(work.progress)?;
    let key = cache::key(&[CACHE_VERSION, kind.to_string().as_bytes(), hash.as_bytes()]);
    let cached = is_built.then(|| work.cache.read(&key, "tokenizer")).flatten();
    let tokenizer = if let Some(tokenizer) = cached.and_then(|json| Tokenizer::from_json(json).ok()) {
        // What was said when it was built is as true now.
        if let Kind::Bpe { vocab } = kind {
            warnings.extend(tokenizer.shortfall(*vocab, corpus));
        }
        tokenizer
    } else {
        let (tokenizer, built_warnings) = Tokenizer::build(kind, corpus, work)?;
        warnings.extend(built_warnings);
        if is_built {
            warnings.extend(unwritten(work.cache.write(&key, "tokenizer", tokenizer.json())));
        }
        tokenizer
    };
    if let Some(path) = artifacts {
        tokenizer.save(&path)?;
    }
    Ok(tokenizer)
}

/// The warnings for tokens that are not in what is encoded.
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
        let end = if has_end { "; a document ends in its end-of-text token" } else { "" };
        warnings.push(format!("the special tokens that the tokenizer's template puts around a text are left out{end}"));
    }
    warnings
}

/// The tokens of a text, from the cache or encoded now.
fn encode_corpus(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    work: &Work<'_>,
    warnings: &mut Vec<String>,
) -> Result<TokenFile, DataError> {
    warnings.extend(left_out(corpus, tokenizer));
    let hash = corpus.hash(work.progress)?;
    // The id that ends documents stands in the file where it has a usual name, and beside it where it has not.
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
            // What was said when it was encoded is as true now.
            let said = work.cache.read(&key, "said").and_then(|text| String::from_utf8(text).ok());
            warnings.extend(said.iter().flat_map(|text| text.lines().map(str::to_owned)));
            return Ok(file);
        }
        let mut said = Vec::new();
        let written = cache::write_with(&path, |file| {
            let mut out = BufWriter::with_capacity(1 << 20, file);
            token_file::write(&mut out, corpus, tokenizer, work, &mut said)
        });
        match written {
            Ok(()) => {
                if !said.is_empty() {
                    warnings.extend(unwritten(work.cache.write(&key, "said", said.join("\n").as_bytes())));
                }
                warnings.extend(said);
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
        let file = DataFile::owned(name, out.into_inner());
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

/// The warning for a cache that was not written.
fn unwritten(written: Result<(), CacheError>) -> Option<String> {
    written.err().map(|error| error.to_string())
}

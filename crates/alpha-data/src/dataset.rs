//! From the data flags to a tokenizer, training tokens and validation tokens.
//!
//! Text goes through two cached steps. The key of a tokenizer is a hash of its kind and the text, the key of tokens a hash of
//! the `tokenizer.json` and the text, so that a cache never changes a result. Without a usable cache, small token files stay in
//! memory and large ones go to a temporary file without a name.

mod token_file;
mod split;
mod encode;
mod token_reader;
mod choose_tokenizer;

pub use self::token_reader::TokenReader;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::{
    choose_tokenizer::{tokenizer_of_shards, tokenizer_of_text},
    split::{split_position, uneven_split},
    token_reader::Content,
};
use crate::{Corpus, DataError, Kind, Source, TokenDtype, TokenStream, Tokenizer, Work};

/// Changes when the same text and kind would give another tokenizer or other tokens.
const CACHE_VERSION: &[u8] = b"alpha-data 2, tokenizers 0.23";

/// The flags about data.
#[derive(Clone, Debug, Default)]
pub struct DataOptions {
    /// `--data`: a file, a folder or a glob.
    pub data: String,
    /// `--valData`.
    pub val_data: Option<String>,
    /// `--tokenDtype`, for tokens without a header.
    pub token_dtype: Option<TokenDtype>,
    /// `--tokenizer`, if given; the default for text is [`Kind::default`].
    pub tokenizer: Option<Kind>,
    /// `--tokenizerArtifacts`: a `tokenizer.json` to load, or to write after building.
    pub tokenizer_artifacts: Option<PathBuf>,
    /// `--vocabSize`, for data that is tokens.
    pub vocab_size: Option<usize>,
    /// The vocabulary of `--init` or of a checkpoint; overrides every other.
    pub model_vocab: Option<usize>,
    /// The folder of weights that lack the tokenizer with which text must be read.
    pub lacks_tokenizer: Option<PathBuf>,
    /// `--block`; a split needs at least one block on each side.
    pub block: usize,
    /// `--packed`: without `val_data`, nothing is split off.
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

/// Identifies the content of data, independently of the names and places of its files. Of a token shard larger than 64 MiB,
/// only the length and a sample of the bytes count.
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
    /// None for tokens that came without a tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// Number of ids, from the model, the flag, the tokenizer or the format.
    pub vocab: usize,
    /// Tokens to train on.
    pub train: TokenStream,
    /// Tokens to validate on.
    pub val: TokenStream,
    /// Where `val` comes from.
    pub val_source: ValSource,
    /// Identifies the content of all data.
    pub identity: DataIdentity,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// Warnings for the user.
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

/// Number of ids, from the model, the flag, the tokenizer or the format.
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

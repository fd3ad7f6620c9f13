//! From a source to its tokens.

use std::sync::Arc;

use super::{encode::encode_corpus, token_file::TokenFile};
use crate::{
    Corpus, DataError, Source, TokenDtype, TokenStream, Tokenizer, Work,
    source::SourceFile,
    stream::shard::{self, Shard},
};

/// How data is read as tokens: text through the tokenizer, shards as they are.
#[derive(Clone, Copy, Debug)]
pub struct TokenReader<'a> {
    /// The type of headerless tokens.
    pub token_dtype: Option<TokenDtype>,
    /// The tokenizer for text.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Number of ids.
    pub vocab: usize,
}

impl TokenReader<'_> {
    /// Finds and reads `data`.
    pub fn open(&self, data: &str, work: &Work<'_>, warnings: &mut Vec<String>) -> Result<TokenStream, DataError> {
        let source = Source::resolve(data, self.token_dtype, work, warnings)?;
        let content = Content::open(Corpus::open(&source)?, &source, self.token_dtype)?;
        Ok(self.read(content, data, work, warnings)?.stream)
    }

    /// Reads content that the user calls `data`.
    pub(super) fn read(
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
pub(super) struct Tokens {
    pub(super) stream: TokenStream,
    /// For text: where documents start.
    pub(super) documents: Option<TokenFile>,
    /// Identifies the content, independently of its name.
    pub(super) identity: String,
}

/// The content of a source.
pub(super) enum Content {
    Text(Corpus),
    Shards(Vec<Arc<Shard>>),
}

impl Content {
    /// The corpus of a source or, if it has none, its shards.
    pub(super) fn open(
        corpus: Option<Corpus>,
        source: &Source,
        token_dtype: Option<TokenDtype>,
    ) -> Result<Content, DataError> {
        if let Some(corpus) = corpus {
            return Ok(Content::Text(corpus));
        }
        let open = |file: &SourceFile| Ok(Arc::new(Shard::open(file.open()?, token_dtype)?));
        source.files().iter().map(open).collect::<Result<_, _>>().map(Content::Shards)
    }

    /// The vocabulary that the format of the shards implies.
    pub(super) fn format_vocab(&self) -> Option<usize> {
        match self {
            Content::Text(_) => None,
            Content::Shards(shards) => shards.first()?.format_vocab(),
        }
    }
}

//! Everything between bytes on disk and batches of tokens.
//!
//! ```text
//! --data ─► Source ─► Corpus (text, jsonl) ─► Tokenizer ─► token file ─┐
//!              └────► shards (llm.c, headerless) ──────────────────────┴─► TokenStream ─► split ─► loaders
//! ```
//! [`Dataset::open`] walks that whole way. Nothing here prints: what a user should read comes
//! back as an error or in a list of warnings.

mod error;
mod work;
mod data_file;
mod npy;
mod shard;
mod jsonl;
mod cache;
mod unpack;
mod format;
mod python_json;
mod listing;
mod source;
pub mod tokenizer;
mod cut;
mod corpus;
mod token_file;
mod split;
mod dataset;
mod stream;
pub mod loader;
pub mod datagen;

pub use self::{
    cache::{Cache, CacheError},
    corpus::Corpus,
    dataset::{DataIdentity, DataOptions, Dataset, TokenReader, ValSource},
    error::{DataError, TokenizerFault},
    format::LFS_POINTER,
    listing::is_there,
    loader::{BatchShape, DataHash, EvalLoader, TrainLoader, Windows},
    python_json::python_json,
    shard::TokenDtype,
    source::Source,
    stream::TokenStream,
    tokenizer::{Kind, Tokenizer},
    work::{Progress, Silent, Work},
};

//! Everything between bytes on disk and batches of tokens.
//!
//! ```text
//! --data ─► Source ─► Corpus (text, jsonl) ─► Tokenizer ─► token file ─┐
//!              └────► shards (llm.c, headerless) ──────────────────────┴─► TokenStream ─► split ─► loaders
//! ```
//! [`Dataset::open`] goes all the way. Nothing here prints: errors and warnings are returned.

mod error;
mod cache;
mod work;
mod data_file;
mod stream;
mod source;
mod corpus;
mod tokenizer;
mod dataset;
mod loader;
pub mod datagen;

pub use self::{
    cache::{Cache, CacheError},
    corpus::Corpus,
    dataset::{DataIdentity, DataOptions, Dataset, TokenReader, ValSource},
    error::{DataError, TokenizerFault},
    loader::{BatchShape, DataHash, EvalLoader, TrainLoader, Windows},
    source::{LFS_POINTER, Source, is_there},
    stream::{TokenDtype, TokenStream},
    tokenizer::{Kind, Tokenizer, python_json},
    work::{Progress, Silent, Work},
};

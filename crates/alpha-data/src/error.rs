//! Errors about data.
//!
//! [`DataError::is_usage`] separates errors that the command line alone shows from errors that only opening a file shows.
//! The message says what was found and what was expected, the help of [`miette::Diagnostic`] what to do next.

use std::{io, path::PathBuf};

/// Every error of this crate.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DataError {
    /// A tokenizer name that does not exist.
    #[error("unknown tokenizer `{name}`")]
    #[diagnostic(help(
        "use `char`, `byte`, `word`, `bpe`, `bpe-4k`, `bpe-8k`, `bpe-16k`, `bpe-32k`, `bpe-64k` or the path of a `tokenizer.json`"
    ))]
    UnknownTokenizer {
        /// The name that was given.
        name: String,
    },
    /// A BPE vocabulary that has no room for the bytes themselves.
    #[error("a vocabulary of `{vocab}` is too small for byte-level BPE, which starts from {min} tokens")]
    #[diagnostic(help("ask for at least {min}, or use the `byte` or `char` tokenizer"))]
    VocabTooSmall {
        /// The requested number of ids.
        vocab: usize,
        /// The number of bytes, plus one for the end-of-text token.
        min: usize,
    },
    /// A glob that does not parse.
    #[error("`{pattern}` is not a glob: {why}")]
    #[diagnostic(help("use a file, a folder or a pattern like `data/*.txt`"))]
    BadGlob {
        /// The pattern.
        pattern: String,
        /// The parser's reason.
        why: String,
    },
    /// A tokenizer cannot be built from data that is tokens already.
    #[error("`{data}` holds tokens, so no `{kind}` tokenizer can be built from it")]
    #[diagnostic(help("leave `--tokenizer` out, or give the `tokenizer.json` that made the tokens"))]
    TokenizerForTokens {
        /// The data.
        data: String,
        /// The tokenizer asked for.
        kind: String,
    },
    /// `--vocabSize` together with text.
    #[error("`--vocabSize` is for data that is tokens already, and `{data}` is text")]
    #[diagnostic(help("leave it out; the tokenizer decides, for instance `--tokenizer=bpe-4k`"))]
    VocabSizeForText {
        /// The data.
        data: String,
    },
    /// Headerless tokens without a vocabulary size.
    #[error("the vocabulary of `{data}` is unknown: its tokens do not say, and no tokenizer is given")]
    #[diagnostic(help("add `--vocabSize=N`"))]
    VocabUnknown {
        /// The data.
        data: String,
    },
    /// A batch or a block of zero.
    #[error("`{name}` is 0, expected at least 1")]
    ZeroSize {
        /// Which size.
        name: &'static str,
    },

    /// Nothing at that path.
    #[error("`{}` does not exist", path.display())]
    #[diagnostic(help("check the path; text, jsonl and token shards are read, as a file, a folder or a glob"))]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A glob or a folder without files.
    #[error("`{pattern}` matches no file{}", note.as_ref().map_or(String::new(), |note| format!("; {note}")))]
    #[diagnostic(help("folders are not searched recursively; a glob can do that: `dir/**/*.txt`"))]
    NoFiles {
        /// The pattern or folder.
        pattern: String,
        /// What was left out.
        note: Option<String>,
    },
    /// A pipe, a device, a socket.
    #[error("`{}` is not a regular file, and data is read more than once", path.display())]
    #[diagnostic(help("write it to a file first: `cat '{}' > data.txt`", path.display()))]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// A format that is known but not read.
    #[error("`{}` is {what}", path.display())]
    #[diagnostic(help("{hint}"))]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        what: String,
        /// How to convert it.
        hint: String,
    },
    /// A gzip or zstd file that does not unpack.
    #[error("`{}` does not unpack: {why}", path.display())]
    #[diagnostic(help("it was cut off or is damaged; copy it again"))]
    BrokenCompression {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        why: String,
    },
    /// A file that became shorter while it was read.
    #[error("`{}` was cut short while it was being read: it has {held} bytes, and had {expected} when the run began", path.display())]
    #[diagnostic(help(
        "restore \
         it, then go on with `--resume`; write new data beside old data, not over it"
    ))]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Bytes it has, as far as reading showed.
        held: u64,
        /// Bytes it had.
        expected: u64,
    },
    /// A file that changed while it was read.
    #[error("`{}` changed while it was being read", path.display())]
    #[diagnostic(help("start the run again once nothing writes to it"))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write` …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
        /// About limits and permissions.
        #[help]
        hint: Option<&'static str>,
    },
    /// A file of zero bytes.
    #[error("`{}` is empty", path.display())]
    #[diagnostic(help("give a file with text or tokens in it"))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Text that is not UTF-8.
    #[error("`{}` is not UTF-8: bad byte at offset {offset}", path.display())]
    #[diagnostic(help(
        "convert it (for instance with `iconv -t utf-8`); for headerless token shards add `--tokenDtype=u16`"
    ))]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// First bad byte, counted from 0.
        offset: u64,
    },
    /// A line that is not `{"text": …}`.
    #[error("`{}` line {line} is not an object with a string `text`: {source}{}", path.display(), about_surrogates(source))]
    #[diagnostic(help("each line must be one JSON object like {{\"text\": \"…\"}}"))]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A line of jsonl that is too long for memory.
    #[error("`{}` line {line} is longer than {max_bytes} bytes", path.display())]
    #[diagnostic(help("split the document, or give the text as a text file"))]
    LongLine {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// The limit.
        max_bytes: usize,
    },
    /// Files of different kinds in one source.
    #[error("`{}` is {first_kind}, but `{}` is {other_kind}", first.display(), other.display())]
    #[diagnostic(help("choose one kind with a glob, for instance `--data='dir/*.txt'`"))]
    MixedKinds {
        /// First file.
        first: PathBuf,
        /// Its kind.
        first_kind: &'static str,
        /// A file of another kind.
        other: PathBuf,
        /// Its kind.
        other_kind: &'static str,
    },
    /// A `.bin` file without a header and without `--tokenDtype`.
    #[error("`{}` has no llm.c header", path.display())]
    #[diagnostic(help("for headerless tokens say what they are: `--tokenDtype=u16` or `--tokenDtype=u32`"))]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// A shard whose header is cut off or has another version.
    #[error("`{}` has a broken shard header: {why}", path.display())]
    #[diagnostic(help("write the shard again"))]
    ShardHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A shard whose length is not what its header says.
    #[error("`{}` says {declared} tokens, but holds {held}", path.display())]
    #[diagnostic(help("it was cut off or is still being written; copy it again"))]
    ShardLength {
        /// The file.
        path: PathBuf,
        /// Header's count.
        declared: u64,
        /// Tokens in the file.
        held: u64,
    },
    /// Headerless bytes that are not a whole number of tokens.
    #[error("`{}` has {bytes} bytes, which is not a whole number of {dtype} tokens", path.display())]
    #[diagnostic(help("check `--tokenDtype`, or copy the file again"))]
    ShardBytes {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// `u16` or `u32`.
        dtype: &'static str,
    },
    /// Headerless tokens that are wider than `--tokenDtype=u16` says.
    #[error("`{}` holds tokens of more than two bytes: read as u16, every second one is almost zero", path.display())]
    #[diagnostic(help("\
         use `--tokenDtype=u32`; convert tokens of eight bytes (numpy's int64) first: \
         `python3 -c \"import numpy as n; n.fromfile('{}', 'int64').astype('uint32').tofile('tokens.bin')\"`", path.display()))]
    WiderTokens {
        /// The file.
        path: PathBuf,
    },
    /// `--tokenDtype` contradicts the header.
    #[error("`{}` holds {found} tokens by its header, but `--tokenDtype` says {given}", path.display())]
    #[diagnostic(help("leave `--tokenDtype` out for shards with a header"))]
    ShardDtype {
        /// The file.
        path: PathBuf,
        /// According to the header.
        found: &'static str,
        /// According to the flag.
        given: &'static str,
    },
    /// A token id outside the vocabulary.
    #[error("`{}` has token {token} at index {index}, outside the vocabulary of {vocab}", path.display())]
    #[diagnostic(help("check `--vocabSize` and `--tokenDtype`, or use the tokenizer that made these tokens"))]
    TokenOutOfRange {
        /// The file.
        path: PathBuf,
        /// The id.
        token: u32,
        /// Its position in the file, in tokens, from 0.
        index: u64,
        /// Number of ids.
        vocab: usize,
    },
    /// Too few tokens.
    #[error("{what} has {tokens} tokens, needs at least {needed}")]
    #[diagnostic(help("{hint}"))]
    TooShort {
        /// Which part of the data.
        what: &'static str,
        /// Tokens that it has.
        tokens: u64,
        /// Tokens that it needs.
        needed: u64,
        /// What to change.
        hint: &'static str,
    },
    /// Text that is not in a closed vocabulary.
    #[error("{}{} at byte {offset}: `{}` is not in the tokenizer's vocabulary", path.as_ref().map_or("the text".to_string(), |path| format!("`{}`", path.display())), line.map_or(String::new(), |line| format!(" line {line}, its text")), token.escape_debug())]
    #[diagnostic(help("build the tokenizer from text that has it, or use `byte` or `bpe`, which encode any text"))]
    NotInVocabulary {
        /// The character or word.
        token: String,
        /// Where it starts, in bytes (for jsonl: in the document).
        offset: u64,
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// Line of a jsonl file, counted from 1.
        line: Option<u64>,
    },
    /// A `tokenizer.json` that does not load.
    #[error("`{}` is not a usable tokenizer.json: {why}", path.display())]
    #[diagnostic(help("write it again with `alpha tokenizer build`, or use another"))]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: TokenizerFault,
    },
    /// A model's file beside its tokenizer that is not JSON.
    #[error("`{}` is not valid JSON: {why}", path.display())]
    #[diagnostic(help(
        "it may say which token ends a text: correct it, or keep `tokenizer.json` in \
         a folder of its own"
    ))]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    #[diagnostic(help("try another `--tokenizer`"))]
    Tokenizer(#[from] TokenizerFault),
    /// Text for a model without a tokenizer.
    #[error("`{data}` is text, and there is no tokenizer to read it with")]
    #[diagnostic(help("give token shards, as the model was trained on, or a `tokenizer.json`"))]
    NoTokenizer {
        /// The data.
        data: String,
    },
    /// Text for weights that lack their tokenizer.
    #[error("`{}` has no `tokenizer.json`, and its weights know the ids of only one tokenizer", folder.display())]
    #[diagnostic(help("put it there{}, or name it \
         with `--tokenizer=FILE`", if *has_parts { format!(
            ": `python3 -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{0}').save_pretrained('{0}')\"` makes it \
             from the files there", folder.display()) } else { String::new() }))]
    NoTokenizerOf {
        /// The folder of the weights.
        folder: PathBuf,
        /// Whether it has the tokenizer in another format.
        has_parts: bool,
    },
    /// A tokenizer with more tokens than the model.
    #[error("the tokenizer has {tokenizer} tokens, the model only {model}")]
    #[diagnostic(help("use the tokenizer that the model was trained with"))]
    TokenizerTooLarge {
        /// Tokenizer's vocabulary.
        tokenizer: usize,
        /// Model's vocabulary.
        model: usize,
    },
}

/// What is wrong with a tokenizer. The message is a clause.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerFault {
    /// A file that Git LFS has not fetched.
    #[error("it is a Git LFS pointer in place of the file: `git lfs pull` fetches it")]
    LfsPointer,
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The `tokenizers` library returned an error.
    #[error(transparent)]
    Library(#[from] tokenizers::Error),
    /// The `tokenizers` library panicked.
    #[error("the `tokenizers` library gives up on it")]
    Panic,
    /// No tokens.
    #[error("its vocabulary is empty")]
    EmptyVocabulary,
    /// Random encoding.
    #[error(
        "its model has `dropout` {dropout}, so that the same text gives other tokens each time; set it to null, as for \
         everything but training with subword regularisation"
    )]
    Dropout {
        /// The fraction of merges that are left out.
        dropout: f64,
    },
    /// Two tokens with one id.
    #[error("its tokens `{}` and `{}` have the same id {id}", tokens[0].escape_debug(), tokens[1].escape_debug())]
    SameId {
        /// The tokens, sorted.
        tokens: [String; 2],
        /// Their id.
        id: u32,
    },
    /// An added token whose id the library changes.
    #[error(
        "its added token `{}` has id {id}, and `tokenizers` gives it {}; weights that were trained with the one do not fit the \
         other: number added tokens without gaps after the model's",
        token.escape_debug(),
        given.map_or("none".to_owned(), |given| given.to_string())
    )]
    AddedId {
        /// The token.
        token: String,
        /// Its id in the file.
        id: u64,
        /// Its id in the library.
        given: Option<u32>,
    },
    /// Added tokens that normalization makes the same.
    #[error(
        "its added tokens `{}` and `{}` are the same text once they are normalized; which of them a text means would differ \
         from start to start",
        tokens[0].escape_debug(), tokens[1].escape_debug()
    )]
    SameText {
        /// The tokens, in the order of the file.
        tokens: [String; 2],
    },
    /// A token that crosses the boundary of two pieces of a text.
    #[error("it joins `{}` to the text that follows, so that a long text cannot be read in pieces", context.escape_debug())]
    Joins {
        /// The end of the piece before the boundary.
        context: String,
    },
}

/// Adds to the parser's reason what it does not say about surrogates.
fn about_surrogates(error: &serde_json::Error) -> &'static str {
    let why = error.to_string();
    if why.contains("surrogate") || why.contains("hex escape") {
        "; half of a surrogate pair is not a character"
    } else {
        ""
    }
}

/// The hint for errors about limits and permissions.
fn limit_hint(error: &io::Error) -> Option<&'static str> {
    const TOO_MANY_OPEN_FILES: i32 = 24;
    match (error.raw_os_error(), error.kind()) {
        (Some(TOO_MANY_OPEN_FILES), _) => {
            Some("a process may have more files open after `ulimit -n 65536`; or join shards")
        }
        (_, io::ErrorKind::PermissionDenied) => Some("check who may read it: `ls -l`"),
        _ => None,
    }
}

impl DataError {
    /// True if the command line alone is wrong (exit code 2); false if a file is wrong (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            DataError::UnknownTokenizer { .. }
                | DataError::VocabTooSmall { .. }
                | DataError::BadGlob { .. }
                | DataError::TokenizerForTokens { .. }
                | DataError::VocabSizeForText { .. }
                | DataError::VocabUnknown { .. }
                | DataError::ZeroSize { .. }
        )
    }

    pub(crate) fn io(doing: &'static str, path: &std::path::Path, source: io::Error) -> DataError {
        if doing == "read" && source.kind() == io::ErrorKind::NotFound {
            return DataError::Missing { path: path.to_owned() };
        }
        let hint = limit_hint(&source);
        DataError::Io { doing, path: path.to_owned(), source, hint }
    }
}

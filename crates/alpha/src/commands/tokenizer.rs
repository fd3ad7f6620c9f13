//! `alpha tokenizer build`: a `tokenizer.json` from text.

use std::path::PathBuf;

use alpha_data::{Cache, Corpus, Kind, Source, Tokenizer, Work};
use clap::{Args, Subcommand};

use crate::{
    exit::Failure,
    flags::value::{named, path, size},
    output,
    progress::Progress,
};

/// The commands of `alpha tokenizer`.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Build a tokenizer from text and save it as a `tokenizer.json`
    Build(BuildFlags),
}

/// Names that `--type` takes.
const KINDS: &[&str] = &["char", "byte", "word", "bpe", "bpe-4k", "bpe-8k", "bpe-16k", "bpe-32k", "bpe-64k"];

/// Largest vocabulary that is built.
const MAX_VOCAB: usize = 1 << 24;

/// The flags of `alpha tokenizer build`.
#[derive(Args, Clone, Debug)]
#[command(rename_all = "camelCase")]
pub(crate) struct BuildFlags {
    /// Kind of tokenizer; bpe is byte-level
    #[arg(long = "type", value_name = "KIND", value_parser = named::<String>(KINDS), default_value = "bpe")]
    pub(crate) kind: String,
    /// Text or jsonl: a file, a folder or a glob
    #[arg(long, value_name = "PATH")]
    pub(crate) input: String,
    /// Vocabulary, for `--type=bpe` [default: 2000]
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) vocab_size: Option<usize>,
    /// The file to write
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub(crate) out: PathBuf,
}

/// Checks the flags and builds.
pub(crate) fn run(action: &Action) -> Result<(), Failure> {
    let Action::Build(flags) = action;
    if flags.input.is_empty() {
        return Err(Failure::usage("`--input` is empty").hint("name a file, a folder or a glob"));
    }
    if let Some(vocab) = flags.vocab_size.filter(|_| flags.kind != "bpe") {
        return Err(Failure::usage(format!("`--vocabSize={vocab}` with `--type={}`", flags.kind))
            .hint("only `--type=bpe` takes a size; the other kinds have their own"));
    }
    if let Some(vocab) = flags.vocab_size.filter(|&vocab| vocab > MAX_VOCAB) {
        return Err(Failure::usage(format!("`--vocabSize={vocab}` is too large")).hint(format!("at most {MAX_VOCAB}")));
    }
    let kind = match flags.vocab_size {
        Some(vocab) => Kind::Bpe { vocab },
        None => flags.kind.parse()?,
    };
    // A mistyped path must not cost a file.
    if flags.out.metadata().is_ok_and(|found| found.is_file() && found.len() > 0)
        && Tokenizer::load(&flags.out).is_err()
    {
        return Err(Failure::failed(format!("`{}` exists and is not a tokenizer", flags.out.display()))
            .hint("give another `--out`, or delete the file"));
    }
    let cache = Cache::from_environment();
    let progress = Progress::new(0);
    progress.watch();
    let work = Work { cache: &cache, progress: &progress, ..Work::default() };
    let mut warnings = Vec::new();
    let corpus = Corpus::open(&Source::resolve(&flags.input, None, &work, &mut warnings)?)?.ok_or_else(|| {
        Failure::failed(format!("`{}` holds tokens, not text", flags.input)).hint("`--input` takes text or jsonl")
    })?;
    let (tokenizer, of_building) = Tokenizer::build(&kind, &corpus, &work)?;
    progress.finish();
    warnings.extend(of_building);
    for warning in warnings {
        output::note(&format!("warning: {warning}"));
    }
    tokenizer.save(&flags.out)?;
    output::note(&format!("`{}`: {} tokens", flags.out.display(), tokenizer.vocab_size()));
    Ok(())
}

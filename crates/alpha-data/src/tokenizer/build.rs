//! Building a tokenizer from text.
//!
//! The `tokenizer.json` of `char`, `byte` and `word` is written directly. The `tokenizers` crate trains BPE on at most 256 MiB of
//! text (evenly spaced pieces of larger data); pairs that occur only once are not merged. The same text always gives the same
//! bytes, with any number of threads.

use std::collections::{BTreeSet, HashMap};

use tokenizers::{
    AddedToken, TokenizerImpl,
    models::bpe::{BPE, BpeTrainer},
    normalizers::NormalizerWrapper,
    pre_tokenizers::byte_level::ByteLevel,
    utils::parallelism,
};

use super::{END_OF_TEXT, Kind, Tokenizer, pattern, scheme};
use crate::{Corpus, DataError, TokenizerFault, Work, corpus::char_start};

/// BPE is trained on at most this much text.
const BPE_TRAINING_BYTES: u64 = 256 << 20;

impl Tokenizer {
    /// Builds a tokenizer for a corpus, or loads it for [`Kind::File`]; with warnings.
    pub fn build(kind: &Kind, corpus: &Corpus, work: &Work<'_>) -> Result<(Tokenizer, Vec<String>), DataError> {
        let mut warnings = Vec::new();
        let with_end_of_text = corpus.has_documents();
        let json = match kind {
            Kind::File(path) => return Ok((Tokenizer::load(path)?, warnings)),
            Kind::Byte => scheme::byte_json(with_end_of_text),
            Kind::Char => {
                let mut chars = BTreeSet::new();
                for_each_piece(corpus, 1, work, |text| chars.extend(text.chars()))?;
                let tokens = chars.into_iter().map(String::from).collect();
                scheme::char_json(&closed_vocab(tokens, with_end_of_text, corpus)?)
            }
            Kind::Word => scheme::word_json(&closed_vocab(count_words(corpus, work)?, with_end_of_text, corpus)?),
            Kind::Bpe { vocab } => train_bpe(*vocab, corpus, work, &mut warnings)?,
        };
        let tokenizer = Tokenizer::from_json(json)?;
        if let Kind::Bpe { vocab } = kind {
            warnings.extend(tokenizer.shortfall(*vocab, corpus));
        }
        Ok((tokenizer, warnings))
    }

    /// The warning for a BPE vocabulary that is smaller than requested.
    pub(crate) fn shortfall(&self, wanted: usize, corpus: &Corpus) -> Option<String> {
        (self.vocab_size() < wanted).then(|| {
            format!(
                "`{}` has too little text for a vocabulary of {wanted}; the tokenizer has {}",
                corpus.first_path().display(),
                self.vocab_size()
            )
        })
    }
}

/// The tokens of a `char` or `word` vocabulary, in the order of their ids.
fn closed_vocab(mut tokens: Vec<String>, with_end_of_text: bool, corpus: &Corpus) -> Result<Vec<String>, DataError> {
    if tokens.is_empty() {
        return Err(DataError::Empty { path: corpus.first_path().to_owned() });
    }
    if with_end_of_text {
        tokens.retain(|token| token != END_OF_TEXT);
        tokens.push(END_OF_TEXT.to_owned());
    }
    Ok(tokens)
}

/// The words of a corpus: the newline, then by descending count, then by spelling.
fn count_words(corpus: &Corpus, work: &Work<'_>) -> Result<Vec<String>, DataError> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for_each_piece(corpus, 1, work, |text| count_all(scheme::words(text).map(|(word, _)| word), &mut counts))?;
    counts.insert("\n".to_owned(), u64::MAX);
    let mut words: Vec<(String, u64)> = counts.into_iter().collect();
    words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(words.into_iter().map(|(word, _)| word).collect())
}

fn train_bpe(vocab: usize, corpus: &Corpus, work: &Work<'_>, warnings: &mut Vec<String>) -> Result<Vec<u8>, DataError> {
    let special_tokens: Vec<AddedToken> =
        corpus.has_documents().then(|| AddedToken::from(END_OF_TEXT, true)).into_iter().collect();
    let min = 256 + special_tokens.len();
    if vocab < min {
        return Err(DataError::VocabTooSmall { vocab, min });
    }
    let stride = corpus.bytes().div_ceil(BPE_TRAINING_BYTES).max(1) as usize;
    if stride > 1 {
        warnings.push(format!("the tokenizer was trained on one in {stride} pieces of the text (256 MiB)"));
    }
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab)
        .min_frequency(2)
        .special_tokens(special_tokens)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut counts: HashMap<String, u64> = HashMap::new();
    for_each_piece(corpus, stride, work, |text| count_all(pattern::words(text).flat_map(parts), &mut counts))?;
    let byte_chars: Vec<char> = (0..=255).map(scheme::byte_char).collect();
    let byte_level = |word: &str| word.bytes().map(|byte| byte_chars[byte as usize]).collect();
    let counts = counts.into_iter().map(|(word, count)| (byte_level(&word), count)).collect();
    let mut model = BPE::default();
    work.progress.update("building the tokenizer", 0, 0);
    let special_tokens =
        with_threads(work.threads, || trainer.do_train(&counts, &mut model)).map_err(TokenizerFault::from)?;
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
        TokenizerImpl::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
    tokenizer.add_special_tokens(special_tokens).map_err(TokenizerFault::from)?;
    Ok(tokenizer.to_string(true).map_err(TokenizerFault::from)?.into_bytes())
}

/// Words are cut into parts of at most this length. A text without spaces, such as DNA, is one word, and each merge scans every
/// word that contains it.
const MAX_WORD_BYTES: usize = 512;

/// The parts of a word; a short word is one part.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (part, after) = rest.split_at(char_start(rest, MAX_WORD_BYTES));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

/// Calls `take` for every `stride`th piece of a corpus.
fn for_each_piece(
    corpus: &Corpus,
    stride: usize,
    work: &Work<'_>,
    mut take: impl FnMut(&str),
) -> Result<(), DataError> {
    let mut pieces = corpus.pieces();
    let mut number = 0;
    while let Some(piece) = pieces.next().transpose()? {
        if number % stride == 0 {
            take(&piece.text);
        }
        number += 1;
        work.progress.update("reading words", pieces.consumed_bytes(), corpus.bytes());
    }
    Ok(())
}

/// Runs a job of the `tokenizers` crate on a pool of `threads` threads, or on this thread if there can be no pool.
fn with_threads<R: Send>(threads: usize, job: impl FnOnce() -> R + Send) -> R {
    let pool = (threads > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()).flatten();
    // This setting is global. Without a pool of ours, the crate would start one with a thread for each processor.
    parallelism::set_parallelism(pool.is_some());
    match pool {
        Some(pool) => pool.install(job),
        None => job(),
    }
}

fn count_all<'t>(words: impl Iterator<Item = &'t str>, counts: &mut HashMap<String, u64>) {
    for word in words {
        if let Some(count) = counts.get_mut(word) {
            *count += 1;
        } else {
            counts.insert(word.to_owned(), 1);
        }
    }
}

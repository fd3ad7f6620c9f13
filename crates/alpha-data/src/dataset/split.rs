//! Splitting off the last tenth for validation.
//!
//! If there are several documents, the last tenth of them validates, else the last tenth of the tokens: training gets ⌊9n/10⌋
//! of n, as in nanoGPT. Validation gets at least `block + 1` tokens, if necessary by taking more documents. If no boundary of
//! documents leaves that many on both sides, the tokens are split.

use super::token_file::TokenFile;
use crate::{DataError, TokenStream};

/// The position where validation begins.
pub(crate) fn split_position(
    stream: &TokenStream,
    documents: Option<&TokenFile>,
    block: usize,
) -> Result<u64, DataError> {
    let needed = block as u64 + 1;
    let len = stream.len();
    if len < 2 * needed {
        return Err(DataError::TooShort {
            what: "the data, to be split into training and validation,",
            tokens: len,
            needed: 2 * needed,
            hint: "use a smaller `--block`, more data, or give `--valData`",
        });
    }
    if let Some(documents) = documents.filter(|documents| documents.documents() > 1) {
        let count = documents.documents();
        let last = count - (count / 10).max(1);
        // Take the last document whose start leaves enough for validation; an earlier one would only take from training.
        for document in (0..=last).rev() {
            let start = documents.document_start(document)?;
            if len - start >= needed {
                if start >= needed {
                    return Ok(start);
                }
                break;
            }
        }
    }
    Ok((len * 9 / 10).min(len - needed))
}

/// The warning if a tenth of the documents is far from a tenth of the text.
pub(super) fn uneven_split(train_tokens: u64, tokens: u64) -> Option<String> {
    let val_tokens = tokens - train_tokens;
    let share = val_tokens as f64 / tokens as f64;
    (!(0.02..=0.3).contains(&share)).then(|| {
        format!(
            "the last tenth of the documents, which validates, has {val_tokens} of {tokens} tokens: documents differ greatly \
             in length; choose the validation data with `--valData`"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{Corpus, Kind, Tokenizer, Work, data_file::DataFile, dataset::token_file, stream::tests::counting};

    #[test]
    fn tokens_split_at_nine_tenths() {
        let position = |len: usize, block| split_position(&counting(&[len]), None, block);
        assert_eq!(position(1000, 8).unwrap(), 900);
        assert_eq!(position(1_115_394, 64).unwrap(), 1_003_854);
        assert_eq!(position(30, 8).unwrap(), 21);
        assert_eq!(position(18, 8).unwrap(), 9);
        assert!(position(17, 8).unwrap_err().to_string().contains("17 tokens, needs at least 18"));
    }

    /// Byte tokens of the texts, each followed by the end-of-text token.
    fn split_documents(texts: &[&str], block: usize) -> u64 {
        let corpus = Corpus::from_texts(texts);
        let tokenizer = Tokenizer::build(&Kind::Byte, &corpus, &Work::default()).unwrap().0;
        let mut out = Cursor::new(Vec::new());
        token_file::write(&mut out, &corpus, &tokenizer, &Work::default(), &mut Vec::new()).unwrap();
        let file = token_file::open(DataFile::in_memory("x".into(), out.into_inner())).unwrap();
        let stream = TokenStream::new(vec![file.shard.clone()], 257);
        split_position(&stream, Some(&file), block).unwrap()
    }

    #[test]
    fn documents_stay_whole() {
        assert_eq!(split_documents(&["aaaa"; 20], 3), 90);
        assert_eq!(split_documents(&["aaaa"; 20], 13), 85, "three documents for 14 tokens");
        assert_eq!(split_documents(&["a", "bbbbbbbbbbbbbbbbb"], 3), 16, "no border leaves both sides 4 of 20 tokens");
    }
}

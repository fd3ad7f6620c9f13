//! GPT-2's pre-tokenization: the words within which byte-level BPE merges.
//!
//! The published pattern is
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. The look-ahead (white space before a word leaves
//! its last character to the word) is done by hand here, so that a finite automaton can do the rest. The `tokenizers` crate,
//! which backtracks and tracks offsets, takes about ten times as long. A test compares the two.

use std::{iter, sync::LazyLock};

use regex::Regex;

/// Compiled at the first text, because a run with warm caches encodes none.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
    Regex::new(pattern).expect("the pattern is constant")
});

/// Splits text into words, which together are the whole text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    iter::from_fn(move || {
        let mut end = PATTERN.find_at(text, start)?.end();
        let mut word = &text[start..end];
        if let Some(last) = word.chars().next_back().filter(|last| last.is_whitespace())
            && end < text.len()
            && last.len_utf8() < word.len()
        {
            end -= last.len_utf8();
            word = &text[start..end];
        }
        start = end;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, pre_tokenizers::byte_level::ByteLevel,
    };

    fn check(text: &str) {
        let mut elsewhere = PreTokenizedString::from(text);
        ByteLevel::new(false, true, true).pre_tokenize(&mut elsewhere).unwrap();
        let splits = elsewhere.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let expected: Vec<&str> = splits.iter().map(|(_, (start, end), _)| &text[*start..*end]).collect();
        assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text:?}");
    }

    #[test]
    fn white_space_leaves_one_to_the_word() {
        check("  two\n\nlines \t\u{3000}x  ");
        check("it's we'll 'S 12ab½ ⅷ (a) \u{345}a\u{301}");
        check("");
    }

    proptest! {
        #[test]
        fn splits_as_the_published_pattern(text: String, dense in "[a'slv1 \n\t\u{3000}.é\u{301}]{0,40}") {
            check(&text);
            check(&dense);
        }
    }
}

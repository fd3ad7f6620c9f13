//! The windows of a whole stream, for `alpha eval`: each token is predicted once.
//!
//! Windows of `block` tokens follow one another without overlap, from the start of each shard. The last window of a shard may
//! be shorter; it is filled up with token 0 and ignored targets.

use alpha_tensor::{
    op::IGNORED_TARGET,
    rng::{Key, Purpose},
};

use super::shard_index::ShardIndex;
use crate::{DataError, TokenStream};

/// The windows of a stream.
#[derive(Clone, Debug)]
pub struct Windows {
    stream: TokenStream,
    block: usize,
    index: ShardIndex,
}

impl Windows {
    /// Some shard must have two tokens: one to read, one to predict.
    pub fn new(stream: &TokenStream, block: usize) -> Result<Windows, DataError> {
        if block == 0 {
            return Err(DataError::ZeroSize { name: "block" });
        }
        let index = ShardIndex::new(stream, |len| len.saturating_sub(1).div_ceil(block as u64));
        if index.count() == 0 {
            let hint = "give more data";
            return Err(DataError::TooShort { what: "the data", tokens: stream.len(), needed: 2, hint });
        }
        Ok(Windows { stream: stream.clone(), block, index })
    }

    /// Number of windows.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> u64 {
        self.index.count()
    }

    /// `count` different windows chosen by the seed, or all if there are fewer, in ascending order.
    pub fn subset(&self, count: u64, seed: u64) -> Vec<u64> {
        let count = count.min(self.len());
        // Floyd's algorithm: every subset is equally likely, with one random number per member.
        let key = Key::new(seed, Purpose::Eval);
        let mut chosen = std::collections::BTreeSet::new();
        for upper in self.len() - count..self.len() {
            let draw = key.below(upper, upper + 1);
            if !chosen.insert(draw) {
                chosen.insert(upper);
            }
        }
        chosen.into_iter().collect()
    }

    /// Fills one row of `block` tokens and targets with window `index`, and returns the number of targets that count, which
    /// come first.
    pub fn fill(&self, index: u64, tokens: &mut [u32], targets: &mut [u32]) -> Result<usize, DataError> {
        debug_assert!(index < self.len() && tokens.len() == self.block && targets.len() == self.block);
        let (number, shard) = self.index.locate(index);
        let position = shard.start + number * self.block as u64;
        let predicted = (shard.end - position - 1).min(self.block as u64) as usize;
        Windows::pad(&mut tokens[predicted..], &mut targets[predicted..]);
        self.stream.read_row(position, &mut tokens[..predicted], &mut targets[..predicted])?;
        Ok(predicted)
    }

    /// Fills rows without a window: token 0, ignored targets.
    pub fn pad(tokens: &mut [u32], targets: &mut [u32]) {
        tokens.fill(0);
        targets.fill(IGNORED_TARGET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::counting;

    #[test]
    fn every_token_but_the_first_of_a_shard_is_predicted_once() {
        let windows = Windows::new(&counting(&[10, 1, 2, 9]), 4).unwrap();
        let mut predicted = Vec::new();
        for index in 0..windows.len() {
            let (mut tokens, mut targets) = ([9; 4], [9; 4]);
            let count = windows.fill(index, &mut tokens, &mut targets).unwrap();
            assert!(tokens[..count].iter().zip(&targets).all(|(token, target)| token + 1 == *target));
            assert!(tokens[count..].iter().all(|token| *token == 0));
            assert!(targets[count..].iter().all(|target| *target == IGNORED_TARGET));
            predicted.extend_from_slice(&targets[..count]);
        }
        let expected: Vec<u32> = (1..10).chain(12..13).chain(14..22).collect();
        assert_eq!(predicted, expected);
    }

    #[test]
    fn subsets_are_seeded_sorted_and_distinct() {
        let windows = Windows::new(&counting(&[1000]), 3).unwrap();
        let subset = windows.subset(50, 1);
        assert_eq!(subset.len(), 50);
        assert!(subset.windows(2).all(|pair| pair[0] < pair[1]) && subset[49] < windows.len());
        assert_eq!(subset, windows.subset(50, 1));
        assert_ne!(subset, windows.subset(50, 2));
        assert_eq!(windows.subset(u64::MAX, 1), (0..windows.len()).collect::<Vec<_>>());
    }

    #[test]
    fn one_token_predicts_nothing() {
        assert!(Windows::new(&counting(&[1, 1]), 4).is_err());
    }
}

//! Uniform choice among all windows of `block + 1` tokens that lie within one shard.

use alpha_tensor::rng::Key;

use super::{BatchShape, shard_index::ShardIndex};
use crate::{DataError, TokenStream};

/// The windows of all shards.
#[derive(Clone, Debug)]
pub(super) struct RandomPlan {
    windows: ShardIndex,
}

impl RandomPlan {
    pub(super) fn new(stream: &TokenStream, shape: BatchShape, what: &'static str) -> Result<RandomPlan, DataError> {
        shape.check()?;
        let windows = ShardIndex::new(stream, |len| len.saturating_sub(shape.block as u64));
        if windows.count() == 0 {
            let (tokens, needed) = (stream.longest_shard(), shape.block as u64 + 1);
            return Err(DataError::TooShort { what, tokens, needed, hint: "use a smaller `--block` or more data" });
        }
        Ok(RandomPlan { windows })
    }

    /// The position where the window starts that `key` draws for `counter`.
    pub(super) fn position(&self, key: Key, counter: u64) -> u64 {
        let (number, shard) = self.windows.locate(key.below(counter, self.windows.count()));
        shard.start + number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalLoader, TrainLoader, stream::tests::counting};
    use proptest::prelude::*;

    const SHAPE: BatchShape = BatchShape { batch: 3, block: 4 };

    fn train(loader: &TrainLoader, step: u64, micro_step: u32) -> (Vec<u32>, Vec<u32>) {
        let shape = loader.shape();
        let (mut tokens, mut targets) = (vec![0; shape.tokens()], vec![0; shape.tokens()]);
        loader.batch(step, micro_step, &mut tokens, &mut targets).unwrap();
        (tokens, targets)
    }

    #[test]
    fn every_window_is_drawn_and_none_crosses_shards() {
        let loader = TrainLoader::random(&counting(&[6, 4, 5]), SHAPE, 1).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for step in 1..50 {
            let (tokens, targets) = train(&loader, step, 0);
            seen.extend(tokens.chunks(4).map(|row| row[0]));
            assert!(tokens.iter().zip(&targets).all(|(token, target)| token + 1 == *target));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 10]);
    }

    #[test]
    fn batches_depend_on_seed_step_and_micro_step_alone() {
        let stream = counting(&[10_000]);
        let loader = TrainLoader::random(&stream, SHAPE, 1).unwrap();
        let first = train(&loader, 3, 1);
        train(&loader, 4, 0);
        assert_eq!(train(&loader, 3, 1), first);
        assert_ne!(train(&loader, 3, 0), first);
        assert_ne!(train(&loader, 4, 1), first);
        assert_ne!(train(&TrainLoader::random(&stream, SHAPE, 2).unwrap(), 3, 1), first);
    }

    #[test]
    fn evaluation_repeats_and_differs_from_training() {
        let stream = counting(&[10_000]);
        let loader = EvalLoader::random(&stream, SHAPE, 5, 1).unwrap();
        let eval = |index| {
            let (mut tokens, mut targets) = ([0; 12], [0; 12]);
            loader.batch(index, &mut tokens, &mut targets).unwrap();
            tokens.to_vec()
        };
        assert_eq!(eval(2), eval(2));
        assert_ne!(eval(1), eval(2));
        assert_ne!(eval(1), train(&TrainLoader::random(&stream, SHAPE, 1).unwrap(), 1, 0).0);
        assert_eq!(loader.batches(), 5);
    }

    #[test]
    fn one_window_is_enough_and_less_is_an_error() {
        let loader = TrainLoader::random(&counting(&[5]), SHAPE, 1).unwrap();
        assert_eq!(train(&loader, 1, 0).0, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
        let error = TrainLoader::random(&counting(&[4, 4]), SHAPE, 1).unwrap_err();
        assert!(error.to_string().contains("has 4 tokens, needs at least 5"), "{error}");
        let zero = BatchShape { batch: 1, block: 0 };
        assert!(TrainLoader::random(&counting(&[4]), zero, 1).unwrap_err().is_usage());
    }

    proptest! {
        #[test]
        fn windows_stay_within_their_shard(
            lengths in prop::collection::vec(1usize..40, 1..6), block in 1usize..20, seed: u64, step in 1u64..1000,
        ) {
            let stream = counting(&lengths);
            match TrainLoader::random(&stream, BatchShape { batch: 4, block }, seed) {
                Err(_) => prop_assert!(lengths.iter().all(|length| *length <= block)),
                Ok(loader) => {
                    let (tokens, targets) = train(&loader, step, 0);
                    for (tokens, targets) in tokens.chunks(block).zip(targets.chunks(block)) {
                        let (first, last) = (u64::from(tokens[0]), u64::from(targets[block - 1]));
                        prop_assert_eq!(last, first + block as u64);
                        prop_assert!(stream.shard_ranges().any(|range| range.contains(&first) && range.contains(&last)));
                    }
                }
            }
        }
    }
}

//! llm.c's order in closed form: the number of a micro-batch determines where it starts.
//!
//! A shard of `n` tokens holds `⌊(n − 1) / (batch·block)⌋` micro-batches. The last shard is followed by the first.

use super::{BatchShape, shard_index::ShardIndex};
use crate::{DataError, TokenStream};

/// The micro-batches of all shards.
#[derive(Clone, Debug)]
pub(super) struct PackedPlan {
    micro_batches: ShardIndex,
    /// Tokens from one micro-batch to the next.
    stride: u64,
}

impl PackedPlan {
    pub(super) fn new(stream: &TokenStream, shape: BatchShape) -> Result<PackedPlan, DataError> {
        shape.check()?;
        let stride = shape.tokens() as u64;
        let micro_batches = ShardIndex::new(stream, |len| len.saturating_sub(1) / stride);
        if micro_batches.count() == 0 {
            return Err(DataError::TooShort {
                what: "the longest shard, read with `--packed`,",
                tokens: stream.longest_shard(),
                needed: stride + 1,
                hint: "use a smaller `--batch` or `--block`, or leave `--packed` out",
            });
        }
        Ok(PackedPlan { micro_batches, stride })
    }

    /// Number of micro-batches until the order repeats.
    pub(super) fn micro_batches(&self) -> u64 {
        self.micro_batches.count()
    }

    /// The position where micro-batch `index`, counted from 0, starts.
    pub(super) fn position(&self, index: u64) -> u64 {
        let (number, shard) = self.micro_batches.locate(index % self.micro_batches.count());
        shard.start + number * self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalLoader, TrainLoader, stream::tests::counting};
    use proptest::prelude::*;

    /// llm.c's order, step by step: the starts of the first `count` micro-batches.
    fn simulate(lengths: &[usize], tokens: usize, count: usize) -> Vec<u32> {
        let mut starts = Vec::new();
        let (mut shard, mut position) = (0, 0);
        while starts.len() < count {
            if position + tokens + 1 > lengths[shard] {
                (shard, position) = ((shard + 1) % lengths.len(), 0);
                continue;
            }
            starts.push((lengths[..shard].iter().sum::<usize>() + position) as u32);
            position += tokens;
        }
        starts
    }

    proptest! {
        #[test]
        fn closed_form_equals_simulation(
            lengths in prop::collection::vec(1usize..60, 1..6), batch in 1usize..4, block in 1usize..6, accum in 1u32..4,
        ) {
            let shape = BatchShape { batch, block };
            let Ok(loader) = TrainLoader::packed(&counting(&lengths), shape, accum) else {
                prop_assert!(lengths.iter().all(|length| *length <= shape.tokens()));
                return Ok(());
            };
            let expected = simulate(&lengths, shape.tokens(), 40);
            let (mut tokens, mut targets) = (vec![0; shape.tokens()], vec![0; shape.tokens()]);
            for (index, start) in expected.iter().enumerate() {
                let (step, micro_step) = (index as u64 / u64::from(accum) + 1, index as u32 % accum);
                loader.batch(step, micro_step, &mut tokens, &mut targets).unwrap();
                let row: Vec<u32> = (*start..=*start + shape.tokens() as u32).collect();
                prop_assert_eq!(&tokens[..], &row[..row.len() - 1]);
                prop_assert_eq!(&targets[..], &row[1..]);
            }
        }
    }

    /// A stream of `steps·batch·block + 1` tokens, as the golden cases have: row `b` of step `s`
    /// starts at `(s·batch + b)·block`, and exactly `steps` micro-batches fit.
    #[test]
    fn the_layout_of_the_golden_cases() {
        let (steps, batch, block) = (12, 3, 16);
        let loader =
            TrainLoader::packed(&counting(&[steps * batch * block + 1]), BatchShape { batch, block }, 1).unwrap();
        let (mut tokens, mut targets) = (vec![0; batch * block], vec![0; batch * block]);
        for step in 0..steps {
            loader.batch(step as u64 + 1, 0, &mut tokens, &mut targets).unwrap();
            for b in 0..batch {
                assert_eq!(tokens[b * block] as usize, (step * batch + b) * block);
            }
        }
        loader.batch(steps as u64 + 1, 0, &mut tokens, &mut targets).unwrap();
        assert_eq!(tokens[0], 0);
    }

    #[test]
    fn evaluation_reads_the_first_tokens_in_order() {
        let shape = BatchShape { batch: 2, block: 3 };
        let loader = EvalLoader::packed(&counting(&[20]), shape, 10).unwrap();
        assert_eq!(loader.batches(), 3);
        let (mut tokens, mut targets) = ([0; 6], [0; 6]);
        loader.batch(1, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens, targets), ([6, 7, 8, 9, 10, 11], [7, 8, 9, 10, 11, 12]));
    }
}

//! Numbering the windows or micro-batches of all shards.

use std::ops::Range;

use crate::TokenStream;

/// Units (windows or micro-batches) of a stream, none of which crosses shards.
#[derive(Clone, Debug)]
pub(super) struct ShardIndex {
    /// For each shard with units: the number of units before it, and its positions.
    shards: Vec<(u64, Range<u64>)>,
    count: u64,
}

impl ShardIndex {
    /// Numbers the units of a stream; `held` is the number of units in a shard of a given length.
    pub(super) fn new(stream: &TokenStream, held: impl Fn(u64) -> u64) -> ShardIndex {
        let (mut shards, mut count) = (Vec::new(), 0);
        for range in stream.shard_ranges() {
            let held = held(range.end - range.start);
            if held > 0 {
                shards.push((count, range));
                count += held;
            }
        }
        ShardIndex { shards, count }
    }

    /// Number of units.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The number of a unit within its shard, and the positions of the shard. `index` is below the count.
    pub(super) fn locate(&self, index: u64) -> (u64, &Range<u64>) {
        let shard = self.shards.partition_point(|(before, _)| *before <= index) - 1;
        let (before, range) = &self.shards[shard];
        (index - before, range)
    }
}

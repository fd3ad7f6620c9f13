//! Synthetic data. The same seed gives the same bytes on every machine.

mod abc;

pub use self::abc::abc;

use alpha_tensor::rng::{Key, Purpose};

/// A sequence of random numbers for one item.
#[derive(Debug)]
struct Rng {
    key: Key,
    counter: u64,
}

impl Rng {
    fn new(seed: u64, item: u64) -> Rng {
        Rng { key: Key::new(seed, Purpose::Synthetic).fold(item), counter: 0 }
    }

    /// A uniform integer in `0..bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.counter += 1;
        self.key.below(self.counter, bound as u64) as usize
    }

    /// True `percent` times in a hundred.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// One of `items`, with probabilities in proportion to the weights.
    fn pick_weighted<'a, T>(&mut self, items: &'a [(usize, T)]) -> &'a T {
        let mut draw = self.below(items.iter().map(|(weight, _)| weight).sum());
        for (weight, item) in items {
            if draw < *weight {
                return item;
            }
            draw -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}

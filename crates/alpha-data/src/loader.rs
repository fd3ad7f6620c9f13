//! Batches of token streams.
//!
//! A batch is `[batch, block]`, row-major, of tokens and of targets (the token after each). Loaders have no state: a batch is a
//! pure function of the seed and the step, so that resuming needs nothing from a loader and evaluating cannot change the order
//! of training. Filling a batch allocates nothing, and every id is checked against the vocabulary.

mod shard_index;
mod random;
mod packed;
mod windows;
mod data_hash;

pub use self::{data_hash::DataHash, windows::Windows};

use alpha_tensor::rng::{Key, Purpose};

use self::{packed::PackedPlan, random::RandomPlan};
use crate::{DataError, TokenStream};

/// Rows and columns of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens per sequence.
    pub block: usize,
}

impl BatchShape {
    /// Tokens per batch.
    pub fn tokens(&self) -> usize {
        self.batch * self.block
    }

    fn check(self) -> Result<(), DataError> {
        for (name, size) in [("batch", self.batch), ("block", self.block)] {
            if size == 0 {
                return Err(DataError::ZeroSize { name });
            }
        }
        Ok(())
    }
}

/// Batches to train on.
#[derive(Clone, Debug)]
pub struct TrainLoader {
    stream: TokenStream,
    shape: BatchShape,
    order: TrainOrder,
}

#[derive(Clone, Debug)]
enum TrainOrder {
    Random { plan: RandomPlan, key: Key },
    Packed { plan: PackedPlan, accum_steps: u32 },
}

impl TrainLoader {
    /// Windows drawn uniformly from all windows that do not cross shards.
    pub fn random(stream: &TokenStream, shape: BatchShape, seed: u64) -> Result<TrainLoader, DataError> {
        let plan = RandomPlan::new(stream, shape, "the training data")?;
        let order = TrainOrder::Random { plan, key: Key::new(seed, Purpose::Data) };
        Ok(TrainLoader { stream: stream.clone(), shape, order })
    }

    /// llm.c's order: from 0, each micro-step reads the next `batch·block + 1` tokens of a shard and advances by `batch·block`.
    /// If too few tokens are left, the next shard begins at its first token.
    pub fn packed(stream: &TokenStream, shape: BatchShape, accum_steps: u32) -> Result<TrainLoader, DataError> {
        if accum_steps == 0 {
            return Err(DataError::ZeroSize { name: "accumSteps" });
        }
        let order = TrainOrder::Packed { plan: PackedPlan::new(stream, shape)?, accum_steps };
        Ok(TrainLoader { stream: stream.clone(), shape, order })
    }

    /// Shape of every batch.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Fills one micro-batch. `step` counts from 1, `micro_step` from 0 within the step. `tokens` and `targets` have
    /// `batch·block` elements.
    pub fn batch(&self, step: u64, micro_step: u32, tokens: &mut [u32], targets: &mut [u32]) -> Result<(), DataError> {
        match &self.order {
            TrainOrder::Random { plan, key } => {
                let key = key.fold(step).fold(u64::from(micro_step));
                fill(&self.stream, self.shape, tokens, targets, |row| plan.position(key, row))
            }
            TrainOrder::Packed { plan, accum_steps } => {
                let micro_batch = (step - 1) * u64::from(*accum_steps) + u64::from(micro_step);
                let start = plan.position(micro_batch);
                fill(&self.stream, self.shape, tokens, targets, |row| start + row * self.shape.block as u64)
            }
        }
    }
}

/// The same batches at every evaluation.
#[derive(Clone, Debug)]
pub struct EvalLoader {
    stream: TokenStream,
    shape: BatchShape,
    batches: u32,
    order: EvalOrder,
}

#[derive(Clone, Debug)]
enum EvalOrder {
    Random { plan: RandomPlan, key: Key },
    Packed { plan: PackedPlan },
}

impl EvalLoader {
    /// `batches` batches of windows, drawn with random numbers of their own.
    pub fn random(stream: &TokenStream, shape: BatchShape, batches: u32, seed: u64) -> Result<EvalLoader, DataError> {
        let plan = RandomPlan::new(stream, shape, "the validation data")?;
        let order = EvalOrder::Random { plan, key: Key::new(seed, Purpose::Eval) };
        Ok(EvalLoader { stream: stream.clone(), shape, batches, order })
    }

    /// The first batches of llm.c's order; fewer than `batches` if the stream has fewer.
    pub fn packed(stream: &TokenStream, shape: BatchShape, batches: u32) -> Result<EvalLoader, DataError> {
        let plan = PackedPlan::new(stream, shape)?;
        let batches = plan.micro_batches().min(u64::from(batches)) as u32;
        Ok(EvalLoader { stream: stream.clone(), shape, batches, order: EvalOrder::Packed { plan } })
    }

    /// Number of batches in one evaluation.
    pub fn batches(&self) -> u32 {
        self.batches
    }

    /// Shape of every batch.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Fills batch `index`, which is below [`EvalLoader::batches`].
    pub fn batch(&self, index: u32, tokens: &mut [u32], targets: &mut [u32]) -> Result<(), DataError> {
        match &self.order {
            EvalOrder::Random { plan, key } => {
                let key = key.fold(u64::from(index));
                fill(&self.stream, self.shape, tokens, targets, |row| plan.position(key, row))
            }
            EvalOrder::Packed { plan } => {
                let start = plan.position(u64::from(index));
                fill(&self.stream, self.shape, tokens, targets, |row| start + row * self.shape.block as u64)
            }
        }
    }
}

fn fill(
    stream: &TokenStream,
    shape: BatchShape,
    tokens: &mut [u32],
    targets: &mut [u32],
    position: impl Fn(u64) -> u64,
) -> Result<(), DataError> {
    debug_assert_eq!([tokens.len(), targets.len()], [shape.tokens(); 2]);
    let rows = tokens.chunks_exact_mut(shape.block).zip(targets.chunks_exact_mut(shape.block));
    for (row, (tokens, targets)) in rows.enumerate() {
        stream.read_row(position(row as u64), tokens, targets)?;
    }
    Ok(())
}

//! How a run is cut into turns: a warm-up, timed blocks, and where weights are written.

use serde::{Deserialize, Serialize};

/// The actions of both trainers of a pair, in order. Fixed before the first pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script(pub(crate) Vec<Action>);

/// One thing that a trainer is told to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// A turn of this many steps; timed ones have the number of their block.
    Go { steps: u64, block: Option<usize> },
    /// The weights are written.
    Save,
}

/// How a run is cut into turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Steps before the first block.
    pub warmup_steps: u64,
    /// Steps of a block; if there is more than one, the first is not timed.
    pub block_steps: u64,
    /// Blocks, an odd number.
    pub blocks: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Blocks {
    /// Cuts `steps` into as many blocks as fit after the warm-up, and leaves two steps for the update checks. None if
    /// not even one block fits.
    pub fn cut(steps: u64, warmup_steps: u64, block_steps: u64) -> Option<Blocks> {
        let room = steps.checked_sub(warmup_steps + 2)? / block_steps.max(1);
        let blocks = if room.is_multiple_of(2) { room.checked_sub(1)? } else { room };
        Some(Blocks { warmup_steps, block_steps: block_steps.max(1), blocks, steps })
    }

    /// Steps whose updates are checked one by one in every run that is long enough: those of 1, 2 and 10 that lie in
    /// the warm-up.
    pub fn steps_alone(&self) -> impl Iterator<Item = u64> + use<> {
        let warmup_steps = self.warmup_steps;
        [1, 2, 10].into_iter().filter(move |step| *step <= warmup_steps)
    }

    /// The turns of a pair in which no weights are written.
    pub fn script(&self) -> Script {
        let mut actions = Vec::new();
        let mut go = |steps: u64, block| (steps > 0).then(|| actions.push(Action::Go { steps, block }));
        go(self.warmup_steps, None);
        for block in 0..self.blocks {
            go(self.block_steps, Some(block as usize));
        }
        go(self.steps - self.warmup_steps - self.blocks * self.block_steps, None);
        Script(actions)
    }

    /// The turns of a pair whose weights are written: before and after each of [`Blocks::steps_alone`], around one more
    /// step before the block `before_block`, and before the last step.
    pub fn script_with_saves(&self, before_block: u64) -> Script {
        let mut actions = Vec::new();
        let mut done = 0;
        let mut go_to = |actions: &mut Vec<Action>, step: u64, block| {
            if step > done {
                actions.push(Action::Go { steps: step - done, block });
                done = step;
            }
        };
        let mut saved = None;
        for step in self.steps_alone() {
            go_to(&mut actions, step - 1, None);
            if saved != Some(step - 1) {
                actions.push(Action::Save);
            }
            go_to(&mut actions, step, None);
            actions.push(Action::Save);
            saved = Some(step);
        }
        if saved.is_none() {
            actions.push(Action::Save); // a run without warm-up, from its beginning
        }
        let mut step = self.warmup_steps;
        go_to(&mut actions, step, None);
        for block in 0..self.blocks {
            if before_block == block {
                if step > 0 && saved != Some(step) {
                    actions.push(Action::Save);
                }
                step += 1;
                go_to(&mut actions, step, None);
                actions.push(Action::Save);
            }
            step += self.block_steps;
            go_to(&mut actions, step, Some(block as usize));
        }
        go_to(&mut actions, self.steps - 1, None);
        actions.push(Action::Save);
        go_to(&mut actions, self.steps, None);
        Script(actions)
    }

    /// The step that is checked before the block `before_block`.
    pub fn step_before(&self, before_block: u64) -> u64 {
        self.warmup_steps + before_block * self.block_steps + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps before each save, and those that are timed.
    fn read(script: &Script) -> (Vec<u64>, u64, u64) {
        let (mut saved, mut timed, mut done) = (Vec::new(), 0, 0);
        for action in &script.0 {
            match action {
                Action::Save => saved.push(done),
                Action::Go { steps, block } => {
                    done += steps;
                    timed += if block.is_some() { *steps } else { 0 };
                }
            }
        }
        (saved, timed, done)
    }

    #[test]
    fn weights_are_saved_around_the_steps_that_are_looked_at() {
        let blocks = Blocks { warmup_steps: 15, block_steps: 4, blocks: 45, steps: 200 };
        let (saved, timed, done) = read(&blocks.script_with_saves(3));
        assert_eq!(saved, [0, 1, 2, 9, 10, 27, 28, 199]);
        assert_eq!((timed, done, blocks.step_before(3)), (180, 200, 28));
        assert_eq!(read(&blocks.script()), (vec![], 180, 200));
        // Without a warm-up there is still a beginning.
        let short = Blocks { warmup_steps: 0, block_steps: 1, blocks: 3, steps: 5 };
        assert_eq!(read(&short.script_with_saves(0)), (vec![0, 1, 4], 3, 5));
        assert_eq!(read(&short.script_with_saves(2)).0, [0, 2, 3, 4]);
    }
}

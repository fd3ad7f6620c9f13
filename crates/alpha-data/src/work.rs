//! What long work needs from the program around it.

use std::{num::NonZeroUsize, thread};

use crate::Cache;

/// Is told how far long work has got. It is called often, so implementations must be cheap.
pub trait Progress: Sync {
    /// `done` of `total` bytes are done. A total of 0 means that the total is unknown.
    fn update(&self, doing: &'static str, done: u64, total: u64);
}

/// Ignores progress.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _doing: &'static str, _done: u64, _total: u64) {}
}

/// How to do long work.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Keeps results between runs.
    pub cache: &'a Cache,
    /// At most this many threads work at a time. The number changes no result.
    pub threads: usize,
    /// Is told about progress.
    pub progress: &'a dyn Progress,
}

impl Default for Work<'static> {
    /// No cache, no progress, one thread for each processor.
    fn default() -> Work<'static> {
        static NO_CACHE: Cache = Cache::none();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Work { cache: &NO_CACHE, threads, progress: &Silent }
    }
}

/// Applies `job` to all items on at most `threads` threads. The results are in the order of the items. If a thread cannot be
/// started, the current thread does its share.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], threads: usize, job: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len()).max(1);
    let chunk = items.len().div_ceil(threads).max(1);
    let run = |items: &[T]| items.iter().map(&job).collect::<Vec<R>>();
    let mut chunks = items.chunks(chunk);
    let Some(own) = chunks.next() else { return Vec::new() };
    thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> =
            chunks.map(|items| (items, thread::Builder::new().spawn_scoped(scope, move || run(items)))).collect();
        let mut results = run(own);
        for (items, handle) in others {
            match handle.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => results.extend(done),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => results.extend(run(items)),
            }
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        let items: Vec<u32> = (0..101).collect();
        for threads in [0, 1, 2, 7, 200] {
            assert_eq!(
                in_parallel(&items, threads, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert!(in_parallel(&[] as &[u32], 3, |item| *item).is_empty());
    }
}

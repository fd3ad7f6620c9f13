//! Threads that run one closure together and meet at barriers inside it.
//!
//! Between barriers a thread spins for a moment, then gives its time slice away: operations
//! follow each other within microseconds, but another program may need the core. Between
//! runs threads spin a little longer, then sleep.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread, yield_now},
};

/// Spins before a thread waiting at a barrier begins to yield.
const BARRIER_SPINS: u32 = 4_000;
/// Spins and yields before an idle worker sleeps.
const IDLE_SPINS: u32 = 20_000;

/// A point that all threads of a pool pass together.
pub(super) struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
}

impl Barrier {
    fn new(threads: usize) -> Barrier {
        Barrier { threads, arrived: AtomicUsize::new(0), generation: AtomicUsize::new(0) }
    }

    /// Returns once every thread has called it. What threads wrote before is visible after.
    pub(super) fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            spins += 1;
            if spins < BARRIER_SPINS { spin_loop() } else { yield_now() }
        }
    }
}

/// What the workers are to run: a pointer to the caller's closure, valid while `pending > 0`.
type Job<'a> = &'a (dyn Fn(usize, &Barrier) + Sync);

struct Shared {
    job: AtomicPtr<Job<'static>>,
    generation: AtomicUsize,
    pending: AtomicUsize,
    is_closing: AtomicBool,
    barrier: Barrier,
}

/// `threads − 1` workers and the caller.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
}

impl Pool {
    pub(super) fn new(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            job: AtomicPtr::new(std::ptr::null_mut()),
            generation: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            barrier: Barrier::new(threads),
        });
        let mut pool = Pool { shared: Arc::clone(&shared), workers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&shared);
            let worker = thread::Builder::new().name(format!("alpha-{index}")).spawn(move || work(&shared, index))?;
            let handle = worker.thread().clone();
            pool.workers.push((worker, handle));
        }
        Ok(pool)
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread, barrier)` on every thread, the caller being thread 0.
    pub(super) fn run(&mut self, job: Job<'_>) {
        let shared = &*self.shared;
        if !self.workers.is_empty() {
            // SAFETY: only the lifetime changes; workers use the job before `pending` reaches
            // zero, and this function waits for that before it returns.
            let mut job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
            shared.job.store(&raw mut job, Ordering::Relaxed);
            shared.pending.store(self.workers.len(), Ordering::Relaxed);
            shared.generation.fetch_add(1, Ordering::Release);
            for (_, handle) in &self.workers {
                handle.unpark();
            }
            run_or_abort(job, 0, &shared.barrier);
            let mut spins = 0;
            while shared.pending.load(Ordering::Acquire) > 0 {
                spins += 1;
                if spins < BARRIER_SPINS { spin_loop() } else { yield_now() }
            }
        } else {
            job(0, &shared.barrier);
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.generation.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < BARRIER_SPINS {
                spin_loop();
            } else if spins < IDLE_SPINS {
                yield_now();
            } else {
                thread::park();
            }
        }
        if shared.is_closing.load(Ordering::Acquire) {
            return;
        }
        seen = seen.wrapping_add(1);
        // SAFETY: the pointer was stored before the generation changed and points to the
        // closure of a caller who waits until `pending` is zero.
        let job = unsafe { *shared.job.load(Ordering::Relaxed) };
        run_or_abort(job, index, &shared.barrier);
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

/// A panicking kernel is a bug, and the other threads would wait for ever at the next barrier.
fn run_or_abort(job: Job<'_>, index: usize, barrier: &Barrier) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index, barrier))).is_err() {
        std::process::abort();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.shared.generation.fetch_add(1, Ordering::Release);
        for (worker, handle) in self.workers.drain(..) {
            handle.unpark();
            // A worker that panicked has aborted the process already.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_meet_at_barriers() {
        let mut pool = Pool::new(3).unwrap();
        let counter = AtomicUsize::new(0);
        for round in 0..200 {
            pool.run(&|_, barrier| {
                for phase in 1..=5 {
                    counter.fetch_add(1, Ordering::Relaxed);
                    barrier.wait();
                    assert_eq!(counter.load(Ordering::Relaxed), round * 15 + phase * 3);
                    barrier.wait();
                }
            });
        }
        assert_eq!(pool.threads(), 3);
    }
}

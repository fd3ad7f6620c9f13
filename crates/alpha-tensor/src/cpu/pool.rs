//! Threads that run one closure together.
//!
//! A thread that waits spins for a moment, then yields its time slice: operations follow
//! each other within microseconds, but another program may need the core. Between runs
//! threads spin a little longer, then sleep.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread, yield_now},
};

/// Spins before a waiting thread begins to yield.
const WAIT_SPINS: u32 = 4_000;
/// Spins and yields before an idle worker sleeps.
const IDLE_SPINS: u32 = 20_000;

/// Waits until `is_ready`, spinning for a moment, then yielding the time slice.
pub(super) fn wait_until(is_ready: impl Fn() -> bool) {
    let mut spins = 0;
    while !is_ready() {
        spins += 1;
        if spins < WAIT_SPINS { spin_loop() } else { yield_now() }
    }
}

/// The workers' job: a pointer to the caller's closure, valid while `pending > 0`.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

struct Shared {
    job: AtomicPtr<Job<'static>>,
    generation: AtomicUsize,
    pending: AtomicUsize,
    is_closing: AtomicBool,
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

    /// Runs `job(thread)` on every thread, the caller being thread 0; returns when all are done.
    pub(super) fn run(&mut self, job: Job<'_>) {
        let shared = &*self.shared;
        if self.workers.is_empty() {
            job(0);
        } else {
            // SAFETY: only the lifetime changes; workers use the job before `pending` reaches
            // zero, and this function waits for that before it returns.
            let mut job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
            shared.job.store(&raw mut job, Ordering::Relaxed);
            shared.pending.store(self.workers.len(), Ordering::Relaxed);
            shared.generation.fetch_add(1, Ordering::Release);
            for (_, handle) in &self.workers {
                handle.unpark();
            }
            run_or_abort(job, 0);
            wait_until(|| shared.pending.load(Ordering::Acquire) == 0);
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.generation.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < WAIT_SPINS {
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
        run_or_abort(job, index);
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

/// A panicking kernel is a bug, and the other threads would wait for its tasks forever.
fn run_or_abort(job: Job<'_>, index: usize) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index))).is_err() {
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
    fn every_thread_runs_every_job_once() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..200 {
            let ran = [(); 3].map(|()| AtomicUsize::new(0));
            pool.run(&|thread| {
                ran[thread].fetch_add(1, Ordering::Relaxed);
            });
            assert!(ran.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
        assert_eq!(pool.threads(), 3);
    }
}

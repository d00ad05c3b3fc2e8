//! The threads that run kernels.
//!
//! A key decision: nobody waits for a thread that has not come. A job is open or closed; a worker
//! enters it while it is open, takes chunks from a counter, and leaves. The caller works too, closes
//! the job when the counter has run out and waits for those inside alone. A worker that the system has
//! put to sleep, a busy neighbour or a child process after a fork therefore cost their share and never
//! the result.
//!
//! Workers spin for a moment after each job, because a decoder's phases follow each other within
//! microseconds, and then park, so that an idle session burns nothing.

mod fork;

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use alloyforge_types::{Error, Result};

use crate::disjoint::Padded;

/// How long a worker looks for the next job before it parks: longer than sampling a token takes,
/// shorter than anyone would see in a process list.
const SPIN: Duration = Duration::from_micros(100);

/// A thread takes this part of its share of the chunks that are left.
const SHARE: usize = 4;

/// Most threads of one pool.
pub const MAX_THREADS: usize = 1024;

/// In [`Shared::state`]: workers may enter.
const OPEN: u64 = 1 << 31;
/// In [`Shared::state`]: how many are inside.
const INSIDE: u64 = OPEN - 1;

/// A task: called with a chunk's index and the index of the thread that runs it.
type Task<'a> = dyn Fn(usize, usize) -> Result<()> + Sync + 'a;

/// What the workers are to do.
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    chunks: usize,
    /// A thread takes one in so many of the chunks that are left.
    share: usize,
}

/// One worker's bed.
#[derive(Default)]
struct Bed {
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

/// What caller and workers share.
struct Shared {
    /// The job's number in the upper half, then [`OPEN`], then the count of workers inside.
    state: Padded<AtomicU64>,
    /// The next chunk.
    cursor: Padded<AtomicUsize>,
    /// Written by the caller while the job is closed and nobody is inside, read by those inside.
    job: UnsafeCell<Option<Job>>,
    /// The first failure of the job.
    failure: Mutex<Option<Error>>,
    stop: AtomicBool,
    beds: Vec<Padded<Bed>>,
}

// SAFETY: `job` is written only while no worker is inside and read only by workers inside; entering
// and leaving order the two (see `Shared::state`). The task it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

thread_local! {
    /// Whether this thread is inside a job, so that a job within a job is an error and no deadlock.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

impl Shared {
    /// Takes chunks until there are none; what fails ends the job early.
    fn work(&self, job: Job, worker: usize) {
        BUSY.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                // Many at a time while there are many, because neighbours in memory are read faster one
                // after the other and the counter's line travels between cores; one at a time at the
                // end, so that nobody waits long for a thread that lost its core.
                let left = job.chunks.saturating_sub(self.cursor.0.load(Ordering::Relaxed));
                let some = (left / job.share).max(1);
                let first = self.cursor.0.fetch_add(some, Ordering::Relaxed);
                if first >= job.chunks {
                    return Ok(());
                }
                for chunk in first..job.chunks.min(first + some) {
                    // SAFETY: the caller of `Pool::run` keeps the task alive until all inside have left.
                    unsafe { (*job.task)(chunk, worker) }?;
                }
            }
        }));
        BUSY.set(false);
        if let Err(error) = outcome.unwrap_or_else(|panic| Err(caught(&*panic))) {
            self.cursor.0.store(job.chunks, Ordering::Relaxed);
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let bed = &self.beds[worker - 1].0;
        // ignored: a worker lives once
        let _ = bed.thread.set(std::thread::current());
        let mut last = 0;
        while let Some(state) = self.next_job(bed, last) {
            // fails where the job was closed or another entered meanwhile: look again
            if self.state.0.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_err()
            {
                continue;
            }
            last = state >> 32;
            // SAFETY: this worker is inside, so the caller does not write the job.
            if let Some(job) = unsafe { *self.job.get() } {
                self.work(job, worker);
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job other than number `last`; `None` when the pool ends.
    fn next_job(&self, bed: &Bed, last: u64) -> Option<u64> {
        let look = || {
            let state = self.state.0.load(Ordering::SeqCst);
            (state & OPEN != 0 && state >> 32 != last).then_some(state)
        };
        loop {
            let begin = Instant::now();
            while begin.elapsed() < SPIN {
                for _ in 0..64 {
                    if let Some(state) = look() {
                        return Some(state);
                    }
                    std::hint::spin_loop();
                }
                if self.stop.load(Ordering::SeqCst) {
                    return None;
                }
            }
            // The caller publishes and then looks for sleepers; this looks the other way round, so one
            // of the two sees the other.
            bed.parked.store(true, Ordering::SeqCst);
            while look().is_none() && !self.stop.load(Ordering::SeqCst) && bed.parked.load(Ordering::SeqCst) {
                std::thread::park();
            }
            bed.parked.store(false, Ordering::SeqCst);
        }
    }

    /// Wakes at most `count` sleepers.
    fn wake(&self, count: usize) {
        for bed in self.beds.iter().map(|b| &b.0).take(count) {
            if bed.parked.load(Ordering::SeqCst)
                && bed.parked.swap(false, Ordering::SeqCst)
                && let Some(thread) = bed.thread.get()
            {
                thread.unpark();
            }
        }
    }
}

/// What a caught panic becomes.
fn caught(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a kernel panicked".to_owned());
    Error::internal(text)
}

/// Threads that run one job at a time, the caller's own among them.
pub struct Pool {
    threads: usize,
    /// How often the process had forked when the workers were born.
    born: u64,
    /// Held while a job runs, so that several sessions may share the threads.
    turn: Mutex<()>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The pools in use, by the count of forks and of threads.
type Registry = HashMap<(u64, usize), Weak<Pool>>;

impl Pool {
    /// The process's pool of `threads` threads, the caller's included: sessions of equal size share
    /// one and take turns, job by job.
    ///
    /// # Errors
    /// `InvalidRequest` for 0 or more than [`MAX_THREADS`]; `Device` where the system gives no thread.
    pub fn shared(threads: usize) -> Result<Arc<Self>> {
        static POOLS: Mutex<Option<Registry>> = Mutex::new(None);
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = pools.get_or_insert_default();
        pools.retain(|_, pool| pool.strong_count() > 0);
        let key = (fork::count(), threads);
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return Ok(pool);
        }
        let pool = Arc::new(Self::new(threads)?);
        pools.insert(key, Arc::downgrade(&pool));
        Ok(pool)
    }

    /// A pool of its own.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn new(threads: usize) -> Result<Self> {
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::invalid("threads", format!("{threads} is not in 1..={MAX_THREADS}")));
        }
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            cursor: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            failure: Mutex::new(None),
            stop: AtomicBool::new(false),
            beds: (1..threads).map(|_| Padded::default()).collect(),
        });
        // built first, so that an error below ends the workers that were started
        let mut pool =
            Self { threads, born: fork::count(), turn: Mutex::new(()), shared, workers: Vec::new() };
        for worker in 1..threads {
            let shared = pool.shared.clone();
            let handle = std::thread::Builder::new()
                .name(format!("alloyforge-{worker}"))
                .spawn(move || shared.serve(worker))
                .map_err(|e| Error::Device {
                    device: "cpu".into(),
                    fault: format!("no thread {worker} of {threads}: {e}"),
                })?;
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Threads that work, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether the process has forked since: the workers live in the parent alone. Such a pool still
    /// works, on the caller's thread; a new one is faster.
    pub fn is_stale(&self) -> bool {
        self.born != fork::count()
    }

    /// Calls `task(chunk, worker)` once for each of `chunks` chunks, on whichever threads are free,
    /// and returns when all are done. `worker` is below [`threads`](Self::threads), and no two calls
    /// with the same one run at a time.
    ///
    /// # Errors
    /// The first of the task's, and then the rest may not have been called. A panic of the task is
    /// `Internal`, and so is a job within a job.
    pub fn run(&self, chunks: usize, task: impl Fn(usize, usize) -> Result<()> + Sync) -> Result<()> {
        let task: &Task<'_> = &task;
        if BUSY.get() {
            // its turn is held by this very thread, or by one that waits for it
            return Err(Error::internal("a job within a job"));
        }
        if self.is_stale() {
            // the lock may be held by a thread that this process does not have
            return alone(chunks, task);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.threads == 1 || chunks <= 1 {
            return alone(chunks, task);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. No worker enters once the job is closed below, and those
        // inside are waited for before this function returns; it cannot unwind in between, as `work`
        // catches what the task throws.
        let task = unsafe { std::mem::transmute::<&Task<'_>, &Task<'static>>(task) };
        let job = Job { task, chunks, share: SHARE * self.threads };
        // SAFETY: the last job is closed and nobody is inside.
        unsafe { *shared.job.get() = Some(job) };
        shared.cursor.0.store(0, Ordering::Relaxed);
        let number = (shared.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        shared.state.0.store(number << 32 | OPEN, Ordering::SeqCst);
        shared.wake(chunks - 1);
        shared.work(job, 0);
        shared.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while shared.state.0.load(Ordering::Acquire) & INSIDE != 0 {
            // a worker inside may have lost its core to somebody: let it have this one
            spins += 1;
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Runs all chunks on this thread.
fn alone(chunks: usize, task: &Task<'_>) -> Result<()> {
    BUSY.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| (0..chunks).try_for_each(|chunk| task(chunk, 0))));
    BUSY.set(false);
    outcome.unwrap_or_else(|panic| Err(caught(&*panic)))
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.is_stale() {
            // the threads are not this process's to wait for
            self.workers.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.stop.store(true, Ordering::SeqCst);
        for bed in &self.shared.beds {
            bed.0.parked.store(false, Ordering::SeqCst);
            if let Some(thread) = bed.0.thread.get() {
                thread.unpark();
            }
        }
        for worker in self.workers.drain(..) {
            // a worker catches its tasks' panics, so there is nothing to learn here
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests;

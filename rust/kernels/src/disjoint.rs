//! Memory that several threads write at once, each its own part.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A slice whose parts are written by several threads.
#[derive(Debug)]
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of the slice; handing out parts is `unsafe` and demands
// that they do not overlap.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Borrows `slice` until the last thread is done.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// The part `range`.
    ///
    /// # Safety
    /// While the returned borrow lives, no other part that overlaps it may be borrowed, by any thread.
    ///
    /// # Panics
    /// Where `range` is not inside the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: inside the slice by the check, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

/// One value for each thread of a pool.
#[derive(Debug)]
pub struct PerWorker<T>(Vec<Padded<Mutex<T>>>);

/// A value on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> PerWorker<T> {
    /// As many values as `workers`, each made by `make`.
    ///
    /// # Errors
    /// The first of `make`.
    pub fn new<E>(workers: usize, mut make: impl FnMut() -> Result<T, E>) -> Result<Self, E> {
        (0..workers).map(|_| Ok(Padded(Mutex::new(make()?)))).collect::<Result<_, E>>().map(Self)
    }

    /// The value of `worker`. Its own thread alone asks for it, so nothing ever waits here.
    ///
    /// # Panics
    /// Where there is no such worker.
    pub fn get(&self, worker: usize) -> MutexGuard<'_, T> {
        // what a panic left half written is overwritten by the next use
        self.0[worker].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

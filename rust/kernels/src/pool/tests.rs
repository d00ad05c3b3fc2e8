use std::collections::HashSet;

use super::*;
use proptest::prelude::*;

/// Each chunk's count of calls, and the workers that were seen.
fn count(pool: &Pool, chunks: usize) -> (Vec<usize>, HashSet<usize>) {
    let calls: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
    let seen = Mutex::new(HashSet::new());
    pool.run(chunks, |chunk, worker| {
        calls[chunk].fetch_add(1, Ordering::Relaxed);
        seen.lock().expect("no panic").insert(worker);
        Ok(())
    })
    .expect("no failure");
    (calls.into_iter().map(AtomicUsize::into_inner).collect(), seen.into_inner().expect("no panic"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_chunk_runs_once(threads in 1usize..7, jobs in prop::collection::vec(0usize..300, 1..20)) {
        let pool = Pool::new(threads).expect("threads");
        for chunks in jobs {
            let (calls, seen) = count(&pool, chunks);
            prop_assert!(calls.iter().all(|&c| c == 1));
            prop_assert!(seen.iter().all(|&w| w < threads));
        }
    }
}

#[test]
fn parked_workers_come_back() {
    let pool = Pool::new(3).expect("threads");
    for _ in 0..20 {
        // idle workers park, however busy the machine is
        while !pool.shared.beds.iter().all(|b| b.0.parked.load(Ordering::SeqCst)) {
            std::thread::sleep(SPIN);
        }
        // two chunks that wait for each other need two threads
        let met = AtomicUsize::new(0);
        pool.run(2, |_, _| {
            met.fetch_add(1, Ordering::SeqCst);
            while met.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            Ok(())
        })
        .expect("no failure");
    }
}

#[test]
fn a_panic_becomes_an_error_and_the_pool_lives_on() {
    for threads in [1, 4] {
        let pool = Pool::new(threads).expect("threads");
        let failed = pool.run(64, |chunk, _| if chunk == 17 { panic!("chunk {chunk}") } else { Ok(()) });
        assert_eq!(failed, Err(Error::internal("chunk 17")));
        let failed = pool.run(64, |chunk, _| if chunk == 3 { Err(Error::Closed) } else { Ok(()) });
        assert_eq!(failed, Err(Error::Closed));
        assert!(count(&pool, 64).0.iter().all(|&c| c == 1));
    }
}

#[test]
fn a_job_within_a_job_is_an_error() {
    for threads in [1, 3] {
        let pool = Pool::new(threads).expect("threads");
        let inner = pool.run(8, |_, _| pool.run(8, |_, _| Ok(())));
        assert_eq!(inner, Err(Error::internal("a job within a job")));
        assert!(count(&pool, 64).0.iter().all(|&c| c == 1));
    }
}

#[test]
fn several_callers_take_turns() {
    let pool = Pool::shared(3).expect("threads");
    assert!(Arc::ptr_eq(&pool, &Pool::shared(3).expect("threads")));
    assert!(!Arc::ptr_eq(&pool, &Pool::shared(2).expect("threads")));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for chunks in 0..200 {
                    assert!(count(&pool, chunks).0.iter().all(|&c| c == 1));
                }
            });
        }
    });
}

#[test]
fn a_count_out_of_range_is_refused() {
    for threads in [0, MAX_THREADS + 1] {
        let Err(Error::InvalidRequest { name, .. }) = Pool::new(threads) else { panic!("{threads} threads") };
        assert_eq!(name, "threads");
    }
}

/// A child of a fork has no workers and must neither wait for them nor for a lock that they held.
#[test]
#[cfg(unix)]
#[cfg_attr(miri, ignore = "miri cannot fork")]
fn a_child_process_works_alone_and_can_have_a_pool() {
    let pool = Pool::new(3).expect("threads");
    assert!(count(&pool, 10).0.iter().all(|&c| c == 1));
    // SAFETY: the child touches atomics and memory of its own and leaves by `_exit`. The allocator
    // survives a fork on the systems that this runs on.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        let sound = catch_unwind(AssertUnwindSafe(|| {
            let stale = pool.is_stale() && count(&pool, 10).0.iter().all(|&c| c == 1);
            drop(pool);
            let fresh = Pool::new(2).is_ok_and(|p| !p.is_stale() && count(&p, 50).0.iter().all(|&c| c == 1));
            stale && fresh
        }))
        .unwrap_or(false);
        // SAFETY: ends the child without running the test harness's exit handlers.
        unsafe { libc::_exit(i32::from(!sound)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child forked above and writes to `status`.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    assert!(!pool.is_stale() && count(&pool, 10).0.iter().all(|&c| c == 1));
}

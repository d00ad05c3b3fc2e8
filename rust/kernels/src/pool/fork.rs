//! How often this process has forked: a child has none of its parent's threads.

use std::sync::atomic::{AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);

/// Forks between this process and the first one that asked.
#[cfg(unix)]
pub(super) fn count() -> u64 {
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    static WATCH: std::sync::Once = std::sync::Once::new();
    WATCH.call_once(|| {
        // A failure means no memory for the handler: a child would then not notice that it is one.
        // SAFETY: the handler touches one atomic, which is all that a child may safely do.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// Forks: this system has none.
#[cfg(not(unix))]
pub(super) fn count() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

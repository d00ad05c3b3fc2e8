//! The bell that tells an event loop of news, rung by the engine's thread without the interpreter's
//! lock.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

/// A socket that becomes readable when requests have news.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Bell {
    rope: Arc<Rope>,
    ear: UnixStream,
}

/// The ringing end.
pub(crate) struct Rope {
    clapper: UnixStream,
    /// The requests that have news. While there are any, a byte is on its way or about to be.
    tags: Mutex<BTreeSet<u64>>,
}

impl Rope {
    /// Notes that request `tag` has news. Never blocks: one byte at most is under way at a time, but
    /// for a race in which the listener was faster, which costs it an empty answer.
    pub(crate) fn ring(&self, tag: u64) {
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = tags.is_empty();
        tags.insert(tag);
        drop(tags);
        if is_first {
            // a full or closed socket has a listener that is awake or gone
            let _ = (&self.clapper).write(&[1]);
        }
    }
}

impl Bell {
    /// The ringing end.
    pub(crate) fn rope(&self) -> Arc<Rope> {
        Arc::clone(&self.rope)
    }
}

#[pymethods]
impl Bell {
    #[new]
    fn new() -> PyResult<Self> {
        let (clapper, ear) = UnixStream::pair()?;
        clapper.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Self { rope: Arc::new(Rope { clapper, tags: Mutex::default() }), ear })
    }

    /// The file descriptor that becomes readable.
    fn fileno(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// Silences the bell; gives the tags of the requests that have news.
    fn answer(&self) -> Vec<u64> {
        let mut bytes = [0; 64];
        // the bytes before the tags: news that comes between them rings again
        while matches!((&self.ear).read(&mut bytes), Ok(n) if n == bytes.len()) {}
        let mut tags = self.rope.tags.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *tags).into_iter().collect()
    }
}

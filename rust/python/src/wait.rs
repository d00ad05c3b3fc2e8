//! Waiting for the core so that Ctrl-C is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use alloyforge_interfaces::Progress;
use alloyforge_types::{Error, Result};
use pyo3::prelude::*;

use crate::error::{Raise, caught};

/// How long a wait goes on before signals are looked at.
const TURN: Duration = Duration::from_millis(50);

/// Calls `poll` without the interpreter's lock, each time for one turn, until it gives something.
///
/// # Errors
/// What a signal handler raised between two turns: on Ctrl-C, `KeyboardInterrupt`.
pub(crate) fn until<T: Send>(
    py: Python<'_>,
    mut poll: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<T> {
    loop {
        if let Some(value) = py.detach(|| poll(TURN)) {
            return Ok(value);
        }
        py.check_signals()?;
    }
}

/// Does long work on a thread of its own and looks at signals meanwhile. On Ctrl-C the work is left
/// to end by itself, its result dropped there.
///
/// # Errors
/// What the work failed with, or what `between`, called every turn, or a signal handler raised.
pub(crate) fn elsewhere<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
    mut between: impl FnMut(Python<'_>) -> PyResult<()>,
) -> PyResult<T> {
    let (sender, mut receiver) = channel();
    thread::Builder::new().name("alloyforge-call".into()).spawn(move || {
        // nobody is there to take it after Ctrl-C
        let _ = sender.send(caught(work));
    })?;
    loop {
        // exclusively: a receiver may be sent to another thread, not shared with it
        let receiver = &mut receiver;
        match py.detach(move || receiver.recv_timeout(TURN)) {
            Ok(result) => return result.raise(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::internal("the call's thread ended without a result")).raise();
            }
        }
        py.check_signals()?;
        between(py)?;
    }
}

/// As [`elsewhere`], where `work` says how far it is and `progress`, if there is one, is told every turn.
///
/// # Errors
/// As [`elsewhere`].
pub(crate) fn watched<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(Progress) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    // written by the work's threads, read here: they never wait for the interpreter's lock
    let told = Arc::new(AtomicU32::new(0));
    let teller = Arc::clone(&told);
    let tell: Progress = Arc::new(move |done: f32| teller.store(done.to_bits(), Ordering::Relaxed));
    elsewhere(
        py,
        move || work(tell),
        |_| match progress {
            Some(progress) => progress.call1((f32::from_bits(told.load(Ordering::Relaxed)),)).map(drop),
            None => Ok(()),
        },
    )
}

//! A request that is under way.

use std::sync::atomic::{AtomicBool, Ordering};

use alloyforge_engine::{Event, Handle};
use pyo3::prelude::*;

use crate::results;
use crate::wait::until;

/// The caller's end of a request. Dropping it cancels the request.
#[pyclass(frozen, module = "alloyforge._native")]
pub(crate) struct Request {
    handle: Handle,
    is_cancelled: AtomicBool,
}

impl Request {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, is_cancelled: AtomicBool::new(false) }
    }

    fn next_event(&self, py: Python<'_>) -> PyResult<Option<Event>> {
        // the outer `None` is the end of a turn, the inner one that of the request
        let next = until(py, |turn| match self.handle.next(Some(turn)) {
            None if !self.handle.is_over() => None,
            event => Some(event),
        });
        next.inspect_err(|_| self.cancel())
    }
}

#[pymethods]
impl Request {
    /// The next chunk, or the completion; `None` when that has been taken. Waits for it.
    #[pyo3(name = "next")]
    fn next_result<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.next_event(py)?.map(|event| results::event(py, event)).transpose()
    }

    /// As `next`, without waiting: `None` also where there is nothing yet.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.handle.try_next().map(|event| results::event(py, event)).transpose()
    }

    /// The completion, passing over chunks.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            match self.next_event(py)? {
                Some(Event::Chunk(_)) => {}
                event => return event.map(|event| results::event(py, event)).transpose(),
            }
        }
    }

    /// Ends the request; what was written so far comes as its completion.
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.handle.cancel();
    }

    /// Whether `cancel` was called.
    #[getter]
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Whether the completion, or the failure, has been taken.
    #[getter]
    fn is_over(&self) -> bool {
        self.handle.is_over()
    }
}

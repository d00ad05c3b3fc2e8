//! From the core's one error to Python's exceptions.

use std::io::ErrorKind as IoKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use alloyforge_types::{Error, ErrorKind, Result};
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyPermissionError};
use pyo3::prelude::*;

/// Results of the core, raised.
pub(crate) trait Raise<T> {
    /// The value, or the error as a Python exception.
    fn raise(self) -> PyResult<T>;
}

impl<T> Raise<T> for Result<T> {
    fn raise(self) -> PyResult<T> {
        self.map_err(|error| to_exception(&error))
    }
}

/// Does the core's work without the interpreter's lock. A panic is a defect that this one call fails
/// with.
pub(crate) fn core<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| caught(work)).raise()
}

/// A panic in `work` as an `Internal` error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // what `work` borrows is dropped or behind a lock that a panic poisons
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::internal(panic_text(&*panic))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// The exception for `error`, its facts as attributes.
pub(crate) fn to_exception(error: &Error) -> PyErr {
    Python::attach(|py| {
        let made = match class_of(error) {
            Class::Own(name) => own(py, name, error),
            Class::File => return file_error(error),
        };
        made.unwrap_or_else(|failed| failed)
    })
}

/// Where an exception comes from.
enum Class {
    /// A class of `alloyforge.errors`.
    Own(&'static str),
    /// Python's own classes for files.
    File,
}

/// The one place that knows which error is which exception.
fn class_of(error: &Error) -> Class {
    match error.kind() {
        ErrorKind::Format => Class::Own("ModelFormatError"),
        ErrorKind::Unsupported => Class::Own("UnsupportedModelError"),
        ErrorKind::InvalidRequest => Class::Own("InvalidRequestError"),
        ErrorKind::ContextLength => Class::Own("ContextLengthError"),
        ErrorKind::QueueFull => Class::Own("QueueFullError"),
        ErrorKind::Timeout => Class::Own("RequestTimeout"),
        ErrorKind::OutOfMemory => Class::Own("OutOfMemoryError"),
        ErrorKind::Device => Class::Own("DeviceError"),
        ErrorKind::Media => Class::Own("MediaError"),
        ErrorKind::Io => Class::File,
        ErrorKind::Closed => Class::Own("SessionClosedError"),
        ErrorKind::Internal => Class::Own("InternalError"),
    }
}

fn own(py: Python<'_>, class: &str, error: &Error) -> PyResult<PyErr> {
    let exception = py.import("alloyforge.errors")?.getattr(class)?.call1((error.to_string(),))?;
    match error {
        Error::Format { file, item, offset, .. } => {
            exception.setattr("file", file)?;
            exception.setattr("item", item)?;
            exception.setattr("offset", offset)?;
        }
        Error::Unsupported { file, what } => {
            exception.setattr("file", file)?;
            exception.setattr("what", what)?;
        }
        Error::InvalidRequest { name, .. } => exception.setattr("name", name)?,
        Error::ContextLength { tokens, limit } => {
            exception.setattr("name", "prompt")?;
            exception.setattr("tokens", tokens)?;
            exception.setattr("limit", limit)?;
        }
        Error::QueueFull { waiting, limit } => {
            exception.setattr("waiting", waiting)?;
            exception.setattr("limit", limit)?;
        }
        Error::Timeout { seconds } => exception.setattr("seconds", seconds)?,
        Error::OutOfMemory { what, needed, available } => {
            exception.setattr("what", what)?;
            exception.setattr("needed", needed)?;
            exception.setattr("available", available)?;
        }
        Error::Device { device, .. } => exception.setattr("device", device)?,
        Error::Media { item, .. } => exception.setattr("item", item)?,
        // the rest have no facts beside their text
        _ => {}
    }
    Ok(PyErr::from_value(exception))
}

fn file_error(error: &Error) -> PyErr {
    let Error::Io { path, kind, fault } = error else { return PyOSError::new_err(error.to_string()) };
    let path = path.display().to_string();
    // Python makes `filename` and `strerror` of a number and two texts
    match kind {
        IoKind::NotFound => PyFileNotFoundError::new_err((2, fault.clone(), path)),
        IoKind::PermissionDenied => PyPermissionError::new_err((13, fault.clone(), path)),
        _ => PyOSError::new_err((5, fault.clone(), path)),
    }
}

/// One error of every kind, as exceptions: what the tests hold the map against.
#[pyfunction]
pub(crate) fn error_samples() -> Vec<PyErr> {
    ErrorKind::ALL.iter().map(|&kind| to_exception(&sample(kind))).collect()
}

fn sample(kind: ErrorKind) -> Error {
    match kind {
        ErrorKind::Format => Error::Format {
            file: "model.gguf".into(),
            item: "tensor `output.weight`".into(),
            fault: "ends behind the file".into(),
            offset: Some(96),
        },
        ErrorKind::Unsupported => Error::unsupported("model.gguf", "architecture `new`"),
        ErrorKind::InvalidRequest => Error::invalid("top_p", "must be from 0 to 1"),
        ErrorKind::ContextLength => Error::ContextLength { tokens: 9, limit: 8 },
        ErrorKind::QueueFull => Error::QueueFull { waiting: 4, limit: 4 },
        ErrorKind::Timeout => Error::Timeout { seconds: 0.5 },
        ErrorKind::OutOfMemory => Error::OutOfMemory { what: "weights".into(), needed: 2, available: 1 },
        ErrorKind::Device => Error::Device { device: "cuda".into(), fault: "is missing".into() },
        ErrorKind::Media => Error::Media { item: "images[0]".into(), fault: "is empty".into() },
        ErrorKind::Io => {
            Error::Io { path: "model.gguf".into(), kind: IoKind::NotFound, fault: "no such file".into() }
        }
        ErrorKind::Closed => Error::Closed,
        ErrorKind::Internal => Error::internal("a panic"),
    }
}

//! The one error of the project.

use std::path::PathBuf;

/// What every fallible function of the project returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, as data.
///
/// Each variant maps to one Python exception, in one exhaustive match in the binding. Callers branch
/// on the variant, never on the text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A damaged or inconsistent model file.
    #[error("{file}: {item}: {fault}{}", offset.map(|o| format!(" (at byte {o})")).unwrap_or_default())]
    Format {
        /// The file, as the caller named it.
        file: String,
        /// The tensor, metadata key or part of the header at fault.
        item: String,
        /// What is wrong with it.
        fault: String,
        /// Where in the file, in bytes from its start, where that is known.
        offset: Option<u64>,
    },
    /// A sound file of a kind that AlloyForge does not know.
    #[error("{file}: {what} is not supported")]
    Unsupported {
        /// The file, as the caller named it.
        file: String,
        /// What is not known: an architecture, a key and its value, a tensor type.
        what: String,
    },
    /// A request whose parameter is wrong.
    #[error("{name}: {fault}")]
    InvalidRequest {
        /// The parameter at fault, by the name the caller used.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
    /// More tokens than one sequence may hold.
    #[error("the request needs {tokens} tokens, the context holds {limit}")]
    ContextLength {
        /// Tokens that the request needs.
        tokens: usize,
        /// Tokens that one sequence may hold.
        limit: usize,
    },
    /// The queue of waiting requests is full.
    #[error("{waiting} requests are waiting, the queue holds {limit}")]
    QueueFull {
        /// Requests that are waiting.
        waiting: usize,
        /// The most that may wait.
        limit: usize,
    },
    /// The request's own time limit passed.
    #[error("the request did not finish within its timeout of {seconds} s")]
    Timeout {
        /// The limit, in seconds.
        seconds: f64,
    },
    /// More memory than there is, found before it was taken.
    #[error("{what} needs {needed} bytes, {available} are available")]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// A device that is missing or failed.
    #[error("device `{device}`: {fault}")]
    Device {
        /// The device, by the name the caller used.
        device: String,
        /// What is missing or failed.
        fault: String,
    },
    /// A picture, video or sound that cannot be used.
    #[error("{item}: {fault}")]
    Media {
        /// Which of the request's media.
        item: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A file that cannot be read.
    #[error("{}: {fault}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The kind of failure, so that a missing file stays a `FileNotFoundError`.
        kind: std::io::ErrorKind,
        /// The operating system's words.
        fault: String,
    },
    /// The session was closed before the call.
    #[error("the session is closed")]
    Closed,
    /// A defect of AlloyForge itself: the one request fails, the process goes on.
    #[error("internal error: {fault}")]
    Internal {
        /// What was caught.
        fault: String,
    },
}

impl Error {
    /// A [`Error::Format`] without an offset.
    pub fn format(file: impl Into<String>, item: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Format { file: file.into(), item: item.into(), fault: fault.into(), offset: None }
    }

    /// A [`Error::Unsupported`].
    pub fn unsupported(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), what: what.into() }
    }

    /// A [`Error::InvalidRequest`].
    pub fn invalid(name: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::InvalidRequest { name: name.into(), fault: fault.into() }
    }

    /// A [`Error::Internal`].
    pub fn internal(fault: impl Into<String>) -> Self {
        Self::Internal { fault: fault.into() }
    }

    /// A [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io { path: path.into(), kind: error.kind(), fault: error.to_string() }
    }
}

macro_rules! error_kinds {
    ($($kind:ident,)*) => {
        /// Which [`Error`] it is, without the data.
        ///
        /// Unlike the error itself it is no open list: a crate that matches on it is told by the
        /// compiler when a variant is added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the variants are those of `Error`")]
        pub enum ErrorKind { $($kind,)* }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
        }

        impl Error {
            /// Which error it is.
            pub fn kind(&self) -> ErrorKind {
                match self { $(Self::$kind { .. } => ErrorKind::$kind,)* }
            }
        }
    };
}

error_kinds! {
    Format, Unsupported, InvalidRequest, ContextLength, QueueFull, Timeout, OutOfMemory, Device, Media,
    Io, Closed, Internal,
}

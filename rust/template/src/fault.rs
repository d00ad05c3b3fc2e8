//! Why a template failed, in the words that jinja2 or Python would use.

use alloyforge_types::Error;

/// A failure inside a template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault(Box<str>);

/// What everything inside this crate returns.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn new(message: impl Into<Box<str>>) -> Self {
        Self(message.into())
    }

    /// A fault in the source, with its line.
    pub(crate) fn syntax(line: u16, message: impl std::fmt::Display) -> Self {
        Self(format!("line {line}: {message}").into())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::invalid("chat_template", fault.0)
    }
}

/// Returns a [`Fault`] with a formatted message.
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::fault::Fault::new(format!($($arg)*))) };
}
pub(crate) use fail;

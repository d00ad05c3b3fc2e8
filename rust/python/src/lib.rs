//! The Python module `alloyforge._native`: conversion, the interpreter's lock, and the map of errors.
//!
//! Nothing is decided or computed here. The rules of the room: the core runs without the interpreter's
//! lock; a wait for it looks at signals at least every 50 ms, so that Ctrl-C is heard; the engine's
//! thread never takes the lock; a panic is an `InternalError` of the one call; and one match, in
//! `error`, knows which error is which exception.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use pyo3::prelude::*;
use pyo3::types::PyTuple;

mod bell;
mod chat_template;
mod conversation;
mod devices;
mod error;
mod inspect;
mod json;
mod media;
mod numbers;
mod quantize;
mod request;
mod results;
mod sampling;
mod session;
mod speech;
mod tokenizer;
mod wait;

#[pymodule]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::bell::Bell;
    #[pymodule_export]
    use super::chat_template::ChatTemplate;
    #[pymodule_export]
    use super::conversation::Conversation;
    #[pymodule_export]
    use super::devices::{device_faults, devices, seek_cuda_libraries};
    #[pymodule_export]
    use super::error::error_samples;
    #[pymodule_export]
    use super::inspect::inspect;
    #[pymodule_export]
    use super::numbers::{dequantize, probabilities, quantize};
    #[pymodule_export]
    use super::quantize::quantize_model;
    #[pymodule_export]
    use super::request::Request;
    #[pymodule_export]
    use super::session::{Prompt, Session};
    #[pymodule_export]
    use super::speech::{Speech, Transcription, VoiceActivity, decode_flac, is_speech, log_mel, resample};
    #[pymodule_export]
    use super::tokenizer::Tokenizer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("features", PyTuple::new(module.py(), alloyforge::features())?)
    }
}

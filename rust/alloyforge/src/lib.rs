//! The facade: opens a model and wires the rooms.
//!
//! A path becomes a [`Source`] (formats), the source a spec with weights by role
//! (models) and a tokenizer, the weights a backend (backend-cpu or backend-candle) behind the one
//! decoder, and all of it a [`Session`] (engine). This is the only crate that knows every
//! implementation; it decides which one serves, and computes nothing. [`quantize()`] leads from a source
//! to another file.
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod backend;
mod embedding;
mod encoder;
mod hearing;
mod inspect;
mod open;
mod quantize;
mod source;
mod speech;

pub use alloyforge_backend_candle::{DeviceInfo, device_faults, devices, features, seek_cuda_in};
pub use alloyforge_engine::Session;
pub use alloyforge_models::Description;
pub use backend::BackendChoice;
pub use embedding::EmbeddingModel;
pub use inspect::{Inspection, TensorSummary, inspect};
pub use open::{DraftSource, OpenOptions, Opened, open};
pub use quantize::{QuantizeOptions, Quantized, quantize};
pub use source::{Source, open_tokenizer};
pub use speech::{Speech, SpeechInfo, is_speech, open_speech, open_vad};

//! safetensors: a JSON header with names, types, shapes and ranges, then the data.
//!
//! Format: README of huggingface/safetensors. [`SafetensorsStore`] opens one file, or the shards that
//! an index lists.

mod dtype;
mod header;
mod index;
mod store;

pub use dtype::Dtype;
pub use store::{RawTensor, SafetensorsStore};

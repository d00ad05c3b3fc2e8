//! A model's configuration, from either kind of file, read by one set of calls.
//!
//! A family asks for a meaning ([`keys`]), not for a spelling; [`Reader`] knows both spellings, says
//! which key of which file is at fault, and remembers which keys were asked for, so that one which
//! nobody asked for and which is not known to be harmless becomes an error instead of a default.

mod item;
pub(crate) mod keys;
mod neutral;
mod reader;
mod rope;
mod window;

pub(crate) use keys::Key;
pub(crate) use reader::Reader;
pub(crate) use rope::{RopeDefaults, RopeOf};

use alloyforge_types::Metadata;

/// What describes a model, as its files have it.
#[derive(Debug, Clone, Copy)]
pub enum Config<'a> {
    /// The metadata of a GGUF file.
    Gguf(&'a Metadata),
    /// Hugging Face's `config.json`, as transformers 4 or 5 writes it.
    HuggingFace(&'a serde_json::Value),
}

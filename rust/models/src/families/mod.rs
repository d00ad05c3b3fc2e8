//! Families: each a translation from its configuration into a spec, in a file of its own, and one row
//! of a table.
//!
//! A family states what it does differently from [`Dense`](dense::Dense), the decoder that most share.
//! Nothing downstream knows which family a spec came from.

mod dense;
mod moe;

mod llama;
mod mixtral;

use alloyforge_types::{ModelSpec, Result};

use crate::config::Reader;
use crate::weights::names::Names;

/// What a family makes of a configuration.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The decoder.
    pub(crate) spec: ModelSpec,
    /// What the weights are called.
    pub(crate) names: Names,
}

/// One family.
#[derive(Debug)]
pub(crate) struct Family {
    /// transformers' `model_type`, and other names that mean the same.
    pub(crate) model_types: &'static [&'static str],
    /// transformers' class, for configurations that lack a `model_type`.
    pub(crate) class: &'static str,
    /// llama.cpp's architecture names.
    pub(crate) gguf: &'static [&'static str],
    /// The translation.
    pub(crate) build: fn(&Reader<'_>) -> Result<Draft>,
}

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { model_types: &["llama"], class: "LlamaForCausalLM", gguf: &["llama"], build: llama::build },
];

/// The family whose `model_type` is `name`.
pub(crate) fn by_model_type(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.model_types.contains(&name))
}

/// The family of transformers' class `name`.
pub(crate) fn by_class(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.class == name)
}

/// The family of llama.cpp's architecture `name`.
pub(crate) fn by_gguf(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| f.gguf.contains(&name))
}

/// Whether a model of type `name` is a larger one around a text model that can be run alone.
pub(crate) fn is_nested(name: Option<&str>) -> bool {
    name == Some("gemma3")
}

//! Llama 1 to 3, and everything published under its architecture.

use alloyforge_types::{Result, RopeLayout};

use super::dense::{Bias, Dense};
use super::{Draft, mixtral};
use crate::config::{Reader, keys};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    // llama.cpp calls Mistral and Mixtral by this name too
    if c.is_gguf() && c.count(keys::EXPERTS)?.is_some_and(|n| n > 0) {
        return mixtral::build(c);
    }
    let bias = Bias::Configured { default: false };
    let dense =
        Dense { qkv_bias: bias, o_bias: bias, gguf_layout: RopeLayout::Interleaved, ..Dense::default() };
    let mut draft = dense.build(c)?;
    if c.is_gguf() {
        draft.set_window(c.window(None)?);
    }
    Ok(draft)
}

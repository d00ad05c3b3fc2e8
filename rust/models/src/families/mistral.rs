//! Mistral: Llama with a window in every layer. Its GGUF files are Llama's.

use alloyforge_types::Result;

use super::Draft;
use super::dense::Dense;
use crate::config::{Reader, keys};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let dense = Dense { num_kv_heads: Some(8), context_len: 131_072, ..Dense::default() };
    let mut draft = dense.build(c)?;
    draft.set_window(c.window(Some(4096))?);
    // transformers runs this family with one window, whatever the layers are called
    if c.layer_types(draft.num_layers())?.is_some_and(|types| types.windows(2).any(|w| w[0] != w[1])) {
        return Err(c.unsupported(keys::LAYER_TYPES, "windows in some layers only"));
    }
    Ok(draft)
}

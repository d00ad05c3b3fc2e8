//! Qwen2 and Qwen2.5: biases on q, k and v; windows, where switched on, from a layer on.

use alloyforge_types::Result;

use super::Draft;
use super::dense::{Bias, Dense};
use crate::config::{Reader, keys};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let dense = Dense { qkv_bias: Bias::Always, context_len: 32_768, ..Dense::default() };
    let mut draft = dense.build(c)?;
    place_windows(c, &mut draft)?;
    Ok(draft)
}

/// Windows in the layers that `layer_types` lists, else from layer `max_window_layers` on.
pub(super) fn place_windows(c: &Reader<'_>, draft: &mut Draft) -> Result<()> {
    let window = c.switched_window(Some(4096))?;
    let first = c.count(keys::MAX_WINDOW_LAYERS)?.unwrap_or(28);
    let layers = c.windowed_layers(draft.num_layers(), |i| i >= first)?;
    draft.set_windows(window, &layers);
    Ok(())
}

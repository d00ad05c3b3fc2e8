//! SmolLM3: Llama without a rotary embedding in every fourth layer.

use alloyforge_types::{Result, RopeLayout};

use super::Draft;
use super::dense::{Bias, Dense};
use crate::config::{Key, Reader, keys};

const WITH_ROPE: Key = Key::hf("no_rope_layers");
const INTERVAL: Key = Key::hf("no_rope_layer_interval");

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let bias = Bias::Configured { default: false };
    let dense = Dense {
        num_kv_heads: Some(4),
        context_len: 32_768,
        rope_theta: 2_000_000.0,
        has_tied_head: true,
        qkv_bias: bias,
        o_bias: bias,
        gguf_layout: RopeLayout::Interleaved,
        ..Dense::default()
    };
    let mut draft = dense.build(c)?;
    let interval = c.size_or(INTERVAL, 4)?;
    // the list says 1 for a layer with a rotary embedding, whatever its key is called
    let with_rope = match c.integers(WITH_ROPE)? {
        Some(list) if list.len() < draft.num_layers() => {
            return Err(c.fault(WITH_ROPE, format!("has {} elements", list.len())));
        }
        Some(list) => list.into_iter().map(|flag| flag != 0).collect(),
        None => (1..=draft.num_layers()).map(|i| i % interval != 0).collect::<Vec<_>>(),
    };
    for (layer, has_rope) in draft.spec.layers.iter_mut().zip(&with_rope) {
        layer.attention.rope = layer.attention.rope.filter(|_| *has_rope);
    }
    let window = c.switched_window(None)?;
    let windowed = c.windowed_layers(draft.num_layers(), |i| !with_rope[i])?;
    draft.set_windows(window, &windowed);
    c.ignore(&[keys::MAX_WINDOW_LAYERS]);
    Ok(draft)
}

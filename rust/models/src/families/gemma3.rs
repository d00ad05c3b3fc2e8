//! Gemma 3's text model: Gemma 2 with a norm on each head's query and key, five layers with a window
//! to one without, and a rotary embedding for each kind.

use alloyforge_types::{QkNorm, Result, RopeLayout};

use super::Draft;
use super::dense::Dense;
use super::gemma2;
use crate::config::{Reader, RopeDefaults, RopeOf, keys};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let dense = Dense {
        vocab_size: Some(262_208),
        context_len: 131_072,
        rope_theta: 1_000_000.0,
        rope_of: RopeOf::FullLayers,
        qk_norm: QkNorm::PerHead,
        ..gemma2::DENSE
    };
    let mut draft = dense.build(c)?;
    gemma2::finish(c, &mut draft, 62)?;
    // transformers reads the key and does not apply it
    c.refuse(keys::ATTN_SOFTCAP)?;
    draft.spec.logit_softcap = c.positive_number(keys::LOGIT_SOFTCAP)?.map(|cap| cap as f32);

    let windowed = c.windowed_layers(draft.num_layers(), |i| (i + 1) % 6 != 0)?;
    draft.set_windows(c.window(Some(4096))?, &windowed);
    let local = RopeDefaults {
        of: RopeOf::WindowLayers,
        theta: 10_000.0,
        gguf_layout: RopeLayout::Half,
        yarn_truncate: true,
    };
    let head_dim = draft.spec.layers.first().map_or(0, |layer| layer.attention.head_dim);
    draft.spec.ropes.push(c.rope(head_dim, draft.spec.context_len, &local)?);
    for (layer, is_windowed) in draft.spec.layers.iter_mut().zip(windowed) {
        layer.attention.rope = Some(usize::from(is_windowed));
    }
    Ok(draft)
}

//! OLMo 2: norms after attention and MLP, and over the full width of queries and keys.

use alloyforge_types::{LayerRole as L, NormPlacement, QkNorm, Result, RopeScaling};

use super::Draft;
use super::dense::{Bias, Dense};
use crate::config::{Reader, keys};
use crate::weights::names::{Entry, Names};

const NAMES: Names = Names {
    hf: &[
        Entry::layer(L::AttnPostNorm, "{p}layers.{l}.post_attention_layernorm.weight"),
        Entry::layer(L::MlpPostNorm, "{p}layers.{l}.post_feedforward_layernorm.weight"),
    ],
    gguf: &[],
    norm_plus_one: false,
};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let bias = Bias::Configured { default: false };
    let dense = Dense {
        norm_eps: 1e-5,
        qk_norm: QkNorm::FullWidth,
        norms: NormPlacement::Post,
        qkv_bias: bias,
        o_bias: bias,
        names: NAMES,
        ..Dense::default()
    };
    let mut draft = dense.build(c)?;
    if c.is_gguf() {
        place_windows(c, &mut draft)?;
    }
    Ok(draft)
}

/// llama.cpp calls OLMo 3 by this name too: three layers with a window to one without, and the
/// stretched rotary embedding in the latter alone.
fn place_windows(c: &Reader<'_>, draft: &mut Draft) -> Result<()> {
    let Some(window) = c.window(None)? else { return Ok(()) };
    // llama.cpp turns both kinds by one base
    c.ignore(&[keys::ROPE_THETA_SWA]);
    let windowed = c.windowed_layers(draft.num_layers(), |i| (i + 1) % 4 != 0)?;
    draft.set_windows(Some(window), &windowed);
    let plain = draft.spec.ropes.first().map(|rope| {
        let mut rope = rope.clone();
        rope.scaling = RopeScaling::None;
        rope
    });
    draft.spec.ropes.extend(plain);
    for (layer, is_windowed) in draft.spec.layers.iter_mut().zip(windowed) {
        layer.attention.rope = Some(usize::from(is_windowed));
    }
    Ok(())
}

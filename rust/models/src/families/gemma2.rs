//! Gemma 2: norms on both sides, capped logits, a window in every second layer.

use alloyforge_types::{Activation, LayerRole as L, NormPlacement, Result};

use super::Draft;
use super::dense::{Bias, Dense};
use crate::config::{Reader, keys};
use crate::weights::names::{Entry, Names};

pub(super) const NAMES: Names = Names {
    hf: &[
        Entry::layer(L::AttnPostNorm, "{p}layers.{l}.post_attention_layernorm.weight"),
        Entry::layer(L::MlpNorm, "{p}layers.{l}.pre_feedforward_layernorm.weight"),
        Entry::layer(L::MlpPostNorm, "{p}layers.{l}.post_feedforward_layernorm.weight"),
    ],
    gguf: &[],
    norm_plus_one: true,
};

pub(super) const DENSE: Dense = Dense {
    num_heads: Some(8),
    num_kv_heads: Some(4),
    head_dim: Some(256),
    context_len: 8192,
    has_tied_head: true,
    activation: (keys::GEMMA_ACTIVATION, Activation::GeluTanh),
    qkv_bias: Bias::Configured { default: false },
    o_bias: Bias::Configured { default: false },
    norms: NormPlacement::Sandwich,
    names: NAMES,
    ..Dense::LLAMA
};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let mut draft = DENSE.build(c)?;
    finish(c, &mut draft, 46)?;
    let cap = c.nullable_number(keys::ATTN_SOFTCAP, 50.0)?.map(|cap| cap as f32);
    draft.spec.layers.iter_mut().for_each(|layer| layer.attention.softcap = cap);
    draft.spec.logit_softcap = c.nullable_number(keys::LOGIT_SOFTCAP, 30.0)?.map(|cap| cap as f32);
    let windowed = c.windowed_layers(draft.num_layers(), |i| i % 2 == 0)?;
    draft.set_windows(c.window(Some(4096))?, &windowed);
    Ok(draft)
}

/// What Gemma 2 and 3 share: scaled embeddings, and queries scaled by a number of their own. A GGUF
/// file leaves that out; it is a head's width but in the 27B model, which has `layers_27b` layers.
pub(super) fn finish(c: &Reader<'_>, draft: &mut Draft, layers_27b: usize) -> Result<()> {
    // superseded by `hidden_activation`, and a copy of `sliding_window`
    c.ignore(&[keys::ACTIVATION, keys::Key::hf("sliding_window_size")]);
    c.refuse(keys::BIDIRECTIONAL)?;
    let hidden = draft.spec.hidden_dim;
    draft.spec.embedding_scale = (hidden as f64).sqrt() as f32;
    let is_27b = draft.num_layers() == layers_27b;
    let scalar = if c.is_gguf() { None } else { c.positive_number(keys::QUERY_SCALAR)?.or(Some(256.0)) };
    for attention in draft.spec.layers.iter_mut().map(|layer| &mut layer.attention) {
        let width = if is_27b { hidden / attention.num_heads } else { attention.head_dim };
        attention.scale = scalar.unwrap_or(width as f64).powf(-0.5) as f32;
    }
    Ok(())
}

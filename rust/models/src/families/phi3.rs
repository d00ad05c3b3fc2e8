//! Phi-3, Phi-3.5 mini and Phi-4 mini: q, k and v in one tensor, gate and up in one, heads that turn
//! in part, LongRoPE.

use alloyforge_types::{LayerRole as L, Result};

use super::Draft;
use super::dense::Dense;
use crate::config::{Key, Reader};
use crate::weights::names::{Entry, Names, Part};

const NAMES: Names = Names {
    hf: &[
        Entry::piece(L::Q, "{p}layers.{l}.self_attn.qkv_proj.weight", Part::Qkv),
        Entry::piece(L::K, "{p}layers.{l}.self_attn.qkv_proj.weight", Part::Qkv),
        Entry::piece(L::V, "{p}layers.{l}.self_attn.qkv_proj.weight", Part::Qkv),
        Entry::piece(L::Gate, "{p}layers.{l}.mlp.gate_up_proj.weight", Part::GateUp),
        Entry::piece(L::Up, "{p}layers.{l}.mlp.gate_up_proj.weight", Part::GateUp),
    ],
    gguf: &[
        Entry::piece(L::Gate, "blk.{l}.ffn_up.weight", Part::GateUp),
        Entry::piece(L::Up, "blk.{l}.ffn_up.weight", Part::GateUp),
    ],
    norm_plus_one: false,
};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let dense = Dense { context_len: 4096, norm_eps: 1e-5, names: NAMES, ..Dense::default() };
    let mut draft = dense.build(c)?;
    draft.set_window(c.window(None)?);
    // Phi-4 mini's configuration has both, as 1
    c.require(Key::hf("full_attn_mod"), 1.0)?;
    c.require(Key::hf("interpolate_factor"), 1.0)?;
    Ok(draft)
}

//! Mixtral: Mistral with a mixture of experts in every layer.

use alloyforge_types::{Activation, ExpertRole as E, LayerRole as L, Result, RopeLayout, RouterOrder};

use super::Draft;
use super::dense::Dense;
use super::moe::Experts;
use crate::config::{Key, Reader, keys};
use crate::weights::names::{Entry, Names, Part};

const NAMES: Names = Names {
    hf: &[
        Entry::layer(L::Router, "{p}layers.{l}.block_sparse_moe.gate.weight"),
        Entry::layer(L::Router, "{p}layers.{l}.mlp.gate.weight"),
        Entry::expert(E::Gate, "{p}layers.{l}.block_sparse_moe.experts.{e}.w1.weight", Part::Whole),
        Entry::expert(E::Gate, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUp),
        Entry::expert(E::Up, "{p}layers.{l}.block_sparse_moe.experts.{e}.w3.weight", Part::Whole),
        Entry::expert(E::Up, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUp),
        Entry::expert(E::Down, "{p}layers.{l}.block_sparse_moe.experts.{e}.w2.weight", Part::Whole),
        Entry::expert(E::Down, "{p}layers.{l}.mlp.experts.down_proj", Part::Expert),
    ],
    gguf: &[],
    norm_plus_one: false,
};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let dense = Dense {
        num_kv_heads: Some(8),
        context_len: 131_072,
        norm_eps: 1e-5,
        rope_theta: 1_000_000.0,
        gguf_layout: RopeLayout::Interleaved,
        names: NAMES,
        ..Dense::default()
    };
    let mut draft = dense.build(c)?;
    draft.set_window(c.window(None)?);
    let experts = Experts {
        count: 8,
        used: 2,
        ff: Key { hf: "", ..keys::EXPERT_FF },
        activation: Activation::Silu,
        order: RouterOrder::TopKThenSoftmax,
        has_bias: false,
    };
    experts.place(c, &mut draft, |_| true)?;
    Ok(draft)
}

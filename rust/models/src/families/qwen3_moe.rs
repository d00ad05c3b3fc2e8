//! Qwen3-MoE: Qwen3 with a mixture of experts in most layers.

use alloyforge_types::{Activation, QkNorm, Result, RouterOrder};

use super::Draft;
use super::dense::{Bias, Dense};
use super::moe::Experts;
use crate::config::{Key, Reader, keys};

const STEP: Key = Key::hf("decoder_sparse_step");
const DENSE_LAYERS: Key = Key::hf("mlp_only_layers");
const RENORMALISE: Key = Key::both("norm_topk_prob", "expert_weights_norm");

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let bias = Bias::Configured { default: false };
    let dense = Dense {
        num_kv_heads: Some(4),
        context_len: 32_768,
        qk_norm: QkNorm::PerHead,
        qkv_bias: bias,
        o_bias: bias,
        ..Dense::default()
    };
    let mut draft = dense.build(c)?;
    draft.set_window(c.switched_window(Some(4096))?);
    // written, but not looked at
    c.ignore(&[keys::MAX_WINDOW_LAYERS]);

    let step = c.size_or(STEP, 1)?;
    let dense_layers = c.integers(DENSE_LAYERS)?.unwrap_or_default();
    let is_sparse = |i: usize| match c.is_gguf() {
        true => c.has_tensor(&format!("blk.{i}.ffn_gate_inp.weight")),
        false => !dense_layers.contains(&i) && (i + 1).is_multiple_of(step),
    };
    let experts = Experts {
        count: 128,
        used: 8,
        ff: keys::EXPERT_FF,
        activation: Activation::Silu,
        // llama.cpp divides by the sum where the file is silent
        order: RouterOrder::SoftmaxThenTopK { renormalise: c.flag(RENORMALISE, c.is_gguf())? },
        has_bias: false,
    };
    experts.place(c, &mut draft, is_sparse)?;
    Ok(draft)
}

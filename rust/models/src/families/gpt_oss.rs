//! GPT-OSS: attention sinks, biases everywhere, a window in every second layer, experts with a clamped
//! activation.

use alloyforge_types::{Activation, ExpertRole as E, LayerRole as L, MlpSpec, Result, RouterOrder};

use super::Draft;
use super::dense::{Bias, Dense};
use super::moe::Experts;
use crate::config::{Key, Reader, keys};
use crate::weights::names::{Entry, Names, Part};

const ALPHA: Key = Key::hf("swiglu_alpha");
const LIMIT: Key = Key::hf("swiglu_limit");

const NAMES: Names = Names {
    hf: &[
        Entry::layer(L::Router, "{p}layers.{l}.mlp.router.weight"),
        Entry::layer(L::RouterBias, "{p}layers.{l}.mlp.router.bias"),
        Entry::expert(E::Gate, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUpTurned),
        Entry::expert(E::Gate, "{p}layers.{l}.mlp.experts.gate_up_proj_blocks", Part::ExpertGateUpMxfp4),
        Entry::expert(E::Up, "{p}layers.{l}.mlp.experts.gate_up_proj", Part::ExpertGateUpTurned),
        Entry::expert(E::Up, "{p}layers.{l}.mlp.experts.gate_up_proj_blocks", Part::ExpertGateUpMxfp4),
        Entry::expert(E::Down, "{p}layers.{l}.mlp.experts.down_proj", Part::ExpertTurned),
        Entry::expert(E::Down, "{p}layers.{l}.mlp.experts.down_proj_blocks", Part::ExpertMxfp4),
        Entry::expert(E::GateBias, "{p}layers.{l}.mlp.experts.gate_up_proj_bias", Part::ExpertGateUpBias),
        Entry::expert(E::UpBias, "{p}layers.{l}.mlp.experts.gate_up_proj_bias", Part::ExpertGateUpBias),
        Entry::expert(E::DownBias, "{p}layers.{l}.mlp.experts.down_proj_bias", Part::Expert),
    ],
    // llama.cpp's name for the norm before the MLP is that of other families' norm after attention
    gguf: &[Entry::layer(L::MlpNorm, "blk.{l}.post_attention_norm.weight")],
    norm_plus_one: false,
};

pub(super) fn build(c: &Reader<'_>) -> Result<Draft> {
    let bias = Bias::Configured { default: true };
    let dense = Dense {
        num_kv_heads: Some(8),
        head_dim: Some(64),
        context_len: 131_072,
        norm_eps: 1e-5,
        rope_theta: 150_000.0,
        qkv_bias: bias,
        o_bias: bias,
        // its own configuration says false; a GGUF file has no key for it
        yarn_truncate: !c.is_gguf(),
        names: NAMES,
        ..Dense::default()
    };
    if !c.is_gguf() && !c.has(keys::ROPE_PARAMETERS) && !c.has(keys::ROPE_SCALING) {
        return Err(c.fault(keys::ROPE_PARAMETERS, "is missing"));
    }
    let mut draft = dense.build(c)?;
    if draft.spec.layers.iter().any(|l| !matches!(l.mlp, MlpSpec::Dense { activation: Activation::Silu, .. }))
    {
        return Err(c.unsupported(keys::ACTIVATION, "not the activation that is clamped"));
    }
    draft.spec.layers.iter_mut().for_each(|layer| layer.attention.has_sinks = true);
    let windowed = c.windowed_layers(draft.num_layers(), |i| i % 2 == 0)?;
    draft.set_windows(c.window(Some(128))?, &windowed);

    let experts = Experts {
        count: 128,
        used: 4,
        ff: Key { hf: "", ..keys::EXPERT_FF },
        activation: Activation::ClampedSwiglu {
            alpha: c.positive_number(ALPHA)?.unwrap_or(1.702) as f32,
            limit: c.positive_number(LIMIT)?.unwrap_or(7.0) as f32,
        },
        order: RouterOrder::TopKThenSoftmax,
        has_bias: true,
    };
    experts.place(c, &mut draft, |_| true)?;
    c.accept_quantization("mxfp4")?;
    // copies of `num_experts_per_tok` and of the length before YaRN
    c.ignore(&[Key::hf("experts_per_token"), Key::hf("initial_context_length")]);
    Ok(draft)
}

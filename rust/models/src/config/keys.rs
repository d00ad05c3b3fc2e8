//! The spellings of what families ask for.

/// One meaning in its two spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// In `config.json`; empty where there is none.
    pub(crate) hf: &'static str,
    /// In GGUF metadata, after the architecture and a dot; empty where there is none.
    pub(crate) gguf: &'static str,
}

impl Key {
    /// A meaning that both files have.
    pub(crate) const fn both(hf: &'static str, gguf: &'static str) -> Self {
        Self { hf, gguf }
    }

    /// A meaning that `config.json` alone has.
    pub(crate) const fn hf(hf: &'static str) -> Self {
        Self { hf, gguf: "" }
    }

    /// A meaning that GGUF metadata alone has.
    pub(crate) const fn gguf(gguf: &'static str) -> Self {
        Self { hf: "", gguf }
    }
}

pub(crate) const LAYERS: Key = Key::both("num_hidden_layers", "block_count");
pub(crate) const HIDDEN: Key = Key::both("hidden_size", "embedding_length");
pub(crate) const VOCAB: Key = Key::both("vocab_size", "vocab_size");
pub(crate) const CONTEXT: Key = Key::both("max_position_embeddings", "context_length");
pub(crate) const NORM_EPS: Key = Key::both("rms_norm_eps", "attention.layer_norm_rms_epsilon");
pub(crate) const HEADS: Key = Key::both("num_attention_heads", "attention.head_count");
pub(crate) const KV_HEADS: Key = Key::both("num_key_value_heads", "attention.head_count_kv");
pub(crate) const HEAD_DIM: Key = Key::both("head_dim", "attention.key_length");
pub(crate) const VALUE_DIM: Key = Key::gguf("attention.value_length");
pub(crate) const FF: Key = Key::both("intermediate_size", "feed_forward_length");
pub(crate) const WINDOW: Key = Key::both("sliding_window", "attention.sliding_window");
pub(crate) const WINDOW_PATTERN: Key =
    Key::both("sliding_window_pattern", "attention.sliding_window_pattern");
pub(crate) const OLD_WINDOW_PATTERN: Key = Key::hf("_sliding_window_pattern");
pub(crate) const LAYER_TYPES: Key = Key::hf("layer_types");
pub(crate) const MAX_WINDOW_LAYERS: Key = Key::hf("max_window_layers");
pub(crate) const USE_WINDOW: Key = Key::hf("use_sliding_window");
pub(crate) const ACTIVATION: Key = Key::hf("hidden_act");
pub(crate) const GEMMA_ACTIVATION: Key = Key::hf("hidden_activation");
pub(crate) const ATTENTION_BIAS: Key = Key::hf("attention_bias");
pub(crate) const MLP_BIAS: Key = Key::hf("mlp_bias");
pub(crate) const TIED: Key = Key::hf("tie_word_embeddings");
pub(crate) const ATTN_SOFTCAP: Key = Key::both("attn_logit_softcapping", "attn_logit_softcapping");
pub(crate) const LOGIT_SOFTCAP: Key = Key::both("final_logit_softcapping", "final_logit_softcapping");
pub(crate) const EXPERTS: Key = Key::both("num_local_experts", "expert_count");
pub(crate) const OLD_EXPERTS: Key = Key::hf("num_experts");
pub(crate) const EXPERTS_USED: Key = Key::both("num_experts_per_tok", "expert_used_count");
pub(crate) const EXPERT_FF: Key = Key::both("moe_intermediate_size", "expert_feed_forward_length");
pub(crate) const GATING: Key = Key::gguf("expert_gating_func");
pub(crate) const EXPERT_SCALE: Key = Key::gguf("expert_weights_scale");
pub(crate) const CAUSAL: Key = Key::both("is_causal", "attention.causal");
pub(crate) const QUERY_SCALAR: Key = Key::hf("query_pre_attn_scalar");
pub(crate) const BIDIRECTIONAL: Key = Key::hf("use_bidirectional_attention");
pub(crate) const QUANTIZATION: Key = Key::hf("quantization_config");

pub(crate) const ROPE_PARAMETERS: Key = Key::hf("rope_parameters");
pub(crate) const ROPE_SCALING: Key = Key::hf("rope_scaling");
pub(crate) const ROPE_THETA: Key = Key::both("rope_theta", "rope.freq_base");
pub(crate) const ROPE_THETA_SWA: Key = Key::both("rope_local_base_freq", "rope.freq_base_swa");
pub(crate) const ROPE_PARTIAL: Key = Key::hf("partial_rotary_factor");
pub(crate) const ROPE_ORIGINAL: Key =
    Key::both("original_max_position_embeddings", "rope.scaling.original_context_length");
pub(crate) const ROPE_SECTIONS: Key = Key::gguf("rope.dimension_sections");
pub(crate) const ROPE_DIM: Key = Key::gguf("rope.dimension_count");
pub(crate) const ROPE_TYPE: Key = Key::gguf("rope.scaling.type");
pub(crate) const ROPE_FACTOR: Key = Key::gguf("rope.scaling.factor");
pub(crate) const ROPE_OLD_FACTOR: Key = Key::gguf("rope.scale_linear");
pub(crate) const ROPE_MAGNITUDE: Key = Key::gguf("rope.scaling.attn_factor");
pub(crate) const YARN_LOG_MUL: Key = Key::gguf("rope.scaling.yarn_log_multiplier");
pub(crate) const YARN_BETA_FAST: Key = Key::gguf("rope.scaling.yarn_beta_fast");
pub(crate) const YARN_BETA_SLOW: Key = Key::gguf("rope.scaling.yarn_beta_slow");
pub(crate) const YARN_MAGNITUDE: Key = Key::gguf("rope.scaling.yarn_attn_factor");
pub(crate) const YARN_EXTRAPOLATION: Key = Key::gguf("rope.scaling.yarn_ext_factor");

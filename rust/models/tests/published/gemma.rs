//! Gemma 2 and 3.

use alloyforge_types::{Activation, MlpSpec, NormPlacement, RopeScaling};
use serde_json::json;

use crate::support::FakeStore;
use crate::support::shapes::{Sizes, hf, hf_layers};
use crate::{attention, resolved, windows};

fn gemma_norms(store: &mut FakeStore, layers: usize, hidden: usize, prefix: &str) {
    let norms: [(&str, &[usize]); 2] =
        [("pre_feedforward_layernorm.weight", &[hidden]), ("post_feedforward_layernorm.weight", &[hidden])];
    hf_layers(store, layers, prefix, &norms);
}

#[test]
fn gemma_2_27b() {
    let sizes = Sizes {
        layers: 46,
        hidden: 4608,
        heads: 32,
        kv_heads: 16,
        head_dim: 128,
        ff: 36864,
        vocab: 256_000,
        is_tied: true,
    };
    let mut store = hf(&sizes, "model.");
    gemma_norms(&mut store, 46, 4608, "model.");
    let resolved = resolved(
        &store,
        json!({
            "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
            "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 128,
            "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608,
            "initializer_range": 0.02, "intermediate_size": 36864, "max_position_embeddings": 8192,
            "model_type": "gemma2", "num_attention_heads": 32, "num_hidden_layers": 46,
            "num_key_value_heads": 16, "pad_token_id": 0, "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096,
            "torch_dtype": "bfloat16", "transformers_version": "4.42.0.dev0", "use_cache": true,
            "vocab_size": 256000
        }),
    );
    assert_eq!(resolved.parameters, 27_227_128_320);
    let spec = &resolved.spec;
    assert_eq!(attention(spec, 0).scale, 1.0 / 12.0);
    assert_eq!((attention(spec, 0).softcap, spec.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(&windows(spec)[..3], &[Some(4096), None, Some(4096)]);
    assert_eq!(spec.embedding_scale, 4608f32.sqrt());
    assert_eq!(spec.layers[0].norms, NormPlacement::Sandwich);
    let MlpSpec::Dense { activation, .. } = spec.layers[0].mlp else { panic!("experts") };
    assert_eq!(activation, Activation::GeluTanh);
}

#[test]
fn gemma_3_1b() {
    let sizes = Sizes {
        layers: 26,
        hidden: 1152,
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
        ff: 6912,
        vocab: 262_144,
        is_tied: true,
    };
    let mut store = hf(&sizes, "model.");
    gemma_norms(&mut store, 26, 1152, "model.");
    let norms: [(&str, &[usize]); 2] =
        [("self_attn.q_norm.weight", &[256]), ("self_attn.k_norm.weight", &[256])];
    hf_layers(&mut store, 26, "model.", &norms);
    let resolved = resolved(
        &store,
        json!({
            "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
            "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
            "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
            "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
            "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
            "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
            "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true,
            "vocab_size": 262144
        }),
    );
    assert_eq!(resolved.parameters, 999_885_952);
    let spec = &resolved.spec;
    for (i, layer) in spec.layers.iter().enumerate() {
        let is_full = i % 6 == 5;
        assert_eq!(layer.attention.window, (!is_full).then_some(512), "{i}");
        let rope = &spec.ropes[layer.attention.rope.unwrap()];
        assert_eq!(rope.theta, if is_full { 1_000_000.0 } else { 10_000.0 }, "{i}");
    }
}

/// The vision model's configuration, which leaves out what its class defaults to.
#[test]
fn gemma_3_4b_text_part() {
    let sizes = Sizes {
        layers: 34,
        hidden: 2560,
        heads: 8,
        kv_heads: 4,
        head_dim: 256,
        ff: 10240,
        vocab: 262_208,
        is_tied: true,
    };
    for prefix in ["language_model.model.", "model.language_model."] {
        let mut store = hf(&sizes, prefix);
        gemma_norms(&mut store, 34, 2560, prefix);
        let norms: [(&str, &[usize]); 2] =
            [("self_attn.q_norm.weight", &[256]), ("self_attn.k_norm.weight", &[256])];
        hf_layers(&mut store, 34, prefix, &norms);
        store.shape("vision_tower.vision_model.post_layernorm.weight", &[1152]);
        let resolved = resolved(
            &store,
            json!({
                "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
                "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
                "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
                "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024},
                "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
                "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"}
            }),
        );
        let spec = &resolved.spec;
        assert_eq!((attention(spec, 0).num_heads, attention(spec, 0).num_kv_heads), (8, 4));
        assert_eq!(spec.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
        assert_eq!((spec.ropes[0].theta, spec.ropes[1].theta), (1_000_000.0, 10_000.0));
        assert_eq!(spec.ropes[1].scaling, RopeScaling::None);
        assert!(spec.has_tied_head);
    }
}

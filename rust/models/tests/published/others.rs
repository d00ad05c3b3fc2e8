//! SmolLM3, OLMo 2 and GPT-OSS.

use alloyforge_models::Config;
use alloyforge_types::{Activation, MlpSpec, NormPlacement, QkNorm, RopeScaling};
use serde_json::json;

use crate::support::shapes::{Sizes, hf, hf_layers, hf_without_mlp};
use crate::{attention, resolved, windows};

#[test]
fn smollm3_3b() {
    let sizes = Sizes {
        layers: 36,
        hidden: 2048,
        heads: 16,
        kv_heads: 4,
        head_dim: 128,
        ff: 11008,
        vocab: 128_256,
        is_tied: true,
    };
    let mut config = json!({
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": null, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 65536,
        "max_window_layers": 28, "mlp_bias": false, "model_type": "smollm3",
        "no_rope_layer_interval": 4, "num_attention_heads": 16, "num_hidden_layers": 36,
        "num_key_value_heads": 4, "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 5000000.0, "sliding_window": null, "torch_dtype": "bfloat16",
        "transformers_version": "4.54.0.dev0", "use_cache": false, "use_sliding_window": false,
        "vocab_size": 128256
    });
    let by_interval = resolved(&hf(&sizes, "model."), config.clone());
    assert_eq!(by_interval.parameters, 3_075_098_624);
    let expected: Vec<_> = (0..36).map(|i| (i % 4 != 3).then_some(0)).collect();
    let ropes: Vec<_> = by_interval.spec.layers.iter().map(|l| l.attention.rope).collect();
    assert_eq!(ropes, expected);
    config["no_rope_layers"] = (0..36).map(|i| i32::from(i % 4 != 3)).collect();
    assert_eq!(resolved(&hf(&sizes, "model."), config).spec, by_interval.spec);
}

#[test]
fn olmo_2_7b() {
    let sizes = Sizes {
        layers: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        ff: 11008,
        vocab: 100_352,
        is_tied: false,
    };
    let mut store = hf(&sizes, "model.");
    for i in 0..32 {
        store.remove(&format!("model.layers.{i}.input_layernorm.weight"));
    }
    let norms: [(&str, &[usize]); 3] = [
        ("post_feedforward_layernorm.weight", &[4096]),
        ("self_attn.q_norm.weight", &[4096]),
        ("self_attn.k_norm.weight", &[4096]),
    ];
    hf_layers(&mut store, 32, "model.", &norms);
    let resolved = resolved(
        &store,
        json!({
            "architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "olmo2",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
            "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
            "tie_word_embeddings": false, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
            "use_cache": true, "vocab_size": 100352
        }),
    );
    assert_eq!(resolved.parameters, 7_298_617_344);
    assert_eq!(resolved.spec.layers[0].norms, NormPlacement::Post);
    assert_eq!(attention(&resolved.spec, 0).qk_norm, QkNorm::FullWidth);
}

#[test]
fn gpt_oss_20b_as_published_in_mxfp4() {
    let sizes = Sizes {
        layers: 24,
        hidden: 2880,
        heads: 64,
        kv_heads: 8,
        head_dim: 64,
        ff: 2880,
        vocab: 201_088,
        is_tied: false,
    };
    let mut store = hf_without_mlp(&sizes, "model.");
    let tensors: [(&str, &[usize]); 9] = [
        ("self_attn.q_proj.bias", &[4096]),
        ("self_attn.k_proj.bias", &[512]),
        ("self_attn.v_proj.bias", &[512]),
        ("self_attn.o_proj.bias", &[2880]),
        ("self_attn.sinks", &[64]),
        ("mlp.router.weight", &[32, 2880]),
        ("mlp.router.bias", &[32]),
        ("mlp.experts.gate_up_proj_bias", &[32, 5760]),
        ("mlp.experts.down_proj_bias", &[32, 2880]),
    ];
    hf_layers(&mut store, 24, "model.", &tensors);
    for i in 0..24 {
        let experts = format!("model.layers.{i}.mlp.experts");
        store.packed(format!("{experts}.gate_up_proj_blocks"), &[32, 5760, 90, 16], Vec::new());
        store.packed(format!("{experts}.gate_up_proj_scales"), &[32, 5760, 90], Vec::new());
        store.packed(format!("{experts}.down_proj_blocks"), &[32, 2880, 90, 16], Vec::new());
        store.packed(format!("{experts}.down_proj_scales"), &[32, 2880, 90], Vec::new());
    }
    let layer_types: Vec<_> =
        (0..24).map(|i| if i % 2 == 0 { "sliding_attention" } else { "full_attention" }).collect();
    let mut config = json!({
        "architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
        "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
        "intermediate_size": 2880, "layer_types": layer_types, "max_position_embeddings": 131072,
        "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4,
        "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
        "output_router_logits": false, "pad_token_id": 199999,
        "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0,
        "tie_word_embeddings": false, "transformers_version": "4.55.0.dev0", "use_cache": true,
        "vocab_size": 201088
    });
    let resolved = resolved(&store, config.clone());
    assert_eq!(resolved.parameters, 20_914_757_184);
    let spec = &resolved.spec;
    assert!(attention(spec, 0).has_sinks && attention(spec, 0).has_o_bias);
    assert_eq!(&windows(spec)[..2], &[Some(128), None]);
    let MlpSpec::Moe(moe) = &spec.layers[0].mlp else { panic!("no experts") };
    assert_eq!(moe.activation, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    assert!(moe.has_router_bias && moe.has_expert_bias);
    let RopeScaling::Yarn { truncate, magnitude, .. } = spec.ropes[0].scaling else { panic!("no yarn") };
    assert!(!truncate && (magnitude - 1.346_573_6).abs() < 1e-6);

    config["quantization_config"]["quant_method"] = json!("gptq");
    let refused = store.resolve(Config::HuggingFace(&config)).unwrap_err().to_string();
    assert!(refused.contains("quantization_config") && refused.contains("gptq"), "{refused}");
}

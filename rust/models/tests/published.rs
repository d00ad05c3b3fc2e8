//! Published models: their `config.json` as it is on the hub, their tensors by name and shape, and
//! what is known of them, the count of parameters above all.

mod support;

use alloyforge_models::{Config, Resolved};
use alloyforge_types::{
    Activation, AttentionSpec, MlpSpec, ModelSpec, NormPlacement, QkNorm, RopeLayout, RopeScaling,
    RouterOrder,
};
use serde_json::{Value, json};
use support::FakeStore;
use support::shapes::{Sizes, hf, hf_layers, hf_without_mlp};

#[track_caller]
fn resolved(store: &FakeStore, config: Value) -> Resolved {
    store.resolve(Config::HuggingFace(&config)).unwrap_or_else(|e| panic!("{e}"))
}

fn attention(spec: &ModelSpec, layer: usize) -> &AttentionSpec {
    &spec.layers[layer].attention
}

fn windows(spec: &ModelSpec) -> Vec<Option<usize>> {
    spec.layers.iter().map(|l| l.attention.window).collect()
}

#[test]
fn llama_3_1_8b() {
    let sizes = Sizes {
        layers: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ff: 14336,
        vocab: 128256,
        is_tied: false,
    };
    let resolved = resolved(
        &hf(&sizes, "model."),
        json!({
            "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
            "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
            "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"},
            "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.43.0.dev0", "use_cache": true, "vocab_size": 128256
        }),
    );
    assert_eq!(resolved.parameters, 8_030_261_248);
    let spec = &resolved.spec;
    assert_eq!((spec.context_len, spec.norm_eps), (131_072, 1e-5));
    let rope = &spec.ropes[0];
    assert_eq!((rope.theta, rope.dim, rope.layout), (500_000.0, 128, RopeLayout::Half));
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_len: 8192 };
    assert_eq!(rope.scaling, llama3);
    assert_eq!(attention(spec, 0).scale, 1.0 / 128f32.sqrt());
    assert_eq!(spec.kv_groups.len(), 1);
}

#[test]
fn smollm2_135m() {
    let sizes = Sizes {
        layers: 30,
        hidden: 576,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        ff: 1536,
        vocab: 49152,
        is_tied: true,
    };
    let resolved = resolved(
        &hf(&sizes, "model."),
        json!({
            "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
            "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
            "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
            "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
            "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers_version": "4.42.3", "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            "use_cache": true, "vocab_size": 49152
        }),
    );
    assert_eq!(resolved.parameters, 134_515_008);
    assert!(resolved.spec.has_tied_head);
}

fn mistral_sizes() -> Sizes {
    Sizes {
        layers: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ff: 14336,
        vocab: 32000,
        is_tied: false,
    }
}

#[test]
fn mistral_7b() {
    let resolved = resolved(
        &hf(&mistral_sizes(), "model."),
        json!({
            "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
            "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
            "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000
        }),
    );
    assert_eq!(resolved.parameters, 7_241_732_096);
    assert_eq!(windows(&resolved.spec), vec![Some(4096); 32]);
}

#[test]
fn mixtral_8x7b() {
    let mut store = hf_without_mlp(&mistral_sizes(), "model.");
    hf_layers(&mut store, 32, "model.", &[("block_sparse_moe.gate.weight", &[8, 4096])]);
    for e in 0..8 {
        let name = |w: &str| format!("block_sparse_moe.experts.{e}.{w}.weight");
        let (gate, down, up) = (name("w1"), name("w2"), name("w3"));
        let tensors: [(&str, &[usize]); 3] =
            [(&gate, &[14336, 4096]), (&down, &[4096, 14336]), (&up, &[14336, 4096])];
        hf_layers(&mut store, 32, "model.", &tensors);
    }
    let resolved = resolved(
        &store,
        json!({
            "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
            "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
            "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
            "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
            "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.36.0.dev0", "use_cache": true, "vocab_size": 32000
        }),
    );
    assert_eq!(resolved.parameters, 46_702_792_704);
    let MlpSpec::Moe(moe) = &resolved.spec.layers[0].mlp else { panic!("no experts") };
    assert_eq!((moe.num_experts, moe.experts_per_token, moe.ff_dim), (8, 2, 14336));
    assert_eq!(moe.order, RouterOrder::TopKThenSoftmax);
    assert_eq!(windows(&resolved.spec), vec![None; 32]);
}

fn qwen2_5_7b(use_window: bool) -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 20,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.43.1",
        "use_cache": true, "use_sliding_window": use_window, "vocab_size": 152064
    })
}

#[test]
fn qwen2_5_7b_with_and_without_window() {
    let sizes = Sizes {
        layers: 28,
        hidden: 3584,
        heads: 28,
        kv_heads: 4,
        head_dim: 128,
        ff: 18944,
        vocab: 152_064,
        is_tied: false,
    };
    let mut store = hf(&sizes, "model.");
    let biases: [(&str, &[usize]); 3] = [
        ("self_attn.q_proj.bias", &[3584]),
        ("self_attn.k_proj.bias", &[512]),
        ("self_attn.v_proj.bias", &[512]),
    ];
    hf_layers(&mut store, 28, "model.", &biases);
    let plain = resolved(&store, qwen2_5_7b(false));
    assert_eq!(plain.parameters, 7_615_616_512);
    assert_eq!(windows(&plain.spec), vec![None; 28]);
    assert!(attention(&plain.spec, 0).has_qkv_bias && !attention(&plain.spec, 0).has_o_bias);

    let windowed = resolved(&store, qwen2_5_7b(true)).spec;
    let expected: Vec<_> = (0..28).map(|i| (i >= 20).then_some(131_072)).collect();
    assert_eq!(windows(&windowed), expected);
    assert_eq!(windowed.kv_groups.len(), 2);
    assert_eq!(windowed.kv_groups[1].layers, (20..28).collect::<Vec<_>>());

    // with YaRN, as its model card tells to add it
    let mut yarn = qwen2_5_7b(false);
    yarn["rope_scaling"] = json!({"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"});
    let RopeScaling::Yarn { factor, original_len, truncate, magnitude, .. } =
        resolved(&store, yarn).spec.ropes[0].scaling
    else {
        panic!("no yarn")
    };
    assert_eq!((factor, original_len, truncate), (4.0, 32_768, true));
    assert!((magnitude - 1.138_629_4).abs() < 1e-6);
}

#[test]
fn qwen3_8b_and_30b_a3b() {
    let sizes = Sizes {
        layers: 36,
        hidden: 4096,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ff: 12288,
        vocab: 151_936,
        is_tied: false,
    };
    let norms: [(&str, &[usize]); 2] =
        [("self_attn.q_norm.weight", &[128]), ("self_attn.k_norm.weight", &[128])];
    let mut store = hf(&sizes, "model.");
    hf_layers(&mut store, 36, "model.", &norms);
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12288,
        "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936
    });
    let dense = resolved(&store, config);
    assert_eq!(dense.parameters, 8_190_735_360);
    assert_eq!(attention(&dense.spec, 0).qk_norm, QkNorm::PerHead);

    let sizes = Sizes { layers: 48, hidden: 2048, kv_heads: 4, ..sizes };
    let mut store = hf_without_mlp(&sizes, "model.");
    hf_layers(&mut store, 48, "model.", &norms);
    hf_layers(&mut store, 48, "model.", &[("mlp.gate.weight", &[128, 2048])]);
    for e in 0..128 {
        let name = |w: &str| format!("mlp.experts.{e}.{w}_proj.weight");
        let (gate, up, down) = (name("gate"), name("up"), name("down"));
        let tensors: [(&str, &[usize]); 3] =
            [(&gate, &[768, 2048]), (&up, &[768, 2048]), (&down, &[2048, 768])];
        hf_layers(&mut store, 48, "model.", &tensors);
    }
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
        "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": true,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "output_router_logits": false, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
        "use_cache": true, "use_sliding_window": false, "vocab_size": 151936
    });
    let sparse = resolved(&store, config);
    assert_eq!(sparse.parameters, 30_532_122_624);
    let MlpSpec::Moe(moe) = &sparse.spec.layers[47].mlp else { panic!("no experts") };
    assert_eq!((moe.num_experts, moe.experts_per_token, moe.ff_dim), (128, 8, 768));
    assert_eq!(moe.order, RouterOrder::SoftmaxThenTopK { renormalise: true });
}

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

fn phi_store(sizes: &Sizes) -> FakeStore {
    let mut store = FakeStore::default();
    let h = sizes.hidden;
    let (q, kv) = (sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
    store.shape("model.embed_tokens.weight", &[sizes.vocab, h]).shape("model.norm.weight", &[h]);
    if !sizes.is_tied {
        store.shape("lm_head.weight", &[sizes.vocab, h]);
    }
    let tensors: [(&str, &[usize]); 6] = [
        ("input_layernorm.weight", &[h]),
        ("post_attention_layernorm.weight", &[h]),
        ("self_attn.qkv_proj.weight", &[q + 2 * kv, h]),
        ("self_attn.o_proj.weight", &[h, q]),
        ("mlp.gate_up_proj.weight", &[2 * sizes.ff, h]),
        ("mlp.down_proj.weight", &[h, sizes.ff]),
    ];
    hf_layers(&mut store, sizes.layers, "model.", &tensors);
    store
}

#[test]
fn phi_3_5_and_phi_4_mini() {
    let sizes = Sizes {
        layers: 32,
        hidden: 3072,
        heads: 32,
        kv_heads: 32,
        head_dim: 96,
        ff: 8192,
        vocab: 32064,
        is_tied: false,
    };
    let factors = |n: usize| vec![1.25; n];
    let mut config = json!({
        "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1, "embd_pdrop": 0.0,
        "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072, "initializer_range": 0.02,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": factors(48), "short_factor": factors(48), "type": "longrope"},
        "rope_theta": 10000.0, "sliding_window": 262144, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.3", "use_cache": true, "vocab_size": 32064
    });
    let phi3 = resolved(&phi_store(&sizes), config.clone());
    assert_eq!(phi3.parameters, 3_821_079_552);
    let RopeScaling::LongRope { original_len, magnitude, .. } = phi3.spec.ropes[0].scaling else {
        panic!("no longrope")
    };
    assert_eq!(original_len, 4096);
    assert!((magnitude - 1.190_238_1).abs() < 1e-6);
    // what the first release called the same thing
    config["rope_scaling"]["type"] = json!("su");
    assert_eq!(resolved(&phi_store(&sizes), config.clone()).spec, phi3.spec);

    for (key, value) in [
        ("num_attention_heads", json!(24)),
        ("num_key_value_heads", json!(8)),
        ("partial_rotary_factor", json!(0.75)),
        ("vocab_size", json!(200_064)),
        ("tie_word_embeddings", json!(true)),
        ("full_attn_mod", json!(1)),
        ("interpolate_factor", json!(1)),
        ("lm_head_bias", json!(false)),
        ("mlp_bias", json!(false)),
    ] {
        config[key] = value;
    }
    let sizes = Sizes { heads: 24, kv_heads: 8, head_dim: 128, vocab: 200_064, is_tied: true, ..sizes };
    let phi4 = resolved(&phi_store(&sizes), config);
    assert_eq!(phi4.parameters, 3_836_021_760);
    assert_eq!(phi4.spec.ropes[0].dim, 96);
}

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

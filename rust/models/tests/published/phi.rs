//! Phi-3.5 and Phi-4 mini.

use alloyforge_types::RopeScaling;
use serde_json::json;

use crate::resolved;
use crate::support::FakeStore;
use crate::support::shapes::{Sizes, hf_layers};

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

//! Qwen2.5, Qwen3 and Qwen3-MoE.

use alloyforge_types::{MlpSpec, QkNorm, RopeScaling, RouterOrder};
use serde_json::{Value, json};

use crate::support::shapes::{Sizes, hf, hf_layers, hf_without_mlp};
use crate::{attention, resolved, windows};

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

//! Llama, Mistral and Mixtral.

use alloyforge_types::{MlpSpec, RopeLayout, RopeScaling, RouterOrder};
use serde_json::json;

use crate::support::shapes::{Sizes, hf, hf_layers, hf_without_mlp};
use crate::{attention, resolved, windows};

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

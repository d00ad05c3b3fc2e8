//! Every family from GGUF metadata, with llama.cpp's keys and names.

mod support;

use alloyforge_models::{Config, Resolved};
use alloyforge_types::{
    Activation, LayerRole, MetaValue, Metadata, MlpSpec, ModelSpec, NormPlacement, QkNorm, Role, RopeLayout,
    RopeScaling, RouterOrder,
};
use support::shapes::{Sizes, gguf, gguf_layers, gguf_without_mlp};
use support::{FakeStore, bs, f, metadata, s, u, us};

const SIZES: Sizes =
    Sizes { layers: 4, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, ff: 96, vocab: 320, is_tied: false };

/// The keys that every architecture has, then `more`.
fn keys(arch: &str, sizes: &Sizes, more: &[(&str, MetaValue)]) -> Metadata {
    let key = |name: &str| format!("{arch}.{name}");
    let mut metadata = metadata(&[("general.architecture", s(arch))]);
    let n = |n: usize| u(n as u64);
    let common = [
        ("block_count", n(sizes.layers)),
        ("context_length", u(4096)),
        ("embedding_length", n(sizes.hidden)),
        ("feed_forward_length", n(sizes.ff)),
        ("attention.head_count", n(sizes.heads)),
        ("attention.head_count_kv", n(sizes.kv_heads)),
        ("attention.layer_norm_rms_epsilon", f(1e-5)),
    ];
    for (name, value) in common {
        metadata.insert(key(name), value);
    }
    for (name, value) in more {
        let name = if name.contains(':') { name.replace(':', "") } else { key(name) };
        assert!(metadata.insert(name.clone(), value.clone()), "{name} twice");
    }
    metadata
}

#[track_caller]
fn resolved(store: &FakeStore, metadata: &Metadata) -> Resolved {
    let resolved = store.resolve(Config::Gguf(metadata)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(resolved.parameters, store.numbers(), "a tensor was left out or taken twice");
    resolved
}

fn windows(spec: &ModelSpec) -> Vec<Option<usize>> {
    spec.layers.iter().map(|l| l.attention.window).collect()
}

#[test]
fn llama() {
    let keys = keys(
        "llama",
        &SIZES,
        &[
            ("vocab_size", u(320)),
            ("rope.dimension_count", u(16)),
            ("rope.freq_base", f(500_000.0)),
            (":general.file_type", u(15)),
        ],
    );
    let resolved = resolved(&gguf(&SIZES), &keys);
    let spec = &resolved.spec;
    assert_eq!(resolved.file_type, "q4_k_m");
    assert_eq!((spec.architecture.as_str(), spec.vocab_size, spec.context_len), ("llama", 320, 4096));
    assert_eq!((spec.ropes[0].theta, spec.ropes[0].dim), (500_000.0, 16));
    // llama.cpp's conversion permutes q and k for neighbours that turn together
    assert_eq!(spec.ropes[0].layout, RopeLayout::Interleaved);
    assert_eq!(spec.ropes[0].scaling, RopeScaling::None);
    assert!(!spec.has_tied_head);
    assert_eq!(windows(spec), vec![None; 4]);
}

#[test]
fn a_missing_output_matrix_is_the_embedding() {
    let sizes = Sizes { is_tied: true, ..SIZES };
    let resolved = resolved(&gguf(&sizes), &keys("llama", &sizes, &[]));
    assert!(resolved.spec.has_tied_head);
    let (embedding, head) = (resolved.weights.weight(Role::Embedding), resolved.weights.weight(Role::Head));
    assert_eq!(embedding.map(|w| w.name), head.map(|w| w.name));
}

#[test]
fn llama_3_frequencies_come_as_divisors() {
    let mut store = gguf(&SIZES);
    let divisors = [1.0, 1.0, 1.0, 1.0, 2.5, 8.0, 8.0, 8.0];
    store.floats("rope_freqs.weight", &[8], &divisors);
    let resolved = store.resolve(Config::Gguf(&keys("llama", &SIZES, &[]))).unwrap();
    assert_eq!(resolved.spec.ropes[0].scaling, RopeScaling::Divisors(divisors.to_vec()));

    store.floats("rope_freqs.weight", &[8], &[1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let error = store.resolve(Config::Gguf(&keys("llama", &SIZES, &[]))).unwrap_err().to_string();
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn biases_are_where_their_tensors_are() {
    let mut store = gguf(&SIZES);
    let biases: [(&str, &[usize]); 4] =
        [("attn_q.bias", &[64]), ("attn_k.bias", &[32]), ("attn_v.bias", &[32]), ("attn_output.bias", &[64])];
    gguf_layers(&mut store, 4, &biases);
    let attention = resolved(&store, &keys("llama", &SIZES, &[])).spec.layers[0].attention.clone();
    assert!(attention.has_qkv_bias && attention.has_o_bias);
}

#[test]
fn sizes_by_layer() {
    let mut store = gguf(&SIZES);
    // the third layer is narrower
    store.shape("blk.2.attn_q.weight", &[32, 64]).shape("blk.2.attn_output.weight", &[64, 32]);
    store.shape("blk.2.attn_k.weight", &[16, 64]).shape("blk.2.attn_v.weight", &[16, 64]);
    store.shape("blk.2.ffn_gate.weight", &[48, 64]).shape("blk.2.ffn_up.weight", &[48, 64]);
    store.shape("blk.2.ffn_down.weight", &[64, 48]);
    let mut pairs = metadata(&[("general.architecture", s("llama"))]);
    for (name, value) in [
        ("block_count", u(4)),
        ("context_length", u(64)),
        ("embedding_length", u(64)),
        ("feed_forward_length", us(&[96, 96, 48, 96])),
        ("attention.head_count", us(&[4, 4, 2, 4])),
        ("attention.head_count_kv", us(&[2, 2, 1, 2])),
        ("attention.key_length", u(16)),
        ("attention.value_length", u(16)),
        ("attention.layer_norm_rms_epsilon", f(1e-5)),
    ] {
        pairs.insert(format!("llama.{name}"), value);
    }
    let spec = resolved(&store, &pairs).spec;
    let heads: Vec<_> =
        spec.layers.iter().map(|l| (l.attention.num_heads, l.attention.num_kv_heads)).collect();
    assert_eq!(heads, [(4, 2), (4, 2), (2, 1), (4, 2)]);
}

/// Mixtral: Llama with experts, in a stack or, in old files, one by one.
#[test]
fn llama_with_experts() {
    let keys = keys("llama", &SIZES, &[("expert_count", u(3)), ("expert_used_count", u(2))]);
    let mut stacked = gguf_without_mlp(&SIZES);
    let tensors: [(&str, &[usize]); 4] = [
        ("ffn_gate_inp.weight", &[3, 64]),
        ("ffn_gate_exps.weight", &[3, 96, 64]),
        ("ffn_up_exps.weight", &[3, 96, 64]),
        ("ffn_down_exps.weight", &[3, 64, 96]),
    ];
    gguf_layers(&mut stacked, 4, &tensors);
    let spec = resolved(&stacked, &keys).spec;
    let MlpSpec::Moe(moe) = &spec.layers[0].mlp else { panic!("no experts") };
    assert_eq!((moe.num_experts, moe.experts_per_token, moe.ff_dim), (3, 2, 96));
    assert_eq!(moe.order, RouterOrder::TopKThenSoftmax);
    assert_eq!(spec.ropes[0].layout, RopeLayout::Interleaved);

    let mut single = gguf_without_mlp(&SIZES);
    gguf_layers(&mut single, 4, &[("ffn_gate_inp.weight", &[3, 64])]);
    for e in 0..3 {
        let name = |part: &str| format!("ffn_{part}.{e}.weight");
        let (gate, up, down) = (name("gate"), name("up"), name("down"));
        let tensors: [(&str, &[usize]); 3] = [(&gate, &[96, 64]), (&up, &[96, 64]), (&down, &[64, 96])];
        gguf_layers(&mut single, 4, &tensors);
    }
    assert_eq!(resolved(&single, &keys).spec, spec);

    let mut fused = gguf_without_mlp(&SIZES);
    let tensors: [(&str, &[usize]); 3] = [
        ("ffn_gate_inp.weight", &[3, 64]),
        ("ffn_gate_up_exps.weight", &[3, 192, 64]),
        ("ffn_down_exps.weight", &[3, 64, 96]),
    ];
    gguf_layers(&mut fused, 4, &tensors);
    assert_eq!(resolved(&fused, &keys).spec, spec);
}

#[test]
fn qwen2_with_yarn() {
    let mut store = gguf(&SIZES);
    let biases: [(&str, &[usize]); 3] =
        [("attn_q.bias", &[64]), ("attn_k.bias", &[32]), ("attn_v.bias", &[32])];
    gguf_layers(&mut store, 4, &biases);
    let yarn = [
        ("rope.freq_base", f(1e6)),
        ("rope.scaling.type", s("yarn")),
        ("rope.scaling.factor", f(4.0)),
        ("rope.scaling.original_context_length", u(1024)),
        ("rope.scaling.finetuned", MetaValue::Bool(true)),
    ];
    let spec = resolved(&store, &keys("qwen2", &SIZES, &yarn)).spec;
    assert!(spec.layers[0].attention.has_qkv_bias && !spec.layers[0].attention.has_o_bias);
    assert_eq!(spec.ropes[0].layout, RopeLayout::Half);
    let RopeScaling::Yarn { factor, original_len, beta_fast, beta_slow, truncate, magnitude } =
        spec.ropes[0].scaling
    else {
        panic!("no yarn")
    };
    assert_eq!((factor, original_len, beta_fast, beta_slow, truncate), (4.0, 1024, 32.0, 1.0, true));
    assert!((magnitude - 1.138_629_4).abs() < 1e-6);

    let without = gguf(&SIZES).resolve(Config::Gguf(&keys("qwen2", &SIZES, &[]))).unwrap_err().to_string();
    assert!(without.contains("blk.0.attn_q.bias"), "{without}");
}

#[test]
fn linear_scaling_by_either_key() {
    let linear = |pairs: &[(&str, MetaValue)]| resolved(&gguf(&SIZES), &keys("llama", &SIZES, pairs)).spec;
    let new = linear(&[("rope.scaling.type", s("linear")), ("rope.scaling.factor", f(4.0))]);
    let old = linear(&[("rope.scale_linear", f(4.0))]);
    assert_eq!(new.ropes[0].scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(old, new);
    let off = linear(&[("rope.scaling.type", s("none")), ("rope.scaling.factor", f(4.0))]);
    assert_eq!(off.ropes[0].scaling, RopeScaling::None);
}

#[test]
fn qwen3_and_qwen3moe() {
    let sizes = Sizes { head_dim: 24, ..SIZES };
    let norms: [(&str, &[usize]); 2] = [("attn_q_norm.weight", &[24]), ("attn_k_norm.weight", &[24])];
    let width = [("attention.key_length", u(24)), ("attention.value_length", u(24))];
    let mut store = gguf(&sizes);
    gguf_layers(&mut store, 4, &norms);
    let spec = resolved(&store, &keys("qwen3", &sizes, &width)).spec;
    assert_eq!((spec.layers[0].attention.head_dim, spec.layers[0].attention.qk_norm), (24, QkNorm::PerHead));
    assert_eq!(spec.ropes[0].layout, RopeLayout::Half);

    let mut store = gguf_without_mlp(&sizes);
    gguf_layers(&mut store, 4, &norms);
    let tensors: [(&str, &[usize]); 4] = [
        ("ffn_gate_inp.weight", &[4, 64]),
        ("ffn_gate_exps.weight", &[4, 48, 64]),
        ("ffn_up_exps.weight", &[4, 48, 64]),
        ("ffn_down_exps.weight", &[4, 64, 48]),
    ];
    gguf_layers(&mut store, 4, &tensors);
    let [key, value] = width;
    let more = [
        key,
        value,
        ("expert_count", u(4)),
        ("expert_used_count", u(2)),
        ("expert_feed_forward_length", u(48)),
    ];
    let spec = resolved(&store, &keys("qwen3moe", &sizes, &more)).spec;
    let MlpSpec::Moe(moe) = &spec.layers[0].mlp else { panic!("no experts") };
    assert_eq!((moe.num_experts, moe.experts_per_token, moe.ff_dim), (4, 2, 48));
    assert_eq!(moe.order, RouterOrder::SoftmaxThenTopK { renormalise: true });
}

fn gemma_store(sizes: &Sizes) -> FakeStore {
    let mut store = gguf(sizes);
    let h = [sizes.hidden];
    gguf_layers(
        &mut store,
        sizes.layers,
        &[("post_attention_norm.weight", &h), ("post_ffw_norm.weight", &h)],
    );
    store
}

#[test]
fn gemma2() {
    let sizes = Sizes { head_dim: 24, is_tied: true, ..SIZES };
    let more = [
        ("attention.key_length", u(24)),
        ("attention.value_length", u(24)),
        ("attention.sliding_window", u(512)),
        ("attn_logit_softcapping", f(50.0)),
        ("final_logit_softcapping", f(30.0)),
    ];
    let spec = resolved(&gemma_store(&sizes), &keys("gemma2", &sizes, &more)).spec;
    assert_eq!(spec.layers[0].norms, NormPlacement::Sandwich);
    assert_eq!(windows(&spec), [Some(512), None, Some(512), None]);
    assert_eq!((spec.layers[0].attention.softcap, spec.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(spec.layers[0].attention.scale, (1.0 / 24f64.sqrt()) as f32);
    assert_eq!((spec.embedding_scale, spec.ropes[0].theta), (8.0, 10_000.0));
    let MlpSpec::Dense { activation, .. } = spec.layers[0].mlp else { panic!("experts") };
    assert_eq!(activation, Activation::GeluTanh);
}

/// The 27B models scale queries by width over heads, which their files do not say.
#[test]
fn gemma_27b_scales() {
    for (arch, layers) in [("gemma2", 46), ("gemma3", 62)] {
        let sizes = Sizes { layers, head_dim: 24, is_tied: true, ..SIZES };
        let mut store = gemma_store(&sizes);
        if arch == "gemma3" {
            gguf_layers(&mut store, layers, &[("attn_q_norm.weight", &[24]), ("attn_k_norm.weight", &[24])]);
        }
        let spec = resolved(&store, &keys(arch, &sizes, &[("attention.key_length", u(24))])).spec;
        assert_eq!(spec.layers[0].attention.scale, 0.25, "{arch}");
    }
}

#[test]
fn gemma3() {
    let sizes = Sizes { layers: 7, head_dim: 24, is_tied: true, ..SIZES };
    let mut store = gemma_store(&sizes);
    gguf_layers(&mut store, 7, &[("attn_q_norm.weight", &[24]), ("attn_k_norm.weight", &[24])]);
    let base = [
        ("attention.key_length", u(24)),
        ("attention.value_length", u(24)),
        ("attention.sliding_window", u(512)),
        ("rope.freq_base", f(1e6)),
        ("rope.scaling.type", s("linear")),
        ("rope.scaling.factor", f(8.0)),
    ];
    let spec = resolved(&store, &keys("gemma3", &sizes, &base)).spec;
    let w = Some(512);
    assert_eq!(windows(&spec), [w, w, w, w, w, None, w]);
    assert_eq!((spec.ropes[0].theta, spec.ropes[1].theta), (1e6, 10_000.0));
    assert_eq!(spec.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(spec.ropes[1].scaling, RopeScaling::None);
    assert_eq!((spec.layers[4].attention.rope, spec.layers[5].attention.rope), (Some(1), Some(0)));
    assert_eq!(spec.logit_softcap, None);

    // a pattern of its own, as a period and as a list
    for pattern in [u(3), bs(&[true, true, false, true, true, false, true])] {
        let mut more = base.to_vec();
        more.push(("attention.sliding_window_pattern", pattern));
        more.push(("rope.freq_base_swa", f(5000.0)));
        let spec = resolved(&store, &keys("gemma3", &sizes, &more)).spec;
        assert_eq!(windows(&spec), [w, w, None, w, w, None, w]);
        assert_eq!(spec.ropes[1].theta, 5000.0);
    }
}

#[test]
fn phi3_with_longrope() {
    let sizes = Sizes { is_tied: true, ..SIZES };
    let mut store = FakeStore::default();
    store.shape("token_embd.weight", &[320, 64]).shape("output_norm.weight", &[64]);
    let tensors: [(&str, &[usize]); 6] = [
        ("attn_norm.weight", &[64]),
        ("ffn_norm.weight", &[64]),
        ("attn_qkv.weight", &[128, 64]),
        ("attn_output.weight", &[64, 64]),
        ("ffn_up.weight", &[192, 64]),
        ("ffn_down.weight", &[64, 96]),
    ];
    gguf_layers(&mut store, 4, &tensors);
    let plain = [("rope.dimension_count", u(12)), ("attention.sliding_window", u(0))];
    let spec = resolved(&store, &keys("phi3", &sizes, &plain)).spec;
    assert_eq!((spec.ropes[0].dim, &spec.ropes[0].scaling), (12, &RopeScaling::None));
    assert_eq!(windows(&spec), vec![None; 4]);

    store.floats("rope_factors_short.weight", &[6], &[1.0; 6]);
    store.floats("rope_factors_long.weight", &[6], &[1.0, 1.5, 2.0, 3.0, 5.0, 9.0]);
    let more = [
        ("rope.dimension_count", u(12)),
        ("attention.sliding_window", u(2047)),
        ("rope.scaling.original_context_length", u(1024)),
        ("rope.scaling.attn_factor", f(1.19)),
    ];
    let spec = store.resolve(Config::Gguf(&keys("phi3", &sizes, &more))).unwrap().spec;
    let expected = RopeScaling::LongRope {
        short: vec![1.0; 6],
        long: vec![1.0, 1.5, 2.0, 3.0, 5.0, 9.0],
        original_len: 1024,
        magnitude: 1.19,
    };
    assert_eq!(spec.ropes[0].scaling, expected);
    assert_eq!(windows(&spec), vec![Some(2047); 4]);
}

#[test]
fn smollm3() {
    let sizes = Sizes { is_tied: true, ..SIZES };
    let more = [("rope.freq_base", f(5e6)), ("rope.dimension_count", u(16))];
    let spec = resolved(&gguf(&sizes), &keys("smollm3", &sizes, &more)).spec;
    let ropes: Vec<_> = spec.layers.iter().map(|l| l.attention.rope).collect();
    assert_eq!(ropes, [Some(0), Some(0), Some(0), None]);
    assert_eq!(spec.ropes[0].layout, RopeLayout::Interleaved);
}

fn olmo_store() -> FakeStore {
    let mut store = gguf(&SIZES);
    for i in 0..4 {
        store.remove(&format!("blk.{i}.attn_norm.weight")).remove(&format!("blk.{i}.ffn_norm.weight"));
    }
    let tensors: [(&str, &[usize]); 4] = [
        ("attn_q_norm.weight", &[64]),
        ("attn_k_norm.weight", &[32]),
        ("post_attention_norm.weight", &[64]),
        ("post_ffw_norm.weight", &[64]),
    ];
    gguf_layers(&mut store, 4, &tensors);
    store
}

#[test]
fn olmo2_and_olmo3() {
    let spec = resolved(&olmo_store(), &keys("olmo2", &SIZES, &[])).spec;
    assert_eq!(
        (spec.layers[0].norms, spec.layers[0].attention.qk_norm),
        (NormPlacement::Post, QkNorm::FullWidth)
    );
    assert_eq!((spec.ropes.len(), spec.ropes[0].layout), (1, RopeLayout::Half));

    let more = [
        ("attention.sliding_window", u(128)),
        ("rope.scaling.type", s("yarn")),
        ("rope.scaling.factor", f(8.0)),
        ("rope.scaling.original_context_length", u(512)),
        ("rope.scaling.yarn_attn_factor", f(1.25)),
        ("rope.scaling.yarn_beta_fast", f(16.0)),
    ];
    let spec = resolved(&olmo_store(), &keys("olmo2", &SIZES, &more)).spec;
    assert_eq!(windows(&spec), [Some(128), Some(128), Some(128), None]);
    assert_eq!(spec.ropes[1].scaling, RopeScaling::None);
    assert_eq!((spec.layers[0].attention.rope, spec.layers[3].attention.rope), (Some(1), Some(0)));
    let RopeScaling::Yarn { beta_fast, magnitude, .. } = spec.ropes[0].scaling else { panic!("no yarn") };
    assert_eq!((beta_fast, magnitude), (16.0, 1.25));
}

#[test]
fn gpt_oss() {
    let sizes = Sizes { head_dim: 24, ..SIZES };
    let mut store = gguf_without_mlp(&sizes);
    for i in 0..4 {
        store.remove(&format!("blk.{i}.ffn_norm.weight"));
    }
    let tensors: [(&str, &[usize]); 14] = [
        ("post_attention_norm.weight", &[64]),
        ("attn_q.bias", &[96]),
        ("attn_k.bias", &[48]),
        ("attn_v.bias", &[48]),
        ("attn_output.bias", &[64]),
        ("attn_sinks.weight", &[4]),
        ("ffn_gate_inp.weight", &[4, 64]),
        ("ffn_gate_inp.bias", &[4]),
        ("ffn_gate_exps.weight", &[4, 32, 64]),
        ("ffn_up_exps.weight", &[4, 32, 64]),
        ("ffn_down_exps.weight", &[4, 64, 32]),
        ("ffn_gate_exps.bias", &[4, 32]),
        ("ffn_up_exps.bias", &[4, 32]),
        ("ffn_down_exps.bias", &[4, 64]),
    ];
    gguf_layers(&mut store, 4, &tensors);
    let more = [
        ("attention.key_length", u(24)),
        ("attention.value_length", u(24)),
        ("attention.sliding_window", u(128)),
        ("expert_count", u(4)),
        ("expert_used_count", u(2)),
        ("expert_feed_forward_length", u(32)),
        ("rope.freq_base", f(150_000.0)),
        ("rope.scaling.type", s("yarn")),
        ("rope.scaling.factor", f(32.0)),
        ("rope.scaling.original_context_length", u(512)),
    ];
    let resolved = resolved(&store, &keys("gpt-oss", &sizes, &more));
    let spec = &resolved.spec;
    let attention = &spec.layers[0].attention;
    assert!(attention.has_sinks && attention.has_qkv_bias && attention.has_o_bias);
    assert_eq!(windows(spec), [Some(128), None, Some(128), None]);
    let MlpSpec::Moe(moe) = &spec.layers[0].mlp else { panic!("no experts") };
    assert_eq!(moe.activation, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    assert!(moe.has_router_bias && moe.has_expert_bias);
    let RopeScaling::Yarn { truncate, .. } = spec.ropes[0].scaling else { panic!("no yarn") };
    assert!(!truncate);
    // the norm before the MLP, by the name that elsewhere means the one after attention
    let mlp_norms = spec.roles().filter(|r| matches!(r, Role::Layer(_, LayerRole::MlpNorm))).count();
    assert_eq!(mlp_norms, 4);
}

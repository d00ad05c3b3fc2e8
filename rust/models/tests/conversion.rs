//! The reference checkpoints, converted as llama.cpp's `convert_hf_to_gguf.py` does it: the same
//! weights in the same roles, and a spec that differs only in what a GGUF file says otherwise.

mod support;

use std::collections::BTreeMap;

use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved};
use alloyforge_types::{
    LayerRole, MetaArray, MetaValue, Metadata, ModelSpec, Role, RopeLayout, RopeScaling, Weight,
};
use serde_json::Value;
use support::{FakeStore, f, json, reference, s, u};

/// A tensor out of a checkpoint.
#[derive(Debug, Clone)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Tensor {
    /// Rows of each head, its first half and its second half by turns: the converter's `permute`.
    fn permuted(&self, heads: usize) -> Self {
        let cols = if self.shape.len() == 1 { 1 } else { self.shape[1] };
        let head_dim = self.shape[0] / heads;
        let row = |head: usize, i: usize| head * head_dim + (i % 2) * head_dim / 2 + i / 2;
        let rows = (0..heads).flat_map(|head| (0..head_dim).map(move |i| row(head, i)));
        let values = rows.flat_map(|r| self.values[r * cols..(r + 1) * cols].to_vec()).collect();
        Self { shape: self.shape.clone(), values }
    }

    fn plus_one(&self) -> Self {
        Self { shape: self.shape.clone(), values: self.values.iter().map(|v| v + 1.0).collect() }
    }

    /// The last two dimensions exchanged.
    fn transposed(&self) -> Self {
        let [n, a, b] = self.shape[..] else { panic!("{:?}", self.shape) };
        let at = |i: usize| {
            let (e, rest) = (i / (a * b), i % (a * b));
            self.values[e * a * b + (rest % a) * b + rest / a]
        };
        Self { shape: vec![n, b, a], values: (0..n * a * b).map(at).collect() }
    }

    /// Every second of dimension 1, from `first` on.
    fn every_second(&self, first: usize) -> Self {
        let (n, a) = (self.shape[0], self.shape[1]);
        let rest: usize = self.shape[2..].iter().product();
        let rows = (0..n).flat_map(|e| (first..a).step_by(2).map(move |r| e * a + r));
        let values = rows.flat_map(|r| self.values[r * rest..(r + 1) * rest].to_vec()).collect();
        let mut shape = self.shape.clone();
        shape[1] /= 2;
        Self { shape, values }
    }

    fn stacked(parts: Vec<Self>) -> Self {
        let shape = std::iter::once(parts.len()).chain(parts[0].shape.clone()).collect();
        Self { shape, values: parts.into_iter().flat_map(|p| p.values).collect() }
    }
}

fn tensors(case: &str) -> BTreeMap<String, Tensor> {
    let store = SafetensorsStore::open(&reference(case)).unwrap();
    let read = |name: &str| {
        let view = store.tensor(name).unwrap();
        let values = view.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (name.to_owned(), Tensor { shape: view.shape, values })
    };
    store.names().into_iter().map(read).collect()
}

/// llama.cpp's name for a tensor that is converted as it is.
fn gguf_name(arch: &str, name: &str) -> String {
    let post_attention = match arch {
        "gemma2" | "gemma3" | "olmo2" | "gpt-oss" => "post_attention_norm",
        _ => "ffn_norm",
    };
    let renamed = name
        .replace("model.embed_tokens", "token_embd")
        .replace("model.norm", "output_norm")
        .replace("lm_head", "output")
        .replace("model.layers.", "blk.")
        .replace("input_layernorm", "attn_norm")
        .replace("post_attention_layernorm", post_attention)
        .replace("pre_feedforward_layernorm", "ffn_norm")
        .replace("post_feedforward_layernorm", "post_ffw_norm")
        .replace("self_attn.q_norm", "attn_q_norm")
        .replace("self_attn.k_norm", "attn_k_norm")
        .replace("self_attn.qkv_proj", "attn_qkv")
        .replace("self_attn.o_proj", "attn_output")
        .replace("self_attn.sinks", "attn_sinks.weight")
        .replace("mlp.gate_up_proj", "ffn_up")
        .replace("block_sparse_moe.gate.", "ffn_gate_inp.")
        .replace("mlp.router.", "ffn_gate_inp.")
        .replace("mlp.gate.", "ffn_gate_inp.")
        .replace("mlp.gate_proj", "ffn_gate")
        .replace("mlp.up_proj", "ffn_up")
        .replace("mlp.down_proj", "ffn_down");
    ["q", "k", "v"]
        .iter()
        .fold(renamed, |n, x| n.replace(&format!("self_attn.{x}_proj"), &format!("attn_{x}")))
}

fn convert(case: &str, arch: &str, config: &Value) -> FakeStore {
    let mut source = tensors(case);
    let mut store = FakeStore::default();
    let mut add = |name: String, t: Tensor| {
        store.floats(name, &t.shape, &t.values);
    };
    let number = |key: &str| config[key].as_u64().unwrap() as usize;
    let (heads, kv_heads) = (number("num_attention_heads"), number("num_key_value_heads"));
    for layer in 0..number("num_hidden_layers") {
        let prefix = format!("model.layers.{layer}.");
        // experts one by one
        for (gguf, names) in
            [("gate", ["w1", "gate_proj"]), ("down", ["w2", "down_proj"]), ("up", ["w3", "up_proj"])]
        {
            for name in names {
                let of = |e: usize| {
                    ["block_sparse_moe", "mlp"].map(|mlp| format!("{prefix}{mlp}.experts.{e}.{name}.weight"))
                };
                let parts: Vec<_> =
                    (0..).map_while(|e| of(e).iter().find_map(|n| source.remove(n))).collect();
                if !parts.is_empty() {
                    add(format!("blk.{layer}.ffn_{gguf}_exps.weight"), Tensor::stacked(parts));
                }
            }
        }
        // experts in one tensor, turned
        let mut take = |name: &str| source.remove(&format!("{prefix}mlp.experts.{name}"));
        if let Some(gate_up) = take("gate_up_proj") {
            let gate_up = gate_up.transposed();
            add(format!("blk.{layer}.ffn_gate_exps.weight"), gate_up.every_second(0));
            add(format!("blk.{layer}.ffn_up_exps.weight"), gate_up.every_second(1));
            let bias = take("gate_up_proj_bias").unwrap();
            add(format!("blk.{layer}.ffn_gate_exps.bias"), bias.every_second(0));
            add(format!("blk.{layer}.ffn_up_exps.bias"), bias.every_second(1));
            add(format!("blk.{layer}.ffn_down_exps.weight"), take("down_proj").unwrap().transposed());
            add(format!("blk.{layer}.ffn_down_exps.bias"), take("down_proj_bias").unwrap());
        }
    }
    let is_permuted = matches!(arch, "llama" | "smollm3");
    for (name, tensor) in source {
        let tensor = match name.as_str() {
            n if is_permuted && n.contains("q_proj") => tensor.permuted(heads),
            n if is_permuted && n.contains("k_proj") => tensor.permuted(kv_heads),
            n if arch.starts_with("gemma") && n.ends_with("norm.weight") => tensor.plus_one(),
            _ => tensor,
        };
        add(gguf_name(arch, &name), tensor);
    }
    let rope = &config["rope_parameters"];
    for (key, name) in [("short_factor", "rope_factors_short"), ("long_factor", "rope_factors_long")] {
        if let Some(factors) = rope[key].as_array() {
            let factors: Vec<f32> = factors.iter().map(|v| v.as_f64().unwrap() as f32).collect();
            store.floats(format!("{name}.weight"), &[factors.len()], &factors);
        }
    }
    if rope["rope_type"] == "llama3" {
        let divisors = llama3_divisors(rope, 16);
        store.floats("rope_freqs.weight", &[divisors.len()], &divisors);
    }
    store
}

/// The converter's `rope_freqs` for Llama 3.
fn llama3_divisors(rope: &Value, dim: usize) -> Vec<f32> {
    let number = |key: &str| rope[key].as_f64().unwrap();
    let (factor, low, high) = (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
    let old = number("original_max_position_embeddings");
    (0..dim / 2)
        .map(|i| {
            let freq = 1.0 / number("rope_theta").powf(2.0 * i as f64 / dim as f64);
            let wave = 2.0 * std::f64::consts::PI / freq;
            let divisor = if wave < old / high {
                1.0
            } else if wave > old / low {
                factor
            } else {
                let smooth = (old / wave - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            };
            divisor as f32
        })
        .collect()
}

fn keys(arch: &str, config: &Value) -> Metadata {
    let mut metadata = support::metadata(&[("general.architecture", s(arch))]);
    let mut add = |name: &str, value: MetaValue| {
        metadata.insert(format!("{arch}.{name}"), value);
    };
    for (hf, gguf) in [
        ("num_hidden_layers", "block_count"),
        ("max_position_embeddings", "context_length"),
        ("hidden_size", "embedding_length"),
        ("intermediate_size", "feed_forward_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
        ("head_dim", "attention.value_length"),
        ("num_local_experts", "expert_count"),
        ("num_experts_per_tok", "expert_used_count"),
        ("moe_intermediate_size", "expert_feed_forward_length"),
        ("sliding_window", "attention.sliding_window"),
    ] {
        if let Some(n) = config[hf].as_u64() {
            add(gguf, u(n));
        }
    }
    if arch == "gpt-oss" {
        add("expert_feed_forward_length", u(config["intermediate_size"].as_u64().unwrap()));
    }
    for (hf, gguf) in [
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
        if let Some(x) = config[hf].as_f64() {
            add(gguf, f(x as f32));
        }
    }
    if arch == "gemma3" {
        let types = config["layer_types"].as_array().unwrap();
        let sliding: Vec<bool> = types.iter().map(|t| t == "sliding_attention").collect();
        add("attention.sliding_window_pattern", MetaValue::Array(MetaArray::Bool(sliding.into())));
        let local = config["rope_parameters"]["sliding_attention"]["rope_theta"].as_f64().unwrap();
        add("rope.freq_base_swa", f(local as f32));
    }
    let rope = match &config["rope_parameters"]["full_attention"] {
        Value::Null => &config["rope_parameters"],
        nested => nested,
    };
    add("rope.freq_base", f(rope["rope_theta"].as_f64().unwrap() as f32));
    if let Some(share) = rope["partial_rotary_factor"].as_f64() {
        let head_dim =
            config["hidden_size"].as_f64().unwrap() / config["num_attention_heads"].as_f64().unwrap();
        add("rope.dimension_count", u((head_dim * share) as u64));
    }
    match rope["rope_type"].as_str().unwrap() {
        kind @ ("linear" | "yarn") => {
            add("rope.scaling.type", s(kind));
            add("rope.scaling.factor", f(rope["factor"].as_f64().unwrap() as f32));
            if let Some(n) = rope["original_max_position_embeddings"].as_u64() {
                add("rope.scaling.original_context_length", u(n));
            }
        }
        "longrope" => {
            let original = rope["original_max_position_embeddings"].as_f64().unwrap();
            let stretch = config["max_position_embeddings"].as_f64().unwrap() / original;
            add("rope.scaling.original_context_length", u(original as u64));
            add("rope.scaling.attn_factor", f((1.0 + stretch.ln() / original.ln()).sqrt() as f32));
        }
        _ => {}
    }
    metadata
}

fn numbers(weight: Weight<'_>) -> Tensor {
    let values = weight.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Tensor { shape: vec![weight.rows, weight.cols], values }
}

/// The weights of both, role by role, with Hugging Face's q and k permuted where the layout says so.
fn assert_same_weights(case: &str, hf: &Resolved, gguf: &Resolved) {
    assert_eq!(hf.spec.roles().collect::<Vec<_>>(), gguf.spec.roles().collect::<Vec<_>>(), "{case}");
    let is_permuted = gguf.spec.ropes[0].layout == RopeLayout::Interleaved;
    for role in hf.spec.roles() {
        let (expected, found) = (hf.weights.weight(role).unwrap(), gguf.weights.weight(role).unwrap());
        let (mut expected, found) = (numbers(expected), numbers(found));
        if let Role::Layer(i, part) = role {
            let a = &hf.spec.layers[i].attention;
            match part {
                LayerRole::Q if is_permuted => expected = expected.permuted(a.num_heads),
                LayerRole::K if is_permuted => expected = expected.permuted(a.num_kv_heads),
                _ => {}
            }
        }
        assert_eq!(expected.shape, found.shape, "{case}: {role:?}");
        assert!(expected.values == found.values, "{case}: {role:?}");
    }
}

/// Both specs without what a GGUF file cannot say or says in another way.
fn comparable(case: &str, mut spec: ModelSpec) -> ModelSpec {
    spec.architecture.clear();
    for rope in &mut spec.ropes {
        rope.layout = RopeLayout::Half;
        if matches!(rope.scaling, RopeScaling::Llama3 { .. } | RopeScaling::Divisors(_)) {
            rope.scaling = RopeScaling::None;
        }
    }
    for layer in &mut spec.layers {
        match case {
            // the scalar on queries and the list of layers without rotary embedding have no key
            "gemma2" | "gemma3_text" => layer.attention.scale = 1.0,
            "smollm3" => layer.attention.rope = None,
            _ => {}
        }
    }
    spec
}

#[test]
fn a_converted_checkpoint_is_the_same_model() {
    for (case, arch) in [
        ("gemma2", "gemma2"),
        ("gemma3_text", "gemma3"),
        ("gpt_oss", "gpt-oss"),
        ("llama", "llama"),
        ("llama3_rope", "llama"),
        ("mistral", "llama"),
        ("mixtral", "llama"),
        ("olmo2", "olmo2"),
        ("phi3", "phi3"),
        ("phi3_longrope", "phi3"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
        ("qwen3_moe", "qwen3moe"),
        ("smollm3", "smollm3"),
    ] {
        let folder = reference(case);
        let config = json(folder.join("config.json"));
        let store = std::sync::Arc::new(SafetensorsStore::open(&folder).unwrap());
        let hf = alloyforge_models::resolve(Config::HuggingFace(&config), store).unwrap();
        let converted = convert(case, arch, &config);
        let gguf = converted.resolve(Config::Gguf(&keys(arch, &config)));
        let gguf = gguf.unwrap_or_else(|e| panic!("{case}: {e}"));

        assert_eq!(hf.parameters, gguf.parameters, "{case}");
        assert_same_weights(case, &hf, &gguf);
        for (ours, theirs) in hf.spec.ropes.iter().zip(&gguf.spec.ropes) {
            for len in [1, 200] {
                let (ours, theirs) = (ours.table(len), theirs.table(len));
                assert_eq!(ours.magnitude, theirs.magnitude, "{case}");
                for (a, b) in ours.inv_freq.iter().zip(&theirs.inv_freq) {
                    assert!((a / b - 1.0).abs() < 1e-6, "{case}: {a} and {b}");
                }
            }
        }
        assert_eq!(comparable(case, hf.spec), comparable(case, gguf.spec), "{case}");
    }
}

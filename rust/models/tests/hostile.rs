//! Damaged and unknown configurations: each a typed error that names the file and the key.

mod support;

use alloyforge_interfaces::TensorStore;
use alloyforge_models::Config;
use alloyforge_types::{Error, MetaValue, Metadata, QuantType};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::shapes::{Sizes, gguf, hf};
use support::{FakeStore, bs, f, s, u, us};

const SIZES: Sizes =
    Sizes { layers: 2, hidden: 64, heads: 4, kv_heads: 2, head_dim: 16, ff: 96, vocab: 320, is_tied: false };

fn sound() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
        "max_position_embeddings": 256, "model_type": "llama", "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "vocab_size": 320
    })
}

fn sound_gguf() -> Metadata {
    support::metadata(&[
        ("general.architecture", s("llama")),
        ("llama.block_count", u(2)),
        ("llama.context_length", u(256)),
        ("llama.embedding_length", u(64)),
        ("llama.feed_forward_length", u(96)),
        ("llama.attention.head_count", u(4)),
        ("llama.attention.head_count_kv", u(2)),
        ("llama.attention.layer_norm_rms_epsilon", f(1e-6)),
    ])
}

/// `metadata` with `key` replaced or added, or left out where there is no value.
fn with(metadata: &Metadata, key: &str, value: Option<MetaValue>) -> Metadata {
    let mut changed = Metadata::default();
    let kept = metadata.iter().filter(|(k, _)| *k != key).map(|(k, v)| (k.to_owned(), v.clone()));
    for (key, value) in kept.chain(value.map(|v| (key.to_owned(), v))) {
        changed.insert(key, value);
    }
    changed
}

#[derive(Debug, PartialEq)]
enum Kind {
    Format,
    Unsupported,
}

#[track_caller]
fn assert_refused(error: &Error, kind: Kind, parts: &[&str], case: &str) {
    let found = match error {
        Error::Format { .. } => Kind::Format,
        Error::Unsupported { .. } => Kind::Unsupported,
        other => panic!("{case}: {other:?}"),
    };
    let text = error.to_string();
    assert_eq!(found, kind, "{case}: {text}");
    for part in parts.iter().chain(&["fake.model"]) {
        assert!(text.contains(part), "{case}: `{text}` does not name `{part}`");
    }
}

#[test]
fn the_sound_ones_resolve() {
    hf(&SIZES, "model.").resolve(Config::HuggingFace(&sound())).unwrap();
    gguf(&SIZES).resolve(Config::Gguf(&sound_gguf())).unwrap();
}

#[test]
fn config_json() {
    use Kind::{Format, Unsupported};
    let cases: Vec<(&str, Value, Kind, &[&str])> = vec![
        ("num_attention_heads", json!(0), Format, &["num_attention_heads", "0"]),
        ("num_attention_heads", json!(5), Format, &["num_attention_heads", "64"]),
        ("num_attention_heads", json!(-4), Format, &["num_attention_heads", "-4"]),
        ("num_attention_heads", json!("4"), Format, &["num_attention_heads"]),
        ("num_attention_heads", json!(4.5), Format, &["num_attention_heads"]),
        ("num_attention_heads", Value::Null, Format, &["num_attention_heads", "missing"]),
        ("num_key_value_heads", json!(0), Format, &["num_key_value_heads"]),
        ("num_key_value_heads", json!(3), Format, &["num_key_value_heads", "divide"]),
        ("num_hidden_layers", json!(0), Format, &["num_hidden_layers"]),
        ("num_hidden_layers", json!(3), Format, &["model.layers.2.", "missing"]),
        ("num_hidden_layers", json!(1), Format, &["model.layers.1.", "1 layers"]),
        ("num_hidden_layers", json!(2_147_483_648u64), Format, &["num_hidden_layers"]),
        ("num_hidden_layers", json!(18_446_744_073_709_551_615u64), Format, &["num_hidden_layers"]),
        ("num_hidden_layers", json!(1e300), Format, &["num_hidden_layers"]),
        ("hidden_size", json!(0), Format, &["hidden_size"]),
        ("hidden_size", json!(128), Format, &["tensor"]),
        ("head_dim", json!(0), Format, &["head_dim"]),
        ("head_dim", json!(15), Format, &["head_dim", "even"]),
        ("head_dim", json!(4_294_967_295u64), Format, &["head_dim"]),
        ("head_dim", json!(4_294_967_294u64), Format, &["tensor"]),
        ("intermediate_size", json!(97), Format, &["mlp.gate_proj.weight", "97"]),
        ("max_position_embeddings", json!(0), Format, &["max_position_embeddings"]),
        ("vocab_size", json!(321), Format, &["embed_tokens.weight", "321"]),
        ("rms_norm_eps", json!(-1.0), Format, &["rms_norm_eps"]),
        ("rms_norm_eps", json!(1e300), Format, &["rms_norm_eps"]),
        ("rope_theta", json!(0), Format, &["rope_theta"]),
        ("rope_theta", json!("10000"), Format, &["rope_theta"]),
        ("partial_rotary_factor", json!(0.01), Format, &["partial_rotary_factor"]),
        ("partial_rotary_factor", json!(2.0), Format, &["partial_rotary_factor"]),
        ("tie_word_embeddings", json!(1), Format, &["tie_word_embeddings"]),
        ("rope_scaling", json!("linear"), Format, &["rope_scaling"]),
        ("rope_scaling", json!({"type": "linear"}), Format, &["rope_scaling", "factor"]),
        ("rope_scaling", json!({"type": "linear", "factor": 0}), Format, &["rope_scaling", "factor"]),
        ("rope_scaling", json!({"type": "linear", "factor": 1e-60}), Format, &["rope_scaling", "factor"]),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
            Format,
            &["short_factor", "8"],
        ),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 0], "long_factor": []}),
            Format,
            &["short_factor"],
        ),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0.5}),
            Format,
            &["original_max_position_embeddings"],
        ),
        (
            "rope_scaling",
            json!({"rope_type": "nosuch", "factor": 2.0}),
            Unsupported,
            &["rope_scaling", "nosuch"],
        ),
        (
            "rope_scaling",
            json!({"rope_type": "linear", "factor": 2.0, "bend": 3}),
            Unsupported,
            &["rope_scaling", "bend"],
        ),
        ("rope_parameters", json!({"rope_type": "nosuch"}), Unsupported, &["rope_parameters", "nosuch"]),
        (
            "rope_parameters",
            json!({"full_attention": {"rope_type": "default"}}),
            Unsupported,
            &["rope_parameters"],
        ),
        ("hidden_act", json!("relu2"), Unsupported, &["hidden_act", "relu2"]),
        ("mlp_bias", json!(true), Unsupported, &["mlp_bias"]),
        ("is_causal", json!(false), Unsupported, &["is_causal"]),
        ("quantization_config", json!({"quant_method": "awq"}), Unsupported, &["quantization_config", "awq"]),
        ("attention_multiplier", json!(0.5), Unsupported, &["config.json `attention_multiplier`", "0.5"]),
        ("rope_interleaved", json!(true), Unsupported, &["rope_interleaved"]),
        ("attn_logit_softcapping", json!(50.0), Unsupported, &["attn_logit_softcapping"]),
        ("model_type", json!("nosuch"), Unsupported, &["nosuch"]),
        ("model_type", json!("llava"), Unsupported, &["llava"]),
    ];
    for (key, value, kind, parts) in cases {
        let mut config = sound();
        config[key] = value.clone();
        let case = format!("{key} = {value}");
        match hf(&SIZES, "model.").resolve(Config::HuggingFace(&config)) {
            Ok(_) => panic!("{case}: resolves"),
            Err(error) => assert_refused(&error, kind, parts, &case),
        }
    }
}

#[test]
fn what_makes_no_difference_is_let_be() {
    let mut config = sound();
    for (key, value) in [
        ("some_new_switch", json!(false)),
        ("some_new_list", json!([])),
        ("some_new_value", Value::Null),
        ("_name_or_path", json!("somewhere")),
        ("attention_dropout", json!(0.1)),
        ("classifier_dropout", json!(0.1)),
        ("bos_token_id", json!(1)),
        ("unsloth_version", json!("2025.1")),
        ("id2label", json!({"0": "LABEL_0"})),
    ] {
        config[key] = value;
    }
    hf(&SIZES, "model.").resolve(Config::HuggingFace(&config)).unwrap();
}

#[test]
fn no_configuration_at_all() {
    for config in [json!(null), json!([1]), json!("llama"), json!(3)] {
        let error = FakeStore::default().resolve(Config::HuggingFace(&config)).unwrap_err();
        assert_refused(&error, Kind::Format, &["config.json"], &config.to_string());
    }
    let error = FakeStore::default().resolve(Config::HuggingFace(&json!({}))).unwrap_err();
    assert_refused(&error, Kind::Format, &["model_type"], "{}");
    let error = FakeStore::default().resolve(Config::Gguf(&Metadata::default())).unwrap_err();
    assert_refused(&error, Kind::Format, &["general.architecture"], "no metadata");
}

/// A configuration without `model_type` goes by its class.
#[test]
fn the_class_stands_in_for_the_model_type() {
    let mut config = sound();
    config.as_object_mut().unwrap().remove("model_type");
    let resolved = hf(&SIZES, "model.").resolve(Config::HuggingFace(&config)).unwrap();
    assert_eq!(resolved.spec.architecture, "llama");
    config["architectures"] = json!(["NoSuchModel"]);
    let error = hf(&SIZES, "model.").resolve(Config::HuggingFace(&config)).unwrap_err();
    assert_refused(&error, Kind::Unsupported, &["NoSuchModel"], "class");
}

#[test]
fn gguf_metadata() {
    use Kind::{Format, Unsupported};
    let cases: Vec<(&str, Option<MetaValue>, Kind, &[&str])> = vec![
        ("general.architecture", Some(s("nosuch")), Unsupported, &["nosuch"]),
        ("general.architecture", Some(s("clip")), Unsupported, &["clip"]),
        ("general.architecture", Some(u(1)), Format, &["general.architecture"]),
        ("llama.block_count", None, Format, &["llama.block_count", "missing"]),
        ("llama.block_count", Some(u(1 << 31)), Format, &["llama.block_count"]),
        ("llama.block_count", Some(u(3)), Format, &["blk.2.attn_norm.weight", "missing"]),
        ("llama.block_count", Some(u(1)), Format, &["blk.1.", "1 layers"]),
        ("llama.block_count", Some(MetaValue::I64(-1)), Format, &["llama.block_count", "-1"]),
        ("llama.embedding_length", Some(u(0)), Format, &["llama.embedding_length"]),
        ("llama.context_length", Some(u(0)), Format, &["llama.context_length"]),
        ("llama.attention.head_count", Some(u(0)), Format, &["llama.attention.head_count"]),
        ("llama.attention.head_count", Some(u(5)), Format, &["llama.attention.head_count", "64"]),
        ("llama.attention.head_count", Some(us(&[4])), Format, &["llama.attention.head_count", "2 layers"]),
        ("llama.attention.head_count", Some(us(&[4, 0])), Format, &["llama.attention.head_count"]),
        ("llama.attention.head_count_kv", Some(u(3)), Format, &["llama.attention.head_count_kv"]),
        ("llama.attention.key_length", Some(u(17)), Format, &["llama.attention.key_length"]),
        ("llama.attention.value_length", Some(u(8)), Unsupported, &["llama.attention.value_length"]),
        ("llama.attention.layer_norm_rms_epsilon", None, Format, &["layer_norm_rms_epsilon"]),
        ("llama.attention.layer_norm_rms_epsilon", Some(f(f32::NAN)), Format, &["layer_norm_rms_epsilon"]),
        ("llama.rope.dimension_count", Some(u(4097)), Format, &["llama.rope.dimension_count", "4097"]),
        ("llama.rope.dimension_count", Some(u(7)), Format, &["llama.rope.dimension_count"]),
        ("llama.rope.freq_base", Some(f(-1.0)), Format, &["llama.rope.freq_base"]),
        ("llama.rope.scaling.type", Some(s("nosuch")), Unsupported, &["llama.rope.scaling.type", "nosuch"]),
        ("llama.rope.scaling.type", Some(s("longrope")), Format, &["rope_factors"]),
        ("llama.rope.scaling.factor", Some(f(-2.0)), Format, &["llama.rope.scaling.factor"]),
        ("llama.vocab_size", Some(u(300)), Format, &["llama.vocab_size", "320"]),
        ("llama.expert_count", Some(u(2)), Format, &["llama.expert_used_count"]),
        ("llama.logit_scale", Some(f(0.5)), Unsupported, &["llama.logit_scale"]),
        ("llama.attention.causal", Some(MetaValue::Bool(false)), Unsupported, &["llama.attention.causal"]),
        ("llama.swin_norm", Some(MetaValue::Bool(true)), Unsupported, &["llama.swin_norm"]),
        ("llama.some_list", Some(bs(&[true])), Unsupported, &["llama.some_list"]),
    ];
    for (key, value, kind, parts) in cases {
        let case = format!("{key} = {value:?}");
        match gguf(&SIZES).resolve(Config::Gguf(&with(&sound_gguf(), key, value))) {
            Ok(_) => panic!("{case}: resolves"),
            Err(error) => assert_refused(&error, kind, parts, &case),
        }
    }
}

#[test]
fn more_experts_used_than_there_are() {
    let metadata = with(&sound_gguf(), "llama.expert_count", Some(u(2)));
    let metadata = with(&metadata, "llama.expert_used_count", Some(u(8)));
    let error = gguf(&SIZES).resolve(Config::Gguf(&metadata)).unwrap_err();
    assert_refused(&error, Kind::Format, &["llama.expert_used_count", "8", "2"], "experts");
}

#[test]
fn more_tokens_than_rows() {
    let tokens: Vec<Box<str>> = (0..321).map(|i| format!("t{i}").into()).collect();
    let tokens = MetaValue::Array(alloyforge_types::MetaArray::Str(tokens.into()));
    let metadata = with(&sound_gguf(), "tokenizer.ggml.tokens", Some(tokens));
    let error = gguf(&SIZES).resolve(Config::Gguf(&metadata)).unwrap_err();
    assert_refused(&error, Kind::Format, &["tokenizer.ggml.tokens", "321", "320"], "tokens");
}

#[test]
fn tensors() {
    let resolve = |store: &FakeStore| store.resolve(Config::Gguf(&sound_gguf())).unwrap_err();

    let mut missing = gguf(&SIZES);
    missing.remove("blk.1.ffn_down.weight");
    assert_refused(&resolve(&missing), Kind::Format, &["blk.1.ffn_down.weight", "missing"], "missing");

    // right size, wrong shape
    let mut reshaped = gguf(&SIZES);
    reshaped.shape("blk.0.attn_q.weight", &[32, 128]);
    assert_refused(
        &resolve(&reshaped),
        Kind::Format,
        &["blk.0.attn_q.weight", "[32, 128]", "[64, 64]"],
        "reshaped",
    );

    let mut foreign = gguf(&SIZES);
    foreign.foreign("blk.0.attn_q.weight", "I8");
    assert_refused(&resolve(&foreign), Kind::Unsupported, &["blk.0.attn_q.weight", "I8"], "foreign");

    // a bias that Llama's MLP does not have
    let mut stray = gguf(&SIZES);
    stray.shape("blk.1.ffn_down.bias", &[64]);
    assert_refused(&resolve(&stray), Kind::Unsupported, &["blk.1.ffn_down.bias", "llama"], "stray");

    // what stands outside the layers makes no difference
    let mut other = gguf(&SIZES);
    other.shape("v.blk.0.attn_q.weight", &[3]).shape("blk.0.attn_rot_embd.weight", &[8]);
    other.resolve(Config::Gguf(&sound_gguf())).unwrap();
}

#[test]
fn a_turned_tensor_in_blocks_is_refused() {
    let folder = support::reference("gpt_oss");
    let config = support::json(folder.join("config.json"));
    let mut store = FakeStore::default();
    let real = alloyforge_formats::safetensors::SafetensorsStore::open(&folder).unwrap();
    for name in real.names() {
        let view = real.tensor(name).unwrap();
        store.typed(name, view.ty, &view.shape, view.data.to_vec());
    }
    let name = "model.layers.0.mlp.experts.down_proj";
    let shape = real.tensor(name).unwrap().shape;
    store.typed(name, QuantType::Q8_0, &shape, Vec::new());
    let error = store.resolve(Config::HuggingFace(&config)).unwrap_err();
    assert_refused(&error, Kind::Unsupported, &[name, "q8_0"], "turned");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..300).prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
        Just(json!("sliding_attention")),
        Just(json!("yarn")),
        Just(json!("longrope")),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        let key = prop_oneof![
            Just("rope_type".to_owned()),
            Just("factor".to_owned()),
            Just("short_factor".to_owned()),
            Just("full_attention".to_owned()),
            "[a-z_]{1,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever a key says, the answer is a spec or an error of the file, and never a panic.
    #[test]
    fn any_change_to_a_reference_configuration(
        case in prop::sample::select(vec!["gemma3_text", "gpt_oss", "phi3_longrope", "qwen3_moe", "smollm3"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_value()), 1..4),
        file in prop::sample::select(vec!["config.json", "config.v4.json"]),
    ) {
        let folder = support::reference(case);
        let mut config = support::json(folder.join(file));
        let object = config.as_object_mut().unwrap();
        let keys: Vec<String> = object.keys().cloned().collect();
        for (index, value) in changes {
            object.insert(index.get(&keys).clone(), value);
        }
        let store = alloyforge_formats::safetensors::SafetensorsStore::open(&folder).unwrap();
        match alloyforge_models::resolve(Config::HuggingFace(&config), std::sync::Arc::new(store)) {
            Ok(_) | Err(Error::Format { .. } | Error::Unsupported { .. }) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}

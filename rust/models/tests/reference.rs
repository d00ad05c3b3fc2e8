//! The reference checkpoints: both forms of their configuration give one spec, and every tensor of
//! every checkpoint is taken exactly once.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved, describe, resolve};
use alloyforge_types::{
    Activation, KvType, LayerSpec, MlpSpec, NormPlacement, QkNorm, QuantType, RopeScaling, RouterOrder,
};
use support::{FakeStore, json, reference};

const CASES: [&str; 14] = [
    "gemma2",
    "gemma3_text",
    "gpt_oss",
    "llama",
    "llama3_rope",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "phi3_longrope",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
];

fn open(case: &str, config: &str) -> (Arc<SafetensorsStore>, Resolved) {
    let folder = reference(case);
    let config = json(folder.join(config));
    let store = Arc::new(SafetensorsStore::open(&folder).unwrap());
    let resolved = resolve(Config::HuggingFace(&config), store.clone());
    (store, resolved.unwrap_or_else(|e| panic!("{case}: {e}")))
}

#[test]
fn both_forms_of_a_configuration_give_one_spec() {
    for case in CASES {
        assert_eq!(open(case, "config.json").1.spec, open(case, "config.v4.json").1.spec, "{case}");
    }
}

#[test]
fn every_number_of_every_tensor_is_taken_once() {
    for case in CASES {
        let (store, resolved) = open(case, "config.json");
        let spec = &resolved.spec;
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for role in spec.roles() {
            let weight = resolved.weights.weight(role).unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(weight.ty, QuantType::F32, "{case}: {role:?}");
            assert_eq!(weight.data.len(), weight.rows * weight.cols * 4, "{case}: {role:?}");
            *taken.entry(weight.name).or_default() += weight.rows * weight.cols;
        }
        let stored: BTreeMap<String, usize> = store
            .names()
            .into_iter()
            .map(|name| (name.to_owned(), store.tensor(name).unwrap().data.len() / 4))
            .collect();
        assert_eq!(taken, stored, "{case}");
        assert_eq!(resolved.parameters, stored.values().sum::<usize>() as u64, "{case}");
        assert_eq!(resolved.file_type, "f32");
    }
}

/// What is odd about the references' settings, each family's own.
#[test]
fn settings_reach_the_spec() {
    let layers = |case: &str| open(case, "config.json").1.spec.layers;
    let windows = |case: &str| layers(case).iter().map(|l| l.attention.window).collect::<Vec<_>>();
    let is_moe = |layer: &LayerSpec| matches!(layer.mlp, MlpSpec::Moe(_));
    let rope = |case: &str| open(case, "config.json").1.spec.ropes[0].clone();

    assert_eq!(windows("mistral"), [Some(8), Some(8)]);
    assert_eq!(windows("gemma2"), [Some(8), None]);
    assert_eq!(windows("gemma3_text"), [Some(8), Some(8), None]);
    assert_eq!(windows("gpt_oss"), [Some(8), None]);
    assert_eq!(windows("phi3"), [Some(32), Some(32)]);
    assert_eq!(windows("qwen2"), [None, None]);

    assert_eq!(layers("gemma2")[0].attention.scale, 20f64.powf(-0.5) as f32);
    assert_eq!(layers("gemma2")[1].attention.softcap, Some(1.5));
    assert_eq!(open("gemma2", "config.json").1.spec.logit_softcap, Some(2.0));
    assert_eq!(open("gemma3_text", "config.json").1.spec.ropes[1].theta, 5000.0);
    assert_eq!(rope("gemma3_text").scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(layers("qwen3")[0].attention.head_dim, 24);
    assert_eq!(layers("qwen3_moe").iter().map(is_moe).collect::<Vec<_>>(), [false, true]);
    let MlpSpec::Moe(moe) = &layers("qwen3_moe")[1].mlp else { panic!("no experts") };
    assert_eq!((moe.ff_dim, moe.order), (48, RouterOrder::SoftmaxThenTopK { renormalise: true }));
    assert_eq!(
        layers("smollm3").iter().map(|l| l.attention.rope).collect::<Vec<_>>(),
        [Some(0), None, Some(0)]
    );
    assert_eq!(
        (layers("olmo2")[0].norms, layers("olmo2")[0].attention.qk_norm),
        (NormPlacement::Post, QkNorm::FullWidth)
    );
    let MlpSpec::Moe(moe) = &layers("gpt_oss")[0].mlp else { panic!("no experts") };
    assert_eq!(moe.activation, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 });
    assert_eq!(rope("phi3_longrope").dim, 12);
    let RopeScaling::LongRope { original_len, magnitude, .. } = rope("phi3_longrope").scaling else {
        panic!("no longrope")
    };
    // sqrt(1 + ln(512 / 128) / ln(128))
    assert!(original_len == 128 && (f64::from(magnitude) - 1.133_893_419).abs() < 1e-6, "{magnitude}");
}

/// Gemma 3 with eyes: its text part alone, under the names that it has there.
#[test]
fn the_text_part_of_a_larger_model() {
    let folder = support::data("configs/gemma3_conditional");
    let mut store = FakeStore::default();
    for (name, shape) in json(folder.join("tensors.json")).as_object().unwrap() {
        let shape: Vec<usize> =
            shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        store.shape(name, &shape);
    }
    let [new, old] = ["config.json", "config.v4.json"]
        .map(|file| store.resolve(Config::HuggingFace(&json(folder.join(file)))).unwrap().spec);
    assert_eq!(new, old);
    assert_eq!((new.layers.len(), new.vocab_size, new.layers[0].attention.window), (3, 320, Some(12)));
    assert_eq!(new.ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
    assert!(new.has_tied_head);
}

#[test]
fn a_description_adds_up() {
    let (store, resolved) = open("gemma2", "config.json");
    let described = describe(&resolved, &*store);
    assert_eq!((described.layers, described.windowed_layers, described.window), (2, 1, Some(8)));
    assert_eq!((described.heads, described.kv_heads, described.head_dim), (4, 2, 16));
    assert_eq!(described.weight_bytes, resolved.parameters * 4);
    // two layers of keys and values, two heads of 16 numbers of two bytes
    assert_eq!(described.kv_bytes_per_token, 2 * 2 * 2 * 16 * 2);
    assert_eq!(resolved.spec.kv_token_bytes(0, KvType::F16), 128);
    assert_eq!(described.types.len(), 1);
    assert_eq!((described.types[0].name.as_str(), described.types[0].tensors), ("f32", store.names().len()));
}

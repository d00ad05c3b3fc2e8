//! The reference checkpoints: both forms of their configuration give one spec, and every tensor of
//! every checkpoint is taken exactly once.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use alloyforge_formats::safetensors::SafetensorsStore;
use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved, resolve, roles};
use alloyforge_types::{QuantType, Role};
use support::{json, reference};

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
        for role in roles(spec).filter(|&r| r != Role::Head || !spec.has_tied_head) {
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

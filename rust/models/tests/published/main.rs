//! Published models: their `config.json` as it is on the hub, their tensors by name and shape, and
//! what is known of them, the count of parameters above all.

mod gemma;
mod llama;
mod others;
mod phi;
mod qwen;
#[path = "../support/mod.rs"]
mod support;

use alloyforge_models::{Config, Resolved};
use alloyforge_types::{AttentionSpec, ModelSpec};
use serde_json::Value;
use support::FakeStore;

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

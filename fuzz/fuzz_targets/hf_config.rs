//! Any bytes as a `config.json`: an error, or a spec.

#![no_main]

use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, resolve};
use alloyforge_types::TensorView;
use libfuzzer_sys::fuzz_target;

/// A checkpoint without tensors.
struct Empty;

impl TensorStore for Empty {
    fn label(&self) -> &str {
        "config.json"
    }

    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn tensor(&self, _name: &str) -> Option<TensorView<'_>> {
        None
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = serde_json::from_slice(data) {
        let _ = resolve(Config::HuggingFace(&config), Arc::new(Empty));
    }
});

//! Reads the vocabularies in `data/`, which `data/make.py` made.
#![allow(dead_code)] // each test file uses its part

use std::path::PathBuf;
use std::sync::Arc;

use alloyforge_tokenize::{TextTokenizer, from_gguf, from_json};
use alloyforge_types::{MetaArray, MetaValue, Metadata};
use serde_json::Value;

/// The bytes of a file in `data/`.
pub fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A JSON file in `data/`.
pub fn json(name: &str) -> Value {
    serde_json::from_slice(&data(name)).expect("JSON")
}

/// Metadata written as JSON, with the types that a GGUF file would give.
pub fn metadata(value: &Value) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in value.as_object().expect("an object") {
        assert!(metadata.insert(key.clone(), meta_value(key, value)));
    }
    metadata
}

fn meta_value(key: &str, value: &Value) -> MetaValue {
    let items = match value {
        Value::String(text) => return MetaValue::Str(text.as_str().into()),
        Value::Bool(value) => return MetaValue::Bool(*value),
        Value::Number(number) => return MetaValue::U64(number.as_u64().expect("unsigned")),
        Value::Array(items) => items,
        other => panic!("{key}: {other}"),
    };
    let text = |item: &Value| item.as_str().expect("a string").into();
    MetaValue::Array(if key.ends_with("scores") {
        MetaArray::F32(items.iter().map(|item| item.as_f64().expect("a number") as f32).collect())
    } else if key.ends_with("token_type") {
        MetaArray::I64(items.iter().map(|item| item.as_i64().expect("an integer")).collect())
    } else if key.ends_with("charsmap") {
        MetaArray::U64(items.iter().map(|item| item.as_u64().expect("a byte")).collect())
    } else {
        MetaArray::Str(items.iter().map(text).collect::<Vec<Box<str>>>().into())
    })
}

/// The tokenizer of the GGUF vocabulary in `data/name`.
pub fn gguf(name: &str) -> Arc<TextTokenizer> {
    Arc::new(from_gguf(&metadata(&json(name)["metadata"]), name).expect("a tokenizer"))
}

/// The tokenizer of `data/name.tokenizer.json`.
pub fn tokenizer_json(name: &str) -> Arc<TextTokenizer> {
    let name = format!("{name}.tokenizer.json");
    Arc::new(from_json(&data(&name), &name, None, None, None).expect("a tokenizer"))
}

/// An array of ids.
pub fn ids(value: &Value) -> Vec<u32> {
    let id = |item: &Value| u32::try_from(item.as_u64().expect("an id")).expect("an id");
    value.as_array().expect("an array").iter().map(id).collect()
}

/// An array.
pub fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

/// A string.
pub fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

//! Stores that tests make up.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod shapes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use alloyforge_interfaces::TensorStore;
use alloyforge_models::{Config, Resolved, resolve};
use alloyforge_types::{ByteView, MetaArray, MetaValue, Metadata, QuantType, Result, TensorView};
use serde_json::Value;

/// The folder of the reference checkpoint `case`.
pub fn reference(case: &str) -> PathBuf {
    data(&format!("reference/{case}"))
}

/// A path below `tests/data`.
pub fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

/// The JSON file at `path`.
pub fn json(path: PathBuf) -> Value {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Tensors in memory; those without data have a shape only, which is all that resolving looks at.
#[derive(Debug, Clone, Default)]
pub struct FakeStore {
    tensors: BTreeMap<String, (QuantType, Vec<usize>, Vec<u8>)>,
    bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    foreign: BTreeMap<String, String>,
}

impl FakeStore {
    /// Adds a tensor of a shape and no data.
    pub fn shape(&mut self, name: impl Into<String>, shape: &[usize]) -> &mut Self {
        self.typed(name, QuantType::F32, shape, Vec::new())
    }

    /// Adds a tensor of single-precision numbers.
    pub fn floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) -> &mut Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        self.typed(name, QuantType::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds a tensor.
    pub fn typed(
        &mut self,
        name: impl Into<String>,
        ty: QuantType,
        shape: &[usize],
        data: Vec<u8>,
    ) -> &mut Self {
        self.tensors.insert(name.into(), (ty, shape.to_vec(), data));
        self
    }

    /// Adds a tensor of bytes.
    pub fn packed(&mut self, name: impl Into<String>, shape: &[usize], data: Vec<u8>) -> &mut Self {
        self.bytes.insert(name.into(), (shape.to_vec(), data));
        self
    }

    /// Adds a tensor of a type that models do not compute with.
    pub fn foreign(&mut self, name: &str, ty: &str) -> &mut Self {
        self.tensors.remove(name);
        self.foreign.insert(name.to_owned(), ty.to_owned());
        self
    }

    /// Takes a tensor away.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        assert!(self.tensors.remove(name).is_some(), "{name}");
        self
    }

    /// Numbers in all tensors.
    pub fn numbers(&self) -> u64 {
        self.tensors.values().map(|(_, shape, _)| shape.iter().product::<usize>() as u64).sum()
    }

    /// Resolves `config` with these tensors.
    pub fn resolve(&self, config: Config<'_>) -> Result<Resolved> {
        resolve(config, Arc::new(self.clone()))
    }
}

impl TensorStore for FakeStore {
    fn label(&self) -> &str {
        "fake.model"
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (ty, shape, data) = self.tensors.get(name)?;
        Some(TensorView { ty: *ty, shape: shape.clone(), data })
    }

    fn foreign_type(&self, name: &str) -> Option<&str> {
        self.foreign.get(name).map(String::as_str)
    }

    fn bytes(&self, name: &str) -> Option<ByteView<'_>> {
        let (shape, data) = self.bytes.get(name)?;
        Some(ByteView { shape: shape.clone(), data })
    }
}

/// GGUF metadata from pairs.
pub fn metadata(pairs: &[(&str, MetaValue)]) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in pairs {
        assert!(metadata.insert((*key).to_owned(), value.clone()), "{key} twice");
    }
    metadata
}

/// An unsigned value.
pub fn u(n: u64) -> MetaValue {
    MetaValue::U64(n)
}

/// A float value, as a file's single precision.
pub fn f(x: f32) -> MetaValue {
    MetaValue::F64(x.into())
}

/// A string value.
pub fn s(text: &str) -> MetaValue {
    MetaValue::Str(text.into())
}

/// An array of unsigned values.
pub fn us(values: &[u64]) -> MetaValue {
    MetaValue::Array(MetaArray::U64(values.into()))
}

/// An array of booleans.
pub fn bs(values: &[bool]) -> MetaValue {
    MetaValue::Array(MetaArray::Bool(values.into()))
}
